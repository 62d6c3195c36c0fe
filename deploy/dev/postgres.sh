#!/usr/bin/env bash
# A PostgreSQL server with wal_level=logical on loopback, for development and tests.
#
#   postgres.sh start DIR      starts a server whose settings are kept in DIR
#   postgres.sh stop DIR       ends it; the next start in DIR goes on with the same port and data
#   postgres.sh clean DIR      ends it and removes its data
#   postgres.sh psql DIR ARGS… runs psql against it
#
# start prints PGHOST, PGPORT, PGUSER and POSTGRES_URL. Its only user is the superuser postgres, without a password, and it
# listens on 127.0.0.1 only. Run as root, it starts the server as the system user postgres, which PostgreSQL insists on.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

# The newest PostgreSQL on this machine; Debian keeps the server's programs out of PATH.
bindir() {
  local dir
  dir=$(ls -d /usr/lib/postgresql/*/bin 2> /dev/null | sort -t/ -k5 -n | tail -n 1)
  [ -n "$dir" ] || dir=$(pg_config --bindir 2> /dev/null) || true
  [ -x "$dir/initdb" ] || die "PostgreSQL's server is missing; on Debian: apt-get install postgresql"
  echo "$dir"
}

as_postgres() {
  if [ "$(id -u)" = 0 ]; then (cd / && runuser -u postgres -- "$@"); else "$@"; fi
}

start() {
  local dir=$1 bin data port
  bin=$(bindir)
  mkdir -p "$dir"
  dir=$(cd "$dir" && pwd)
  if [ ! -s "$dir/postgres.data" ]; then
    # Not in DIR itself: a temporary folder of root's cannot be entered by the user postgres.
    data=$(mktemp -d "${TMPDIR:-/tmp}/andon-postgres.XXXXXX")
    [ "$(id -u)" != 0 ] || chown postgres "$data"
    as_postgres "$bin/initdb" -D "$data/data" -A trust -U postgres -E UTF8 --locale=C.UTF-8 --no-sync \
      > "$dir/postgres-initdb.log" 2>&1 || { tail -n 20 "$dir/postgres-initdb.log" >&2; die "initdb failed"; }
    echo "$data" > "$dir/postgres.data"
  fi
  data=$(cat "$dir/postgres.data")
  for attempt in 1 2 3 4 5; do
    as_postgres "$bin/pg_ctl" -D "$data/data" status > /dev/null 2>&1 && break
    port=$(kept_port "$dir/postgres.port")
    # Nothing here need survive a power cut, so commits do not wait for the disk.
    as_postgres "$bin/pg_ctl" -D "$data/data" -l "$data/log" -t 120 -w start -o "-p $port \
      -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c wal_level=logical -c max_replication_slots=8 \
      -c max_wal_senders=8 -c shared_buffers=64MB -c fsync=off -c synchronous_commit=off -c jit=off -c timezone=UTC" \
      > /dev/null 2>&1 < /dev/null && break
    grep -q 'could not bind' "$data/log" 2> /dev/null && [ "$attempt" -lt 5 ] \
      || { tail -n 20 "$data/log" >&2; die "PostgreSQL did not start"; }
    rm -f "$dir/postgres.port"
    as_postgres rm -f "$data/log"
  done
  head -n 1 "$data/data/postmaster.pid" > "$dir/postgres.pid"
  stop_with_owner "$dir/postgres.pid"
  port=$(cat "$dir/postgres.port")
  printf '%s\n' "PGHOST=127.0.0.1" "PGPORT=$port" "PGUSER=postgres" "POSTGRES_URL=postgres://postgres@127.0.0.1:$port/postgres"
}

stop() {
  local dir=$1
  [ -s "$dir/postgres.data" ] || return 0
  as_postgres "$(bindir)/pg_ctl" -D "$(cat "$dir/postgres.data")/data" -m "$2" -w stop > /dev/null 2>&1 || true
  rm -f "$dir/postgres.pid"
}

case "${1:-}" in
  start) [ $# -ge 2 ] || die "which folder?"; start "$2" ;;
  stop) stop "$2" fast ;;
  clean)
    stop "$2" immediate
    [ ! -s "$2/postgres.data" ] || rm -rf "$(cat "$2/postgres.data")"
    rm -f "$2"/postgres* ;;
  psql)
    need psql postgresql-client
    port=$(cat "$2/postgres.port"); shift 2
    exec psql -h 127.0.0.1 -p "$port" -U postgres "$@" ;;
  *) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
