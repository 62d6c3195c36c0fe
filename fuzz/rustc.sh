#!/usr/bin/env bash
# A RUSTC_WRAPPER that lets the fuzzer see into our own crates, and leaves all others as they are.
set -euo pipefail
for ((at = 1; at < $#; at++)); do
  next=$((at + 1))
  [ "${!at}" = --crate-name ] || continue
  case ${!next} in
    decoders | dashboard_api | ingest | model)
      exec "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
        -Cllvm-args=-sanitizer-coverage-trace-compares
      ;;
  esac
done
exec "$@"
