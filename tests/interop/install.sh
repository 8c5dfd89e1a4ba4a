#!/bin/sh
# Installs the programs of other makes that tests/interop talks to, where they are missing (Debian and its kin).
set -eu

missing=""
need() { # command, Debian package
    command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
need node nodejs
need npm npm
need curl curl
need redis-server redis-server
need redis-cli redis-tools

packages() { # those of package.json
    cd "$(dirname "$0")"
    [ node_modules/.package-lock.json -nt package.json ] && return
    npm install --no-package-lock --no-audit --no-fund --ignore-scripts --loglevel=error >/dev/null
    touch node_modules/.package-lock.json
}

[ -z "$missing" ] && { packages; exit 0; }
if ! command -v apt-get >/dev/null 2>&1; then
    echo "tests/interop needs$missing, and there is no apt-get here: install them and try again" >&2
    exit 1
fi
root=""
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null 2>&1 || { echo "tests/interop needs$missing: run as root: apt-get install$missing" >&2; exit 1; }
    root="sudo"
fi
echo "installing$missing"
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086
$root apt-get install -y --no-install-recommends $missing >/dev/null 2>&1 || {
    $root apt-get update >/dev/null
    $root apt-get install -y --no-install-recommends $missing >/dev/null
}
for command in node npm curl redis-server redis-cli; do
    command -v "$command" >/dev/null 2>&1 || { echo "tests/interop: $command is still missing" >&2; exit 1; }
done
packages
