#!/usr/bin/env bash
# Measures the live server beside Centrifugo 5.4.9: bench-live.sh [CLIENTS] [IDLE_CLIENTS].
#
# One run of each, one after the other, with the same load program; prints one line per server and measurement: fan-out of
# one channel to CLIENTS (2000) connections, 500 clients in 20 channels each, 5000 clients that come at once, and
# IDLE_CLIENTS (18000) that only stay. PROFILE=release builds an optimised server. CENTRIFUGO=PATH takes a Centrifugo that
# is there; otherwise it is built with Go and kept in ${ANDON_CACHE:-$HOME/.cache/andon}/bin. See docs/benchmarks.md.
set -euo pipefail
cd "$(dirname "$0")/../.."
. deploy/dev/lib.sh

clients=${1:-2000}
idle=${2:-18000}
profile=${PROFILE:-dev}
work=$(mktemp -d "${TMPDIR:-/tmp}/andon-bench-live.XXXXXX")
pids=()
finish() {
  for pid in "${pids[@]}"; do kill "$pid" 2> /dev/null || true; done
  rm -rf "$work"
}
trap finish EXIT
ulimit -n "$(ulimit -Hn)"

cargo build --locked --quiet --profile "$profile" -p dashboard-api --example live_server --example live_load
built=${CARGO_TARGET_DIR:-target}/$([ "$profile" = release ] && echo release || echo debug)/examples

wait_for() {
  for _ in $(seq 200); do
    (exec 3<> "/dev/tcp/127.0.0.1/$1") 2> /dev/null && return 0
    sleep 0.1
  done
  die "nothing listens on port $1"
}

# run NAME PORT PID: all measurements of one server that speaks the protocol.
run() {
  local name=$1 address=127.0.0.1:$2 pid=$3
  echo "$name fanout $("$built/live_load" fanout "$address" "$pid" "$clients" 100 10 200)"
  echo "$name tiles $("$built/live_load" tiles "$address" "$pid" 500 20 10)"
  echo "$name storm $("$built/live_load" storm "$address" "$pid" 5000)"
  echo "$name idle $("$built/live_load" idle "$address" "$pid" "$idle")"
}

port=$(free_port)
cat > "$work/andon.json" <<'JSON'
{"auth": {"mode": "anonymous", "jwt_secret": "0123456789abcdef0123456789abcdef"}, "limits": {"connections": 100000},
 "server": {"connections_per_address": 100000},
 "live": {"server_api_keys": ["bench"], "namespaces": {"": {"history_size": 100, "recovery": true}}}}
JSON
mkfifo "$work/andon.in"
"$built/live_server" "$port" "$work/andon.json" < "$work/andon.in" > "$work/andon.log" 2>&1 &
pids+=($!)
exec 8> "$work/andon.in"
wait_for "$port"
run andon "$port" "${pids[-1]}"
kill "${pids[-1]}"

centrifugo=${CENTRIFUGO:-$CACHE/bin/centrifugo}
if [ ! -x "$centrifugo" ]; then
  need go golang-go
  GOBIN=$(dirname "$centrifugo") go install github.com/centrifugal/centrifugo/v5@v5.4.9
fi
port=$(free_port)
cat > "$work/centrifugo.json" <<JSON
{"port": "$port", "address": "127.0.0.1", "api_key": "bench", "client_insecure": true, "log_level": "error",
 "history_size": 100, "history_ttl": "300s", "force_recovery": true, "client_channel_limit": 128}
JSON
"$centrifugo" --config "$work/centrifugo.json" > "$work/centrifugo.log" 2>&1 &
pids+=($!)
wait_for "$port"
run centrifugo "$port" "${pids[-1]}"
kill "${pids[-1]}"
