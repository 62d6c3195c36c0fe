#!/usr/bin/env bash
# Runs every test of every runner, goes on after a failure, and ends with one line of counts.
set -uo pipefail
cd "$(dirname "$0")/../.."

target=${TARGET:-target}
logs=$(mktemp -d "${TMPDIR:-/tmp}/andon-test.XXXXXX")
trap 'rm -rf "$logs"' EXIT
export CARGO_TERM_COLOR=never NO_COLOR=1 CI=1
passed=0 failed=0 skipped=0
details=()
failures=()

# sum FILE REGEX: the sum of the first group of every match.
sum() {
    sed -r 's/\x1b\[[0-9;]*m//g' "$1" | sed -nr "s/$2/\1/p" | awk '{n += $1} END {print n + 0}'
}

# step NAME COMMAND…: something that must work but holds no tests of its own.
step() {
    local name=$1
    shift
    echo "=== $name"
    if "$@"; then return 0; fi
    echo "=== $name FAILED"
    failed=$((failed + 1))
    failures+=("$name")
    return 1
}

# tests NAME STYLE COMMAND…: runs it, shows its output, and adds its counts.
tests() {
    local name=$1 style=$2 log="$logs/$1" p f s status
    shift 2
    echo "=== $name"
    "$@" 2>&1 | tee "$log"
    status=${PIPESTATUS[0]}
    case $style in
    cargo)
        p=$(sum "$log" '^test result: .* ([0-9]+) passed;.*')
        f=$(sum "$log" '^test result: .* ([0-9]+) failed;.*')
        s=$(sum "$log" '^test result: .* ([0-9]+) ignored;.*')
        ;;
    vitest)
        p=$(sum "$log" '^ *Tests .*[^0-9]([0-9]+) passed.*')
        f=$(sum "$log" '^ *Tests .*[^0-9]([0-9]+) failed.*')
        s=$(sum "$log" '^ *Tests .*[^0-9]([0-9]+) skipped.*')
        ;;
    playwright)
        p=$(sum "$log" '^ *([0-9]+) passed.*')
        f=$(sum "$log" '^ *([0-9]+) failed.*')
        s=$(sum "$log" '^ *([0-9]+) (skipped|did not run).*')
        ;;
    esac
    # A runner that failed without naming a test (it did not compile, it crashed) is a failure too, and so is one
    # that found no test at all.
    if [ "$f" = 0 ] && { [ "$status" != 0 ] || [ "$p" = 0 ]; }; then f=1; fi
    [ "$f" = 0 ] || failures+=("$name")
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    details+=("$name $p")
}

# clean_install FOLDER: exactly what the lock file says.
clean_install() { npm --prefix "$1" ci --no-progress; }

step "page" make --no-print-directory web
for folder in dashboard-api/tests/client tests/browser; do
    [ ! -f "$folder/package-lock.json" ] || step "packages of $folder" clean_install "$folder"
done
if step "build" cargo build --locked --workspace --all-targets; then
    tests rust cargo cargo test --locked --workspace --no-fail-fast
    tests browser playwright tests/browser/run.sh "$target/debug/andon"
fi
tests page vitest npm --prefix dashboard-api/web test

[ ${#failures[@]} = 0 ] || echo "failed: ${failures[*]}"
breakdown=$(printf ', %s' "${details[@]}")
echo "tests: $passed passed, $failed failed, $skipped skipped (${breakdown:2})"
[ "$failed" = 0 ]
