#!/usr/bin/env bash
# Measures the live server beside Centrifugo 5.4.9, and beside Django Channels with Daphne and Redis:
# bench-live.sh [SERVER…], of andon, centrifugo and daphne.
#
# One load program measures them all, one server at a time, ROUNDS (2) times round. It prints one line per measurement:
# - fanout: one channel to CLIENTS (2000) connections, 200 bytes, 10 messages a second; busy: the same at 60 a second;
# - tiles: 500 clients in 20 channels each, a message a second in each;
# - storm: 5000 clients come at once and recover ten messages each;
# - idle: IDLE_CLIENTS (19000) that only stay; the limit of open files bounds them;
# - view, of Andon alone: a change of a table on its way into the log, through the engine, to CLIENTS on a view.
# Daphne is measured in fanout (500 connections, 5 messages a second, which is what it can do) and idle (2000).
#
# PROFILE=dev measures unoptimised binaries. CENTRIFUGO=PATH and DAPHNE=PATH take those that are there; otherwise they are
# built, with Go and Python, and kept in ${ANDON_CACHE:-$HOME/.cache/andon}. See docs/benchmarks.md.
set -euo pipefail
cd "$(dirname "$0")/../.."
. deploy/dev/lib.sh
need openssl openssl
need curl curl

servers=("$@")
[ $# -gt 0 ] || servers=(andon centrifugo daphne)
clients=${CLIENTS:-2000}
idle=${IDLE_CLIENTS:-19000}
rounds=${ROUNDS:-2}
profile=${PROFILE:-release}
export LIVE_LOAD_KEY=the-key-of-a-benchmark
secret=of-a-benchmark-on-this-machine-alone
work=$(mktemp -d "${TMPDIR:-/tmp}/andon-bench-live.XXXXXX")
pid=
finish() {
  [ -z "$pid" ] || kill "$pid" 2> /dev/null || true
  deploy/dev/redis.sh clean "$work" || true
  rm -rf "$work"
}
trap finish EXIT
ulimit -n "$(ulimit -Hn)"

built=${CARGO_TARGET_DIR:-target}/$([ "$profile" = release ] && echo release || echo debug)
if [ -z "${NO_BUILD:-}" ]; then
  cargo build --locked --quiet --profile "$profile" -p dashboard-api --example live_server --example live_load
  cargo build --locked --quiet --profile "$profile" -p andon
fi

# await_port PORT: until somebody listens there.
await_port() {
  for _ in $(seq 300); do
    (exec 3<> "/dev/tcp/127.0.0.1/$1") 2> /dev/null && return 0
    kill -0 "$pid" 2> /dev/null || { tail -n 20 "$work/server.log" >&2; die "the server ended"; }
    sleep 0.1
  done
  die "nothing listens on port $1"
}

stop() {
  kill "$pid"
  wait "$pid" 2> /dev/null || true
  pid=
}

# measure SERVER NAME MODE URL NUMBER…
measure() {
  local server=$1 name=$2 mode=$3 url=$4
  shift 4
  echo "$server $name $("$built/examples/live_load" "$mode" "$url" "$pid" "$@")"
}

# centrifuge SERVER PORT: all that a server of the Centrifuge protocol is measured in.
centrifuge() {
  local url=ws://127.0.0.1:$2/connection/websocket
  # First, since memory that other clients have left would be taken again.
  measure "$1" idle idle "$url" "$idle"
  measure "$1" fanout fanout "$url" "$clients" 150 10 200
  measure "$1" busy fanout "$url" "$clients" 600 60 200
  measure "$1" tiles tiles "$url" 500 20 10
  measure "$1" storm storm "$url" 5000
}

andon() {
  local port
  port=$(free_port)
  cat > "$work/andon.json" << JSON
{"auth": {"mode": "anonymous", "jwt_secret": "$secret"}, "limits": {"connections": 100000},
 "server": {"connections_per_address": 100000, "requests_per_second": 100000},
 "live": {"server_api_keys": ["$LIVE_LOAD_KEY"], "namespaces": {"": {"history_size": 100, "recovery": true}}}}
JSON
  rm -f "$work/andon.in"
  mkfifo "$work/andon.in"
  "$built/examples/live_server" "$port" "$work/andon.json" < "$work/andon.in" > "$work/server.log" 2>&1 &
  pid=$!
  exec 8> "$work/andon.in"
  await_port "$port"
  centrifuge andon "$port"
  exec 8>&-
  stop
  andon_view
}

# A token for the role `ingest`.
ingest_token() {
  local head body
  head=$(printf '{"alg":"HS256","typ":"JWT"}' | base64url)
  body=$(printf '{"sub":"bench","roles":["ingest"],"exp":%d}' $(($(date +%s) + 3600)) | base64url)
  printf '%s.%s.%s' "$head" "$body" "$(printf %s "$head.$body" | openssl dgst -sha256 -hmac "$secret" -binary | base64url)"
}

base64url() { openssl base64 -A | tr '+/' '-_' | tr -d =; }

# A whole node, with one table and one view.
andon_view() {
  local port dir=$work/node
  port=$(free_port)
  rm -rf "$dir"
  mkdir -p "$dir/source" "$dir/views"
  cat > "$dir/source/ping.sql" << 'SQL'
CREATE TABLE ping (id BIGINT NOT NULL, t BIGINT, pad STRING, PRIMARY KEY (id) NOT ENFORCED)
WITH ('connector' = 'kafka', 'topic' = 'bench.ping', 'format' = 'debezium-json');
SQL
  echo "CREATE MATERIALIZED VIEW pings WITH ('key' = 'id') AS SELECT id, t, pad FROM ping;" > "$dir/views/pings.sql"
  cat > "$dir/andon.toml" << TOML
log.dir = "$dir/log"
state.location = "$dir/state"
database.url = "sqlite:$dir/andon.db"
source.dir = "$dir/source"
views.dir = "$dir/views"
rules.enabled = false
[api]
listen = "127.0.0.1:$port"
auth = { mode = "anonymous", jwt_secret = "$secret" }
server = { connections_per_address = 100000, requests_per_second = 100000 }
ingest = { enabled = true }
TOML
  "$built/andon" serve --config "$dir/andon.toml" > "$work/server.log" 2>&1 &
  pid=$!
  await_port "$port"
  for _ in $(seq 300); do
    ! curl -sf "http://127.0.0.1:$port/readyz" > /dev/null || break
    sleep 0.1
  done
  LIVE_LOAD_KEY=$(ingest_token) measure andon view view "ws://127.0.0.1:$port/connection/websocket" "$clients" 150 10 200
  stop
}

centrifugo() {
  local port program=${CENTRIFUGO:-$CACHE/centrifugo/centrifugo}
  if [ ! -x "$program" ]; then
    need go golang-go
    # `go install` is not enough where the module proxy gives modules only to those who require them.
    mkdir -p "$CACHE/centrifugo"
    (
      cd "$CACHE/centrifugo"
      printf 'module bench\n\ngo 1.23\n' > go.mod
      export GOFLAGS=-mod=mod GOWORK=off
      go get github.com/centrifugal/centrifugo/v5@v5.4.9
      go build -o centrifugo github.com/centrifugal/centrifugo/v5
    ) > "$work/server.log" 2>&1 || { tail -n 20 "$work/server.log" >&2; die "Centrifugo could not be built"; }
  fi
  port=$(free_port)
  cat > "$work/centrifugo.json" << JSON
{"port": "$port", "address": "127.0.0.1", "api_key": "$LIVE_LOAD_KEY", "client_insecure": true, "log_level": "error",
 "history_size": 100, "history_ttl": "300s", "force_recovery": true, "client_channel_limit": 128}
JSON
  "$program" --config "$work/centrifugo.json" > "$work/server.log" 2>&1 &
  pid=$!
  await_port "$port"
  centrifuge centrifugo "$port"
  stop
}

daphne() {
  local port url program=${DAPHNE:-$CACHE/daphne/bin/daphne}
  if [ ! -x "$program" ]; then
    need python3 python3
    python3 -m venv "$CACHE/daphne" || die "python3 -m venv failed; on Debian: apt-get install python3-venv"
    "$CACHE/daphne/bin/pip" install --quiet --requirement deploy/dev/peers/requirements.txt
  fi
  eval "$(deploy/dev/redis.sh start "$work")"
  port=$(free_port)
  REDIS_URL=$REDIS_URL PYTHONPATH=deploy/dev/peers \
    "$program" --bind 127.0.0.1 --port "$port" --verbosity 0 channels_peer:application > "$work/server.log" 2>&1 &
  pid=$!
  await_port "$port"
  url=ws://127.0.0.1:$port/
  measure daphne idle idle "$url" 2000
  measure daphne fanout fanout "$url" 500 20 5 200
  stop
}

echo "machine: $(nproc) cores, $(awk -F ': ' '/model name/ {print $2; exit}' /proc/cpuinfo); profile $profile; open files $(ulimit -n)"
for _ in $(seq "$rounds"); do
  for server in "${servers[@]}"; do
    case $server in
      andon | centrifugo | daphne) "$server" ;;
      *) die "no server $server" ;;
    esac
  done
done
