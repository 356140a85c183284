#!/usr/bin/env bash
# Every test. cargo-nextest runs them faster; without it cargo's own runner does.
set -euo pipefail
cd "$(dirname "$0")/.."

# Services that tests start log here; at the end no secret of any test may stand there.
export ROVI_KEPT_LOGS
ROVI_KEPT_LOGS=$(mktemp -d "${TMPDIR:-/tmp}/rovi-logs.XXXXXX")
trap 'rm -rf "$ROVI_KEPT_LOGS"' EXIT

scripts/build_pages.sh
# System tests run the binaries themselves.
cargo build --workspace --all-features --bins
if cargo nextest --version >/dev/null 2>&1; then
  cargo nextest run --workspace --all-features
else
  cargo test --workspace --all-features --all-targets
fi
cargo test --workspace --all-features --doc --quiet

# Tokens, tickets and JWTs by their forms, other secrets of tests by the word in them.
secrets='rovi_[0-9a-f]{16}_[0-9a-f]{64}|rovi-ticket\.[0-9a-f]{8}|eyJ[A-Za-z0-9_-]{10,}\.eyJ|the-canary-'
if grep -rElq "$secrets" "$ROVI_KEPT_LOGS"; then
  echo "secrets stand in logs:" >&2
  grep -rEo -m 3 ".{0,100}($secrets)" "$ROVI_KEPT_LOGS" | head -20 >&2
  exit 1
fi
