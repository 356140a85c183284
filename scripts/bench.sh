#!/usr/bin/env bash
# Measures everything in release builds, in one run.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release --workspace --bins
cargo build --release -p rovi-estimation --example ukf_speed
target/release/bench "$@"
