#!/usr/bin/env bash
# Measures everything in release builds, in one run. `scripts/bench.sh peers` sets the filters beside other crates'.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "${1:-}" = peers ]; then
  export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target/peers}"
  exec cargo run --release --locked --quiet --manifest-path benches/peers/Cargo.toml
fi
cargo build --release --workspace --bins
cargo build --release -p rovi-estimation --example ukf_speed
target/release/bench "$@"
