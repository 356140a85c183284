#!/usr/bin/env bash
# Checks that the sample settings name every setting with its default, with built services:
#   deploy/check.sh target/release
# that Grafana's dashboards are JSON with data sources that are provisioned (tests/system/grafana.rs
# asks their questions), and, where Docker Compose is installed, that docker-compose.yml is valid.
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
for dashboard in grafana/dashboards/*.json; do
  python3 -m json.tool "$dashboard" /dev/null || { echo "deploy/$dashboard is no JSON" >&2; failed=1; }
  sources=$(grep -A1 -E '"type": "(postgres|prometheus)"' "$dashboard" | sed -nE 's/.*"uid": "(.*)".*/\1/p' | sort -u)
  for source in $sources; do
    grep -qE "^ +uid: $source$" grafana/provisioning/datasources/*.yaml ||
      { echo "deploy/$dashboard: the data source $source is not provisioned" >&2; failed=1; }
  done
done
for file in prometheus.yml postgres/roles.sql grafana/reader.sql grafana/provisioning grafana/dashboards; do
  grep -q "\./deploy/$file:" ../docker-compose.yml ||
    { echo "docker-compose.yml does not mount deploy/$file" >&2; failed=1; }
done
if docker compose version >/dev/null 2>&1; then
  docker compose --file ../docker-compose.yml --profile grafana config --quiet || failed=1
fi
exit $failed
