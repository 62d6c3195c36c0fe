#!/usr/bin/env bash
# Random queries over random changes, killed and restored, for as long as asked: soak.sh [MINUTES], an hour by default.
# Each run begins at another seed. It fails if a kept view ever differs from plain SQL, or if memory grows: the
# process's size in the last quarter of the time may be half as large again as in the second quarter, and no more.
#
# Beside it, clients come and go at live servers that are stopped and started (dashboard-api/tests/it/soak.rs): it fails
# if a client ever misses a row, or if memory grows. SOAK_PARTS="live" or "queries" runs one of the two.
#
# Before that, engine and broker are killed ANDON_KILLS (200) times under load; see tests/it/kills.rs.
#
# SOAK_FROM=SEED begins at a seed.
set -euo pipefail
cd "$(dirname "$0")/../.."

parts=${SOAK_PARTS:-queries live}
minutes=${1:-60}
seconds=$((minutes * 60))
live_pid=
pid=
trap 'for child in $live_pid $pid; do kill "$child" 2> /dev/null || true; done' EXIT

# test_binary CRATE: builds the tests in its folder `tests`, and says where they are. cargo names the binary relative to
# this folder, and the tests look for their files from their crate's.
test_binary() {
  local binary
  binary=$(cargo test --locked -p "$1" --test it --no-run 2>&1 | tee /dev/stderr \
    | sed -nr 's/.*Executable tests\/it\/main.rs \((.*)\)/\1/p')
  [ -n "$binary" ] || { echo "the tests of $1 were not built" >&2; return 1; }
  realpath "$binary"
}

# start_live: in the background, its pid in live_pid.
start_live() {
  local binary
  binary=$(test_binary dashboard-api)
  (cd dashboard-api && ANDON_LIVE_SOAK_SECONDS=$seconds \
    exec "$binary" clients_that_come_and_go_end_with_the_rows_of_the_view --nocapture) &
  live_pid=$!
}

if [ "$parts" = live ]; then
  start_live
  wait "$live_pid"
  exit
fi

ANDON_KILLS=${ANDON_KILLS:-200} cargo test --locked -p andon --test it kills -- --nocapture

export ANDON_ORACLE_SECONDS=$seconds ANDON_ORACLE_FROM=${SOAK_FROM:-$(($(date +%s) % 1000000000))}
echo "from seed $ANDON_ORACLE_FROM, for $minutes minutes"
binary=$(test_binary pipelines)
[ "$parts" = queries ] || start_live
(cd pipelines && exec "$binary" random_queries_equal_plain_sql --nocapture) &
pid=$!

sizes=()
while kill -0 "$pid" 2> /dev/null; do
  size=$(awk '/VmRSS/ {print int($2 / 1024)}' "/proc/$pid/status" 2> /dev/null || true)
  if [ -n "$size" ]; then
    sizes+=("$size")
    echo "memory: $size MB"
  fi
  sleep $((seconds / 40 > 30 ? 30 : seconds / 40 + 1))
done
status=0
wait "$pid" || status=$?
[ -z "$live_pid" ] || wait "$live_pid" || status=$?
live_pid=
pid=

# median FROM TO: of the measurements between these shares (in quarters) of the time.
median() {
  local n=${#sizes[@]}
  printf '%s\n' "${sizes[@]:$((n * $1 / 4)):$((n * ($2 - $1) / 4 + 1))}" | sort -n | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'
}
early=$(median 1 2) late=$(median 3 4)
echo "memory: $early MB in the second quarter, $late MB in the last"
if [ "$((late * 2))" -gt "$((early * 3 + 100))" ]; then
  echo "memory grew" >&2
  status=1
fi
exit "$status"
