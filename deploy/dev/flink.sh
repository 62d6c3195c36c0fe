#!/usr/bin/env bash
# A real Apache Flink on loopback: job manager, one task manager and SQL gateway, for comparisons with Andon.
#
#   flink.sh fetch                           gets Flink from PyPI and its Kafka connector from Maven Central into the cache
#   flink.sh start DIR [KEY=VALUE…]          starts a cluster that lives in DIR; KEY=VALUE are Flink settings
#   flink.sh run DIR FILE.sql                runs a script through the SQL gateway and prints the job id of each INSERT
#   flink.sh wait DIR JOB                    waits until a job has finished; for scripts with bounded sources
#   flink.sh jobs DIR                        the jobs and their states
#   flink.sh cancel DIR JOB                  cancels a job
#   flink.sh stop DIR | kill9 DIR | clean DIR   ends the cluster; clean also removes its files
#
# start prints FLINK_REST=http://HOST:PORT, FLINK_GATEWAY=http://HOST:PORT and FLINK_PIDS="job manager, task manager,
# gateway". FLINK_HEAP (default 1024m) is the heap of the task manager, FLINK_MANAGED (default 512m) what RocksDB and
# sorts may take beside it, FLINK_SLOTS (default: the number of cores) how many tasks run side by side.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

FLINK_VERSION=2.2.1
# What Flink's own start scripts pass on Java 17.
JAVA_OPENS=(
  --add-exports=java.rmi/sun.rmi.registry=ALL-UNNAMED --add-exports=java.security.jgss/sun.security.krb5=ALL-UNNAMED
  --add-opens=java.base/java.lang=ALL-UNNAMED --add-opens=java.base/java.net=ALL-UNNAMED
  --add-opens=java.base/java.io=ALL-UNNAMED --add-opens=java.base/java.nio=ALL-UNNAMED
  --add-opens=java.base/sun.nio.ch=ALL-UNNAMED --add-opens=java.base/java.lang.reflect=ALL-UNNAMED
  --add-opens=java.base/java.text=ALL-UNNAMED --add-opens=java.base/java.time=ALL-UNNAMED
  --add-opens=java.base/java.util=ALL-UNNAMED --add-opens=java.base/java.util.concurrent=ALL-UNNAMED
  --add-opens=java.base/java.util.concurrent.atomic=ALL-UNNAMED
  --add-opens=java.base/java.util.concurrent.locks=ALL-UNNAMED
)

