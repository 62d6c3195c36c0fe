#!/usr/bin/env bash
# A server of Amazon's S3 protocol on loopback (moto), for development and tests.
#
#   s3.sh fetch              gets the server from PyPI into the cache
#   s3.sh start DIR BUCKET   starts a server that lives in DIR, with an empty bucket
#   s3.sh stop DIR | clean DIR   ends it; what it held is gone
#
# start prints S3_ENDPOINT. It listens on 127.0.0.1 only, takes any credentials and keeps everything in memory.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

MOTO_VERSION=5.2.5
MOTO_HOME=$CACHE/moto-$MOTO_VERSION

fetch() {
  [ -s "$MOTO_HOME/.complete" ] && return 0
  need python3 python3
  python3 -m pip --version > /dev/null 2>&1 || die "pip is missing; on Debian: apt-get install python3-pip"
  mkdir -p "$CACHE"
  (
    flock 9
    [ -s "$MOTO_HOME/.complete" ] && exit 0
    rm -rf "$MOTO_HOME" "$MOTO_HOME.part"
    echo "fetching moto $MOTO_VERSION from PyPI" >&2
    python3 -m pip install -qqq --no-compile --target "$MOTO_HOME.part" "moto[s3,server]==$MOTO_VERSION" >&2 \
      || die "pip could not fetch moto $MOTO_VERSION"
    echo "$MOTO_VERSION" > "$MOTO_HOME.part/.complete"
    mv "$MOTO_HOME.part" "$MOTO_HOME"
  ) 9> "$MOTO_HOME.lock"
}

start() {
  local dir=$1 bucket=$2 port
  need curl curl
  fetch
  mkdir -p "$dir"
  alive "$dir/s3.pid" || {
    port=$(kept_port "$dir/s3.port")
    PYTHONPATH=$MOTO_HOME setsid python3 -m moto.server -H 127.0.0.1 -p "$port" > "$dir/s3.log" 2>&1 < /dev/null &
    echo $! > "$dir/s3.pid"
    stop_with_owner "$dir/s3.pid"
    for _ in $(seq 600); do
      curl -sf -o /dev/null "http://127.0.0.1:$port/moto-api/" && break
      alive "$dir/s3.pid" || { tail -n 20 "$dir/s3.log" >&2; die "the S3 server did not start"; }
      sleep 0.05
    done
    curl -sf -o /dev/null -X PUT "http://127.0.0.1:$port/$bucket" || die "the bucket could not be made"
  }
  printf '%s\n' "S3_ENDPOINT=http://127.0.0.1:$(cat "$dir/s3.port")"
}

case "${1:-}" in
  fetch) fetch ;;
  start) [ $# -ge 3 ] || die "which folder, which bucket?"; start "$2" "$3" ;;
  stop) stop_pid "$2/s3.pid" 5 ;;
  clean) stop_pid "$2/s3.pid" 5; rm -f "$2"/s3* ;;
  *) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
