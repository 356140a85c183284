#!/usr/bin/env bash
# Runs the commands that README.md shows under "Work with it" as they stand there: the first block
# in one terminal, the second in another. Only the data folder is a temporary one.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release --bins

block() { # number of the block
  awk -v want="$1" '/^## Work with it/ {on=1} /^## Run it/ {on=0}
    on && /^```sh/ {n++; show=(n == want); next} /^```/ {show=0} show {print}' README.md
}
first=$(block 1)
second=$(block 2)
[ -n "$first" ] && [ -n "$second" ] || { echo "README.md has no commands to check" >&2; exit 1; }

folder=$(mktemp -d)
chmod 755 "$folder"
export ROVI_DATA=$folder/data
unset DATABASE_URL NATS_URL
# The last command of the first block stays in the foreground of its terminal.
(eval "$first") >"$folder/up.log" 2>&1 &
terminal=$!
stop() {
  pkill -TERM -P "$terminal" 2>/dev/null || kill -TERM "$terminal" 2>/dev/null || true
  wait "$terminal" 2>/dev/null || true
  rm -rf "$folder"
}
trap stop EXIT
until grep -q '^The stack is up' "$folder/up.log"; do
  kill -0 "$terminal" 2>/dev/null || { cat "$folder/up.log" >&2; exit 1; }
  sleep 0.1
done

export PATH="$PWD/target/release:$PATH"
cd "$folder"
set -x
eval "$second"