# The wheel holds the whole Java distribution; pip only downloads it, nothing of Python is installed.
fetch() {
  fetch_jars flink
  [ -s "$FLINK_HOME/.complete" ] && return 0
  need python3 python3
  python3 -m pip --version > /dev/null 2>&1 || die "pip is missing; on Debian: apt-get install python3-pip"
  (
    flock 9
    [ -s "$FLINK_HOME/.complete" ] && exit 0
    local part=$FLINK_HOME.part
    rm -rf "$FLINK_HOME" "$part"
    mkdir -p "$part"
    echo "fetching Flink $FLINK_VERSION from PyPI (313 MB)" >&2
    python3 -m pip download -q --no-deps --only-binary=:all: -d "$part" "apache-flink-libraries==$FLINK_VERSION" >&2 \
      || die "pip could not fetch apache-flink-libraries $FLINK_VERSION"
    python3 -m zipfile -e "$part"/*.whl "$part"
    rm -f "$part"/*.whl
    mv "$part"/pyflink/opt/flink-sql-client-*.jar "$part/pyflink/lib/"
    mv "$part/pyflink/lib" "$part/lib"
    rm -rf "$part/pyflink" "$part"/*.dist-info
    echo "$FLINK_VERSION" > "$part/.complete"
    mv "$part" "$FLINK_HOME"
  ) 9> "$CACHE/jars/flink-home.lock"
}

classpath() { echo "$FLINK_HOME/lib/*:$FLINK_CONNECTOR_LIBS/*"; }

# write_config DIR REST RPC GATEWAY KEY=VALUE…: later settings win.
write_config() {
  local dir=$1 rest=$2 rpc=$3 gateway=$4 setting
  shift 4
  mkdir -p "$dir/flink-conf" "$dir/flink-data"
  declare -A settings=(
    [jobmanager.rpc.address]=127.0.0.1 [jobmanager.bind-host]=127.0.0.1 [jobmanager.rpc.port]=$rpc
    [rest.address]=127.0.0.1 [rest.bind-address]=127.0.0.1 [rest.port]=$rest [rest.bind-port]=$rest
    [taskmanager.host]=127.0.0.1 [taskmanager.bind-host]=127.0.0.1
    [taskmanager.numberOfTaskSlots]=${FLINK_SLOTS:-$(nproc)} [taskmanager.cpu.cores]=$(nproc)
    [taskmanager.memory.framework.heap.size]=128m [taskmanager.memory.task.heap.size]=${FLINK_HEAP:-1024m}
    [taskmanager.memory.framework.off-heap.size]=128m [taskmanager.memory.task.off-heap.size]=64m
    [taskmanager.memory.managed.size]=${FLINK_MANAGED:-512m}
    [taskmanager.memory.network.min]=128m [taskmanager.memory.network.max]=128m
    [taskmanager.memory.jvm-metaspace.size]=256m
    [taskmanager.memory.jvm-overhead.min]=192m [taskmanager.memory.jvm-overhead.max]=192m
    [jobmanager.memory.heap.size]=512m
    [sql-gateway.endpoint.rest.address]=127.0.0.1 [sql-gateway.endpoint.rest.bind-address]=127.0.0.1
    [sql-gateway.endpoint.rest.port]=$gateway [sql-gateway.endpoint.rest.bind-port]=$gateway
    [io.tmp.dirs]=$dir/flink-data/tmp [execution.checkpointing.dir]=file://$dir/flink-data/checkpoints
    [execution.checkpointing.interval]=10s [execution.target]=remote [parallelism.default]=1
    [restart-strategy.type]=none [table.local-time-zone]=UTC
  )
  for setting in "$@"; do settings[${setting%%=*}]=${setting#*=}; done
  for setting in "${!settings[@]}"; do echo "$setting: ${settings[$setting]}"; done | sort > "$dir/flink-conf/config.yaml"
}

# run_flink NAME DIR HEAP CLASS ARGS…
run_flink() {
  local name=$1 dir=$2 heap=$3
  shift 3
  FLINK_CONF_DIR=$dir/flink-conf run_java "$name" "$dir" "-Xmx$heap" "-Xms$heap" "${JAVA_OPENS[@]}" \
    -cp "$(classpath)" "$@"
}

megabytes() { echo "${1%m}"; }

start() {
  local dir=$1 rest rpc gateway heap
  shift
  need java openjdk-17-jre-headless
  need curl curl
  need jq jq
  fetch
  mkdir -p "$dir"
  dir=$(cd "$dir" && pwd)
  if ! alive "$dir/flink-taskmanager.pid"; then
    rest=$(kept_port "$dir/flink-rest.port")
    rpc=$(kept_port "$dir/flink-rpc.port")
    gateway=$(kept_port "$dir/flink-gateway.port")
    write_config "$dir" "$rest" "$rpc" "$gateway" "$@"
    heap=$(($(megabytes "${FLINK_HEAP:-1024m}") + 128))m
    run_flink flink-jobmanager "$dir" 512m \
      org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint --configDir "$dir/flink-conf"
    run_flink flink-taskmanager "$dir" "$heap" -XX:MaxMetaspaceSize=256m -XX:MaxDirectMemorySize=320m \
      org.apache.flink.runtime.taskexecutor.TaskManagerRunner --configDir "$dir/flink-conf"
    run_flink flink-gateway "$dir" 384m org.apache.flink.table.gateway.SqlGateway
    wait_up "$dir"
  fi
  echo "FLINK_REST=http://127.0.0.1:$(cat "$dir/flink-rest.port")"
  echo "FLINK_GATEWAY=http://127.0.0.1:$(cat "$dir/flink-gateway.port")"
  echo "FLINK_PIDS=\"$(cat "$dir/flink-jobmanager.pid") $(cat "$dir/flink-taskmanager.pid") $(cat "$dir/flink-gateway.pid")\""
}

wait_up() {
  local dir=$1 name rest gateway slots
  rest=$(rest "$dir")
  gateway=$(gateway "$dir")
  for _ in $(seq 1200); do
    slots=$(curl -fs "$rest/overview" 2> /dev/null | jq -r '."slots-total"' || true)
    [ "${slots:-0}" != 0 ] && curl -fs "$gateway/info" > /dev/null 2>&1 && return 0
    for name in jobmanager taskmanager gateway; do
      alive "$dir/flink-$name.pid" || { tail -n 20 "$dir/flink-$name.log" >&2; die "the $name ended while it started"; }
    done
    sleep 0.1
  done
  die "Flink did not start within 120 s; its logs are $dir/flink-*.log"
}

rest() { echo "http://127.0.0.1:$(cat "$1/flink-rest.port")"; }
gateway() { echo "http://127.0.0.1:$(cat "$1/flink-gateway.port")/v1"; }

# call METHOD URL [JSON]: the answer, or its error message and failure.
call() {
  local answer status
  answer=$(curl -sS -X "$1" -H 'Content-Type: application/json' ${3:+--data-binary "$3"} -w '\n%{http_code}' "$2")
  status=${answer##*$'\n'}
  answer=${answer%$'\n'*}
  [ "${status:0:1}" = 2 ] && { echo "$answer"; return 0; }
  jq -r '.errors[]?' <<< "$answer" 2> /dev/null | grep -v '^\s*at ' | grep -v '^\s*\.\.\.' | head -n 12 >&2
  return 1
}

# Statements end at a semicolon at the end of a line, outside of a statement set: what `andon flink` writes.
run() {
  local dir=$1 file=$2 url session statement operation status job
  url=$(gateway "$dir")
  session=$(call POST "$url/sessions" '{}' | jq -r .sessionHandle) || die "the gateway opens no session"
  while IFS= read -r -d $'\x01' statement; do
    [ -n "${statement//[[:space:]]/}" ] || continue
    operation=$(call POST "$url/sessions/$session/statements" "$(jq -n --arg s "$statement" '{statement: $s}')" \
      | jq -r .operationHandle) || die "refused: ${statement:0:200}"
    for _ in $(seq 1200); do
      status=$(call GET "$url/sessions/$session/operations/$operation/status" | jq -r .status)
      case $status in FINISHED | ERROR) break ;; esac
      sleep 0.05
    done
    status=$(call GET "$url/sessions/$session/operations/$operation/result/0") || die "failed: $statement"
    jq -r 'if .jobID then .jobID else empty end' <<< "$status"
  done < <(statements < "$file")
  call DELETE "$url/sessions/$session" > /dev/null
}

# statements: splits a script, statement sets kept whole, with \x01 after each; comment lines go.
statements() {
  awk '
    /^[[:space:]]*--/ { next }
    { text = text $0 "\n" }
    /^[[:space:]]*EXECUTE STATEMENT SET/ { set = 1 }
    /;[[:space:]]*$/ && (!set || /^[[:space:]]*END;/) { sub(/;[[:space:]]*$/, "", text); printf "%s\001", text; text = ""; set = 0 }
    END { printf "%s\001", text }'
}

await() {
  local url state
  url=$(rest "$1")/jobs/$2
  while :; do
    state=$(curl -fs "$url" | jq -r .state)
    case $state in
      FINISHED) return 0 ;;
      FAILED | CANCELED | SUSPENDED)
        curl -fs "$url/exceptions" | jq -r '.exceptionHistory.entries[0].stacktrace // empty' | head -n 20 >&2
        die "job $2 is $state" ;;
    esac
    sleep 0.05
  done
}

each() {
  local name
  for name in gateway taskmanager jobmanager; do "$1" "$2/flink-$name.pid" ${3:-}; done
}

case "${1:-}" in
  fetch) fetch ;;
  start) [ $# -ge 2 ] || die "which folder?"; shift; start "$@" ;;
  run) [ $# -eq 3 ] || die "which folder, which script?"; run "$2" "$3" ;;
  wait) [ $# -eq 3 ] || die "which folder, which job?"; await "$2" "$3" ;;
  jobs) curl -fsS "$(rest "$2")/jobs/overview" | jq -r '.jobs[] | "\(.jid) \(.state) \(.name)"' ;;
  cancel) curl -fsS -X PATCH "$(rest "$2")/jobs/$3?mode=cancel" > /dev/null ;;
  stop) each stop_pid "$2" 30 ;;
  kill9) each kill_pid "$2" ;;
  clean) each kill_pid "$2"; rm -rf "$2"/flink* ;;
  *) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
