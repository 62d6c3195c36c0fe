#!/usr/bin/env bash
# Fuzzes the decoders that face the network, one after the other: fuzz.sh [SECONDS [TARGET…]], 60 seconds each and all
# targets by default.
#
# It needs no nightly Rust: libFuzzer comes with the crate libfuzzer-sys, and only our own crates are built for it. The
# first build takes as long as that of the product. Inputs that were found are kept in fuzz/corpus, and those that break
# something in fuzz/artifacts; to run one again: FUZZ_INPUT=FILE fuzz.sh 0 TARGET.
set -euo pipefail
cd "$(dirname "$0")/../.."
. deploy/dev/lib.sh

seconds=${1:-60}
[ $# -lt 2 ] || targets=("${@:2}")
[ -n "${targets:-}" ] || mapfile -t targets < <(ls fuzz/seeds)

# The versions of the product, as far as it has them.
[ -f fuzz/Cargo.lock ] || cp Cargo.lock fuzz/Cargo.lock
export CARGO_TARGET_DIR=${FUZZ_TARGET_DIR:-$PWD/fuzz/target} RUSTC_WRAPPER=$PWD/fuzz/rustc.sh CARGO_INCREMENTAL=0
cargo build --quiet --manifest-path fuzz/Cargo.toml

for target in "${targets[@]}"; do
  [ -d "fuzz/seeds/$target" ] || die "no target $target; there are $(ls -C fuzz/seeds)"
  mkdir -p "fuzz/corpus/$target" "fuzz/artifacts/$target"
  inputs=("fuzz/corpus/$target" "fuzz/seeds/$target" "-max_total_time=$seconds")
  [ -z "${FUZZ_INPUT:-}" ] || inputs=("$FUZZ_INPUT")
  echo "=== $target"
  ANDON_FUZZ=$target "$CARGO_TARGET_DIR/debug/decoders" "${inputs[@]}" -max_len=4096 -timeout=20 -rss_limit_mb=4096 \
    -artifact_prefix="fuzz/artifacts/$target/" -print_final_stats=1 2>&1 \
    | grep -E --line-buffered 'DONE|panicked|ERROR|SUMMARY|stat::|assertion|artifacts/|Executed'
done
