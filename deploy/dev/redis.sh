#!/usr/bin/env bash
# A Redis server on loopback, for development and tests.
#
#   redis.sh start DIR   starts a server whose settings are kept in DIR
#   redis.sh kill9 DIR   kills it as a crash would; the next start in DIR goes on with the same port, and without its data
#   redis.sh stop DIR    ends it
#   redis.sh clean DIR   ends it and removes its files
#
# start prints REDIS_URL. It listens on 127.0.0.1 only and keeps nothing on disk.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

start() {
  local dir=$1 port
  need redis-server redis-server
  need redis-cli redis-tools
  mkdir -p "$dir"
  alive "$dir/redis.pid" || {
    port=$(kept_port "$dir/redis.port")
    setsid redis-server --bind 127.0.0.1 --port "$port" --save '' --appendonly no --dir "$dir" \
      > "$dir/redis.log" 2>&1 < /dev/null &
    echo $! > "$dir/redis.pid"
    stop_with_owner "$dir/redis.pid"
    for _ in $(seq 200); do
      [ "$(redis-cli -h 127.0.0.1 -p "$port" ping 2> /dev/null)" = PONG ] && break
      alive "$dir/redis.pid" || { tail -n 20 "$dir/redis.log" >&2; die "Redis did not start"; }
      sleep 0.05
    done
  }
  printf '%s\n' "REDIS_URL=redis://127.0.0.1:$(cat "$dir/redis.port")/0"
}

case "${1:-}" in
  start) [ $# -ge 2 ] || die "which folder?"; start "$2" ;;
  kill9) ! alive "$2/redis.pid" || kill -9 "$(cat "$2/redis.pid")"; rm -f "$2/redis.pid" ;;
  stop) stop_pid "$2/redis.pid" 5 ;;
  clean) stop_pid "$2/redis.pid" 5; rm -f "$2"/redis* ;;
  *) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
