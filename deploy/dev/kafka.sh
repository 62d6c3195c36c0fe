#!/usr/bin/env bash
# A real Apache Kafka: one KRaft node on loopback, for development and tests.
#
#   kafka.sh fetch                      gets the jars into the cache, nothing else
#   kafka.sh start DIR [KEY=VALUE…]     starts a node that lives in DIR; KEY=VALUE are broker settings of the first start
#   kafka.sh stop DIR | kill9 DIR       ends it; the next start in DIR goes on with the same address and data
#   kafka.sh clean DIR                  ends it and removes its files
#   kafka.sh tool CLASS ARGS…           runs one of Kafka's own tools
#
# start prints KAFKA_BROKERS=HOST:PORT and KAFKA_PID=N. KAFKA_HEAP (default 384m) is its heap.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

write_config() {
  local dir=$1 broker=$2 controller=$3
  shift 3
  cat > "$dir/kafka.properties" <<P
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
listeners=PLAINTEXT://127.0.0.1:$broker,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$broker
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$dir/kafka-data
num.partitions=1
num.network.threads=2
num.io.threads=4
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
log.retention.ms=-1
log.segment.bytes=268435456
log.cleaner.dedupe.buffer.size=8388608
auto.create.topics.enable=true
P
  [ $# -eq 0 ] || printf '%s\n' "$@" >> "$dir/kafka.properties"
}

# wait_up DIR: 0 when it serves, 1 when it ended because a port was taken meanwhile.
wait_up() {
  local dir=$1
  for _ in $(seq 1200); do
    grep -q 'Kafka Server started' "$dir/kafka.log" && return 0
    if ! alive "$dir/kafka.pid"; then
      grep -qi 'address already in use\|Socket server failed to bind' "$dir/kafka.log" && return 1
      tail -n 20 "$dir/kafka.log" >&2
      die "the broker ended while it started; its log is $dir/kafka.log"
    fi
    sleep 0.05
  done
  die "the broker did not start within 60 s; its log is $dir/kafka.log"
}

start() {
  local dir=$1 broker controller fresh=1
  shift
  need java openjdk-17-jre-headless
  fetch_jars kafka
  mkdir -p "$dir"
  dir=$(cd "$dir" && pwd)
  if ! alive "$dir/kafka.pid"; then
    [ -d "$dir/kafka-data" ] && fresh=0
    for attempt in 1 2 3 4 5; do
      broker=$(kept_port "$dir/kafka.port")
      controller=$(kept_port "$dir/kafka-controller.port")
      if [ $fresh = 1 ]; then
        write_config "$dir" "$broker" "$controller" "$@"
        java -Xmx128m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dlog4j2.configurationFile="$DEV/jars/log4j2.yaml" \
          -cp "$KAFKA_LIBS/*" kafka.tools.StorageTool format --ignore-formatted -t "$(cluster_id)" -c "$dir/kafka.properties" \
          > "$dir/kafka-format.log" 2>&1 || { tail -n 20 "$dir/kafka-format.log" >&2; die "could not format $dir/kafka-data"; }
      fi
      run_java kafka "$dir" -Xmx"${KAFKA_HEAP:-384m}" -Xms128m -cp "$KAFKA_LIBS/*" kafka.Kafka "$dir/kafka.properties"
      wait_up "$dir" && break
      [ $fresh = 1 ] && [ $attempt -lt 5 ] || die "port $broker or $controller is taken by another program"
      rm -rf "$dir/kafka.port" "$dir/kafka-controller.port" "$dir/kafka-data"
    done
  fi
  echo "KAFKA_BROKERS=127.0.0.1:$(cat "$dir/kafka.port")"
  echo "KAFKA_PID=$(cat "$dir/kafka.pid")"
}

# A cluster id is 16 random bytes in URL-safe base64; the tool refuses one that starts with a dash.
cluster_id() { echo "A$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | cut -c1-20)Q"; }

case "${1:-}" in
  fetch) fetch_jars kafka ;;
  start) [ $# -ge 2 ] || die "which folder?"; shift; start "$@" ;;
  stop) stop_pid "$2/kafka.pid" 30 ;;
  kill9) kill_pid "$2/kafka.pid" ;;
  clean) kill_pid "$2/kafka.pid"; rm -rf "$2"/kafka* ;;
  tool) shift; need java openjdk-17-jre-headless; fetch_jars kafka; exec java -Xmx256m -cp "$KAFKA_LIBS/*" "$@" ;;
  *) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
