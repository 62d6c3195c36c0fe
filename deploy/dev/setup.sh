#!/usr/bin/env bash
# Installs what building (`setup.sh build`), testing (`setup.sh test`) or the comparison with Flink (`setup.sh flink`)
# needs and this machine lacks, or says plainly what is missing and how to get it. Does nothing, and asks for no rights, when everything is there.
set -euo pipefail
cd "$(dirname "$0")/../.."

what=${1:-build}
node_major_min=20
missing=()
packages=()

# need COMMAND PACKAGE: the command is on the PATH, or the Debian package brings it.
need() { command -v "$1" >/dev/null 2>&1 || packages+=("$2"); }

# need_file PATTERN PACKAGE: some file matches the pattern, or the Debian package brings it.
need_file() { compgen -G "$1" >/dev/null || packages+=("$2"); }

need clang clang
need ld.lld lld
need cmake cmake
need make make
need pkg-config pkg-config
need_file "/usr/include/openssl/ssl.h" libssl-dev
need_file "/usr/include/*/curl/curl.h" libcurl4-openssl-dev
need_file "/usr/include/zlib.h" zlib1g-dev
if [ "$what" = test ]; then
    need chromium chromium
    need_file "/usr/lib/postgresql/*/bin/postgres" postgresql-15
    need redis-server redis-server
    need redis-cli redis-tools
    need go golang-go
fi
if [ "$what" != build ]; then
    need java default-jre-headless
    need mvn maven
    need curl curl
    need jq jq
fi
if [ "$what" != build ]; then
    need python3 python3
    python3 -m pip --version >/dev/null 2>&1 || packages+=(python3-pip)
fi

if [ ${#packages[@]} -gt 0 ]; then
    as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo --non-interactive)
    echo "installing Debian packages: ${packages[*]}" >&2
    install=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends)
    if ! command -v apt-get >/dev/null; then
        missing+=("apt-get is not here; install by hand what brings: ${packages[*]}")
    elif ! { "${as_root[@]}" apt-get update -qq && "${install[@]}" "${packages[@]}"; } >&2; then
        missing+=("these Debian packages could not be installed: ${packages[*]} (try: apt-get install ${packages[*]})")
    fi
fi

command -v cargo >/dev/null 2>&1 || missing+=("cargo: install Rust through rustup; rust-toolchain.toml names the version")
if ! command -v node >/dev/null 2>&1 || ! command -v npm >/dev/null 2>&1; then
    missing+=("node and npm, version $node_major_min or newer")
elif [ "$(node --print 'process.versions.node.split(".")[0]')" -lt "$node_major_min" ]; then
    missing+=("node $node_major_min or newer; this is $(node --version)")
fi

if [ ${#missing[@]} -gt 0 ]; then
    printf 'missing: %s\n' "${missing[@]}" >&2
    exit 1
fi
