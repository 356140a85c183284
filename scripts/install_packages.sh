#!/usr/bin/env bash
# Installs the system packages that building, testing and running need, where one is missing.
set -euo pipefail

missing=()
need() { # package, test command ...
  local package=$1
  shift
  "$@" >/dev/null 2>&1 || missing+=("$package")
}
library() { pkg-config --exists "$1" || ls /usr/lib/*/pkgconfig/"$1".pc; }
postgres() { ls /usr/lib/postgresql/*/bin/initdb || command -v initdb; }

need build-essential cc --version
need pkg-config pkg-config --version
need libpq-dev library libpq
need libhdf5-dev library hdf5
need postgresql postgres
need python3 python3 --version
need nodejs node --version
need npm npm --version
need chromium chromium --version
need chromium-driver chromedriver --version
need python3-pip python3 -m pip --version
[ ${#missing[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null; then
  echo "please install: ${missing[*]} (the names are Debian's)" >&2
  exit 1
fi
echo "installing ${missing[*]}"
as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo)
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
