# Shared by the scripts of this folder; sourced, not run.
#
# Every service lives in a folder that the caller names: settings, ports, data, log and pid file are there, so any number
# of them run side by side and nothing outside that folder is touched.

DEV=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CACHE=${ANDON_CACHE:-$HOME/.cache/andon}
KAFKA_LIBS=$CACHE/jars/kafka
DEBEZIUM_LIBS=$CACHE/jars/debezium
FLINK_HOME=$CACHE/flink-2.2.1
FLINK_CONNECTOR_LIBS=$CACHE/jars/flink

die() { echo "${0##*/}: $*" >&2; exit 1; }

# need COMMAND PACKAGE: says what to install when a command is missing.
need() { command -v "$1" > /dev/null 2>&1 || die "$1 is missing; on Debian: apt-get install $2"; }

# fetch_jars NAME: copies the class path of jars/NAME/pom.xml into the cache, once, even if several ask at the same time.
fetch_jars() {
  local pom=$DEV/jars/$1/pom.xml target=$CACHE/jars/$1 sum
  sum=$(cksum < "$pom")
  [ "$(cat "$target/.pom" 2> /dev/null)" = "$sum" ] && return 0
  need mvn maven
  need flock util-linux
  mkdir -p "$CACHE/jars"
  (
    flock 9
    [ "$(cat "$target/.pom" 2> /dev/null)" = "$sum" ] && exit 0
    rm -rf "$target" "$target.part"
    echo "fetching the jars of $1 from Maven Central" >&2
    mvn -q -B -f "$pom" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$target.part" >&2 \
      || die "maven could not fetch the jars of $1"
    echo "$sum" > "$target.part/.pom"
    mv "$target.part" "$target"
  ) 9> "$CACHE/jars/$1.lock"
}

# free_port: a loopback port nobody listens on. Below the range from which the system takes ports of its own.
free_port() {
  local port
  for _ in $(seq 100); do
    port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
    (exec 3<> "/dev/tcp/127.0.0.1/$port") 2> /dev/null || { echo "$port"; return 0; }
  done
  die "found no free port"
}

# kept_port FILE: the port of an earlier start in this folder, so that a restarted service is found where it was.
kept_port() { [ -s "$1" ] || free_port > "$1"; cat "$1"; }

alive() { [ -s "$1" ] && kill -0 "$(cat "$1")" 2> /dev/null; }

# run_java NAME DIR ARGS…: starts java in the background, with its log in DIR/NAME.log and its pid in DIR/NAME.pid.
run_java() {
  local name=$1 dir=$2
  shift 2
  setsid java -XX:+UseSerialGC -Djava.awt.headless=true -Dlog4j2.configurationFile="$DEV/jars/log4j2.yaml" "$@" \
    > "$dir/$name.log" 2>&1 < /dev/null &
  echo $! > "$dir/$name.pid"
  stop_with_owner "$dir/$name.pid"
}

# stop_with_owner PIDFILE: if ANDON_DEV_OWNER names a process, the service ends when that process has ended, however it ended.
stop_with_owner() {
  local pid
  [ -n "${ANDON_DEV_OWNER:-}" ] || return 0
  pid=$(cat "$1")
  (
    while kill -0 "$pid" 2> /dev/null; do
      kill -0 "$ANDON_DEV_OWNER" 2> /dev/null || { kill -9 "$pid" 2> /dev/null; break; }
      sleep 1
    done
  ) > /dev/null 2>&1 < /dev/null &
}

# stop_pid PIDFILE SECONDS: asks the process to end, and ends it when it does not.
stop_pid() {
  local pid
  alive "$1" || { rm -f "$1"; return 0; }
  pid=$(cat "$1")
  kill "$pid" 2> /dev/null || true
  for _ in $(seq $(($2 * 20))); do
    kill -0 "$pid" 2> /dev/null || { rm -f "$1"; return 0; }
    sleep 0.05
  done
  kill -9 "$pid" 2> /dev/null || true
  rm -f "$1"
}

kill_pid() {
  local pid
  [ -s "$1" ] || return 0
  pid=$(cat "$1")
  kill -9 "$pid" 2> /dev/null || true
  while kill -0 "$pid" 2> /dev/null; do sleep 0.02; done
  rm -f "$1"
}
