#!/usr/bin/env bash
# Requests made up from both OpenAPI documents, with and without credentials: nothing may end in a 500, and
# nobody without a credential gets data. `scripts/schemathesis.sh --max-examples 200` looks further; PROFILE=debug
# takes the binaries of target/debug.
set -euo pipefail
cd "$(dirname "$0")/.."
here=$PWD
export PATH="$here/target/${PROFILE:-release}:$PATH"
examples=("${@:---max-examples=20}")

venv=${SCHEMATHESIS_VENV:-$here/target/schemathesis}
if [ ! -x "$venv/bin/schemathesis" ]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet 'schemathesis==4.*'
fi

data=$(mktemp -d "${TMPDIR:-/tmp}/rovi-schemathesis.XXXXXX")
chmod 755 "$data"
hub=http://127.0.0.1:${PORT:-8000}
twin=http://127.0.0.1:${TWIN_PORT:-8001}
unset DATABASE_URL NATS_URL
export HOME=$data XDG_CONFIG_HOME=$data
rovicli up --auth --data "$data/stack" --port "${PORT:-8000}" --twin-port "${TWIN_PORT:-8001}" >"$data/up.log" 2>&1 &
stack=$!
stop() {
  kill -TERM "$stack" 2>/dev/null || true
  wait "$stack" 2>/dev/null || true
  [ -n "${KEEP:-}" ] || rm -rf "$data"
}
trap stop EXIT
until grep -q '^The stack is up' "$data/up.log"; do
  kill -0 "$stack" 2>/dev/null || { cat "$data/up.log" >&2; exit 1; }
  sleep 0.1
done
token=$(cat "$data/stack/admin.token")

# Something to be found.
curl --silent --show-error --fail --output /dev/null --header "Authorization: Bearer $token" \
  --json '[{"test_time": 0, "current": 1, "voltage": 3.5}, {"test_time": 1, "current": 1, "voltage": 3.4}]' \
  "$hub/db/upload/b7"

failed=0
look() { # look NAME URL [HEADER]
  printf '\n== %s\n' "$1"
  local header=()
  [ -z "${3:-}" ] || header=(--header "$3")
  # It leaves what it found where it runs.
  (cd "$data" && SCHEMATHESIS_HOOKS=$here/scripts/schemathesis_checks.py ROVI_KNOWN="${3:+yes}" \
    "$venv/bin/schemathesis" --config-file "$here/scripts/schemathesis.toml" run "$2/openapi.json" \
    --checks not_a_server_error,data_only_for_who_is_known --phases examples,coverage,fuzzing \
    --no-color --warnings off --request-timeout 30 --exclude-path-regex '^/(ws|events)$' \
    "${examples[@]}" "${header[@]}") || failed=1
}
look "the hub, nobody" "$hub"
look "the twin, nobody" "$twin"
look "the hub, an admin" "$hub" "Authorization: Bearer $token"
look "the twin, an admin" "$twin" "Authorization: Bearer $token"
exit $failed
