#!/usr/bin/env bash
# Checks that the sample settings name every setting with its default, with built services:
#   deploy/check.sh target/release
# and, where Docker Compose is installed, that docker-compose.yml is valid.
set -euo pipefail
binaries=$(cd "${1:-target/release}" && pwd)
cd "$(dirname "$0")"

# Every setting as `key = value  # origin`; the empty environment keeps others' settings out.
settings() { env --ignore-environment --chdir=/ "$@" --print-config; }
failed=0
for service in datahub twin; do
  sample=$PWD/config/$service.toml
  defaults=$(settings "$binaries/$service")
  sampled=$(settings "$binaries/$service" --config "$sample")
  if ! difference=$(diff <(sed 's/  # .*//' <<<"$defaults") <(sed 's/  # .*//' <<<"$sampled")); then
    printf '%s: not the default (<) but (>):\n%s\n' "deploy/config/$service.toml" "$difference" >&2
    failed=1
  fi
  # A setting without a default stands in the sample as a comment.
  if missing=$(grep -v -e '  # TOML file' -e ' = null  # default' <<<"$sampled"); then
    printf '%s lacks:\n%s\n' "deploy/config/$service.toml" "$missing" >&2
    failed=1
  fi
done
if docker compose version >/dev/null 2>&1; then
  docker compose --file ../docker-compose.yml config --quiet || failed=1
fi
exit $failed
