#!/usr/bin/env bash
# Every test. cargo-nextest runs them faster; without it cargo's own runner does.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/build_pages.sh
# System tests run the binaries themselves.
cargo build --workspace --all-features --bins
if cargo nextest --version >/dev/null 2>&1; then
  cargo nextest run --workspace --all-features
else
  cargo test --workspace --all-features --all-targets
fi
cargo test --workspace --all-features --doc --quiet
