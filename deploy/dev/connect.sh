#!/usr/bin/env bash
# Kafka Connect with Debezium's PostgreSQL connector on loopback, for development and tests.
#
#   connect.sh fetch                                       gets the jars into the cache, nothing else
#   connect.sh start DIR KAFKA_BROKERS [KEY=VALUE…]        starts a worker that lives in DIR; KEY=VALUE are worker settings
#   connect.sh add DIR NAME KEY=VALUE…                     adds or changes a connector and waits until its tasks run
#   connect.sh add-postgres DIR NAME PGPORT DATABASE PREFIX [KEY=VALUE…]
#                                                          the same for Debezium, topics PREFIX.public.TABLE; KEY=VALUE override
#   connect.sh status DIR NAME | remove DIR NAME           one connector
#   connect.sh stop DIR | kill9 DIR | clean DIR            the worker; clean also removes its files
#
# start prints CONNECT_URL=http://HOST:PORT and CONNECT_PID=N. CONNECT_HEAP (default 384m) is its heap.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

start() {
  local dir=$1 brokers=$2 port
  shift 2
  need java openjdk-17-jre-headless
  need curl curl
  fetch_jars kafka
  fetch_jars debezium
  mkdir -p "$dir"
  dir=$(cd "$dir" && pwd)
  if ! alive "$dir/connect.pid"; then
    for attempt in 1 2 3 4 5; do
      port=$(kept_port "$dir/connect.port")
      mkdir -p "$dir/connect-plugins"
      ln -sfn "$DEBEZIUM_LIBS" "$dir/connect-plugins/debezium-connector-postgres"
      cat > "$dir/connect.properties" <<P
bootstrap.servers=$brokers
listeners=HTTP://127.0.0.1:$port
key.converter=org.apache.kafka.connect.json.JsonConverter
value.converter=org.apache.kafka.connect.json.JsonConverter
key.converter.schemas.enable=false
value.converter.schemas.enable=false
offset.storage.file.filename=$dir/connect.offsets
offset.flush.interval.ms=1000
plugin.path=$dir/connect-plugins
plugin.discovery=service_load
P
      [ $# -eq 0 ] || printf '%s\n' "$@" >> "$dir/connect.properties"
      run_java connect "$dir" -Xmx"${CONNECT_HEAP:-384m}" -Xms128m -XX:TieredStopAtLevel=1 -cp "$KAFKA_LIBS/*" \
        org.apache.kafka.connect.cli.ConnectStandalone "$dir/connect.properties"
      wait_up "$dir" "$port" && break
      [ "$attempt" -lt 5 ] || die "found no free port"
      rm -f "$dir/connect.port"
    done
  fi
  echo "CONNECT_URL=http://127.0.0.1:$(cat "$dir/connect.port")"
  echo "CONNECT_PID=$(cat "$dir/connect.pid")"
}

# wait_up DIR PORT: 0 when it serves, 1 when its port was taken meanwhile.
wait_up() {
  for _ in $(seq 1200); do
    curl -fs "http://127.0.0.1:$2/" > /dev/null 2>&1 && return 0
    if ! alive "$1/connect.pid"; then
      grep -qi 'address already in use\|failed to bind' "$1/connect.log" && return 1
      tail -n 20 "$1/connect.log" >&2
      die "the worker ended while it started; its log is $1/connect.log"
    fi
    sleep 0.1
  done
  die "the worker did not start within 120 s; its log is $1/connect.log"
}

# json KEY=VALUE…: a JSON object; a later pair takes the place of an earlier one of the same key.
json() {
  local pair value sep=
  declare -A seen=()
  for pair in "$@"; do seen[${pair%%=*}]=${pair#*=}; done
  printf '{'
  for pair in "${!seen[@]}"; do
    value=${seen[$pair]//\\/\\\\}
    printf '%s"%s":"%s"' "$sep" "$pair" "${value//\"/\\\"}"
    sep=,
  done
  printf '}'
}

add() {
  local dir=$1 name=$2 url status=
  url=http://127.0.0.1:$(cat "$dir/connect.port")/connectors/$name
  shift 2
  json "$@" | curl -fsS -X PUT -H 'Content-Type: application/json' --data-binary @- "$url/config" > /dev/null
  for _ in $(seq 600); do
    status=$(curl -fs "$url/status" || true)
    case $status in
      *FAILED*) die "connector $name failed: $status" ;;
      *'"tasks":[{'*RUNNING*) return 0 ;;
    esac
    sleep 0.1
  done
  die "connector $name did not start within 60 s: $status"
}

add_postgres() {
  local dir=$1 name=$2 port=$3 database=$4 prefix=$5
  shift 5
  add "$dir" "$name" connector.class=io.debezium.connector.postgresql.PostgresConnector tasks.max=1 plugin.name=pgoutput \
    database.hostname=127.0.0.1 database.port="$port" database.user=postgres database.password=postgres \
    database.dbname="$database" topic.prefix="$prefix" slot.name="${name//-/_}_slot" publication.name="${name//-/_}_publication" \
    publication.autocreate.mode=filtered schema.include.list=public snapshot.mode=initial heartbeat.interval.ms=0 \
    poll.interval.ms=50 "$@"
}

url() { echo "http://127.0.0.1:$(cat "$1/connect.port")"; }

case "${1:-}" in
  fetch) fetch_jars kafka; fetch_jars debezium ;;
  start) [ $# -ge 3 ] || die "which folder, which brokers?"; shift; start "$@" ;;
  add) [ $# -ge 4 ] || die "which folder, name and settings?"; shift; add "$@" ;;
  add-postgres) [ $# -ge 6 ] || die "which folder, name, port, database and topic prefix?"; shift; add_postgres "$@" ;;
  status) curl -fsS "$(url "$2")/connectors/$3/status"; echo ;;
  remove) curl -fsS -X DELETE "$(url "$2")/connectors/$3" ;;
  stop) stop_pid "$2/connect.pid" 30 ;;
  kill9) kill_pid "$2/connect.pid" ;;
  clean) kill_pid "$2/connect.pid"; rm -rf "$2"/connect* ;;
  *) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
