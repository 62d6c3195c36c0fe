#!/usr/bin/env bash
# Runs the benchmarks one after the other on the local log and on a real Kafka broker, and bench-live.sh. Arguments go to
# the whole-system one: records=N seconds=N. BENCH_PROFILE=dev measures without an optimised build.
set -euo pipefail
cd "$(dirname "$0")/../.."

profile=${BENCH_PROFILE:-release}
echo "machine: $(nproc) cores, $(awk -F ': ' '/model name/ {print $2; exit}' /proc/cpuinfo), $(awk '/MemTotal/ {printf "%.0f GB", $2 / 1e6}' /proc/meminfo); profile $profile"
cargo bench --locked --profile "$profile" -p ingest --bench decode
cargo bench --locked --profile "$profile" -p ingest --bench log -- kafka
cargo bench --locked --profile "$profile" -p andon --bench whole -- kafka "$@"
cargo bench --locked --profile "$profile" -p andon --bench growth
PROFILE=$profile deploy/dev/bench-live.sh
