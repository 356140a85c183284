#!/usr/bin/env bash
# The estimators give the same bits whatever processor they are built for.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
for cpu in x86-64 "${1:-x86-64-v3}"; do
  RUSTFLAGS="-C target-cpu=$cpu" CARGO_TARGET_DIR="$target/bits-$cpu" \
    cargo build --quiet --release -p rovi-estimation --example long_run
  "$target/bits-$cpu/release/examples/long_run" 200000 >"$target/bits-$cpu/beliefs.json"
done
cmp "$target/bits-x86-64/beliefs.json" "$target/bits-${1:-x86-64-v3}/beliefs.json"
echo "the same bits for x86-64 and ${1:-x86-64-v3}"
