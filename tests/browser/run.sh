#!/bin/sh
# Opens the board of a fresh `andon demo` in a real browser. Usage: run.sh BINARY [playwright arguments]
# Starts the binary on a free port with its own data directory, runs the tests, stops it, cleans up.
set -eu
binary=$(readlink -f "${1:?usage: run.sh BINARY [playwright arguments]}")
shift
cd "$(dirname "$0")"
command -v "${CHROMIUM:-/usr/bin/chromium}" >/dev/null || { echo "run.sh: no Chromium at ${CHROMIUM:-/usr/bin/chromium} (Debian: apt-get install chromium)" >&2; exit 2; }
[ -d node_modules ] || PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 npm ci --no-fund --no-audit

work=$(mktemp -d)
port=$(node -e 'const s=require("net").createServer().listen(0,"127.0.0.1",()=>{console.log(s.address().port);s.close()})')
"$binary" demo --listen "127.0.0.1:$port" --data-dir "$work/data" >"$work/andon.log" 2>&1 &
demo=$!
stop() {
  kill "$demo" 2>/dev/null || true
  wait "$demo" 2>/dev/null || true
  rm -rf "$work"
}
trap stop EXIT INT TERM

BASE_URL="http://127.0.0.1:$port"
export BASE_URL
for _ in $(seq 120); do
  kill -0 "$demo" 2>/dev/null || { echo "run.sh: the demo ended:" >&2; tail -n 40 "$work/andon.log" >&2; exit 1; }
  if node -e 'fetch(process.argv[1]).then((r)=>process.exit(r.ok?0:1),()=>process.exit(1))' "$BASE_URL/healthz"; then
    status=0
    npx --no-install playwright test "$@" || status=$?
    [ "$status" -eq 0 ] || tail -n 40 "$work/andon.log" >&2
    exit "$status"
  fi
  sleep 0.5
done
echo "run.sh: no answer from $BASE_URL within a minute:" >&2
tail -n 40 "$work/andon.log" >&2
exit 1
