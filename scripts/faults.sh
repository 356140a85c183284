#!/usr/bin/env bash
# Real stacks with a fault in each: scripts/faults.sh [--cycles N] [--seed S] [--only FAULT…]
# The binaries have fault points (feature `faults`), which releases do not.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --workspace --all-features --bins
target/debug/faults "$@"
