#!/usr/bin/env bash
# The main job on a simulated cell whose truth is known. KEEP=1 leaves the stack running.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/target/release:$PATH"

# PostgreSQL's own user must be able to look into the folder, which it can below /tmp.
data=${ROVI_DATA:-${TMPDIR:-/tmp}/rovi-demo-$(id -u)}
port=${PORT:-8000}
twin_port=${TWIN_PORT:-8001}
rows=${ROWS:-40000}
cell=demo-cell
export ROVI_URL=http://127.0.0.1:$port
# The demo has servers of its own, whatever else the environment names.
unset DATABASE_URL NATS_URL

say() { printf '\n== %s\n' "$*"; }
sql() {
  PGPASSWORD=$(cat "$data/postgresql/postgres.password") \
    psql --no-psqlrc --host 127.0.0.1 --port "$(cat "$data/postgresql.port")" --username rovi \
    --dbname rovi --quiet --pset footer=off "$@"
}

say "Starting the stack in $data"
# The demo begins anew, but removes only what an earlier demo made: ROVI_DATA may name real data.
if [ -n "$(ls -A "$data" 2>/dev/null)" ] && [ ! -f "$data/demo.pid" ]; then
  echo "$data holds data that no demo made; name another folder: make demo ROVI_DATA=..." >&2
  exit 1
fi
# A stack that an earlier `make demo KEEP=1` left behind is stopped first.
left=$(cat "$data/demo.pid" 2>/dev/null || true)
if [ -n "$left" ] && [ "$(cat "/proc/$left/comm" 2>/dev/null)" = rovicli ]; then
  kill -TERM "$left"
  while kill -0 "$left" 2>/dev/null; do sleep 0.1; done
fi
if [ -f "$data/lock" ] && ! flock --nonblock "$data/lock" true; then
  echo "a stack runs on $data; stop it first" >&2
  exit 1
fi
rm -rf "$data"
mkdir -p "$data"
: >"$data/up.log"
setsid rovicli up --data "$data" --port "$port" --twin-port "$twin_port" >"$data/up.log" 2>&1 &
stack=$!
echo "$stack" >"$data/demo.pid"
stop() { kill -TERM "$stack" 2>/dev/null || true; wait "$stack" 2>/dev/null || true; }
trap stop EXIT
until grep -q '^The stack is up' "$data/up.log"; do
  kill -0 "$stack" 2>/dev/null || { cat "$data/up.log" >&2; exit 1; }
  sleep 0.1
done
sed -n '/^The stack is up/,/twin log/p' "$data/up.log"

say "Simulating $rows rows of a cell that ages by 10 % in capacity and 30 % in resistance"
rovicli simulate "$data/cell.h5" --rows "$rows" --seed 1 --estimator "$data/cell.json"

say "Registering its metadata and an estimator that starts from wrong values"
rovicli metadata "$data/cell.h5" --name $cell
rovicli register $cell 0 "$data/cell.json"

say "Streaming the file"
rovicli stream "$data/cell.h5" --name $cell --speedup max

say "The estimates, in their table, beside the truth"
tables="SELECT count(*) FROM pg_tables WHERE schemaname = 'estimates' AND tablename = '$cell'"
newest="SELECT coalesce(max(seq), 0) FROM estimates.\"$cell\""
deadline=$((SECONDS + 60))
until [ "$(sql -At -c "$tables")" = 1 ] && [ "$(sql -At -c "$newest")" = "$rows" ]; do
  [ $SECONDS -lt $deadline ] || { echo "the estimates do not arrive" >&2; exit 1; }
  sleep 0.1
done
sql -c "
  SELECT seq AS row, to_char(e.test_time / 3600, '990.0') AS hour,
         to_char(e.q_t__base_values, '0.000') AS capacity_ah,
         to_char(e.q_t__base_values__std, '0.000') AS \"±\",
         to_char(r.true_capacity, '0.000') AS truth,
         to_char(1000 * e.r0__base_values, '990.0') AS r0_mohm,
         to_char(1000 * e.r0__base_values__std, '990.0') AS \"± \",
         to_char(1000 * r.true_r0, '990.0') AS \"truth \",
         to_char(e.soc, '0.000') AS soc,
         to_char(r.true_soc, '0.000') AS \"truth  \"
  FROM estimates.\"$cell\" e JOIN battery.\"$cell\" r USING (seq)
  WHERE seq = 2 OR seq % ($rows / 8) = 0 ORDER BY seq"

# The demo is only worth its name if the estimates found the truth.
missed=$(sql -At -c "
  SELECT 'capacity ' || e.q_t__base_values || ' Ah, truth ' || r.true_capacity
  FROM estimates.\"$cell\" e JOIN battery.\"$cell\" r USING (seq)
  WHERE seq = $rows AND abs(e.q_t__base_values - r.true_capacity) > 3 * e.q_t__base_values__std")
[ -z "$missed" ] || { echo "the estimate missed the truth by more than 3 sigma: $missed" >&2; exit 1; }

say "Where to look"
if [ "${KEEP:-}" = 1 ]; then
  trap - EXIT
  echo "The stack goes on; stop it by: kill $stack"
  cat <<WHERE
  $ROVI_URL                   all batteries, as a page; $ROVI_URL/dashboard/$cell this one
  $ROVI_URL/online/status     the newest estimates
  $ROVI_URL/db/stats          what is stored
  $ROVI_URL/docs              the hub's interface
  target/release/rovicli --url $ROVI_URL watch $cell
WHERE
  sed -n '/^  PostgreSQL/p' "$data/up.log"
else
  echo "\`make demo KEEP=1\` leaves the stack up: pages at $ROVI_URL, estimates at $ROVI_URL/online/status,"
  echo "tables in PostgreSQL. Data and logs of this run stay in $data; \`target/release/rovicli up --data $data\` opens them again."
fi
