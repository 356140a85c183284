#!/usr/bin/env bash
# Runs the fuzz targets on the stable compiler: scripts/fuzz.sh SECONDS [TARGET…]
# `cargo +nightly fuzz run TARGET` does the same with sanitizers. What is found stands in
# fuzz/artifacts; kept as a case, it goes to fuzz/cases/TARGET.
set -euo pipefail
cd "$(dirname "$0")/../fuzz"
seconds=${1:?how many seconds each}
shift
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(frames bodies bus names questions statements guard)
RUSTC_WRAPPER=$PWD/../scripts/fuzz_rustc.sh cargo build --features libfuzzer --bins
for target in "${targets[@]}"; do
  mkdir -p "corpus/$target" "artifacts/$target" "cases/$target"
  echo "== $target"
  "${CARGO_TARGET_DIR:-target}/debug/$target" -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=10 \
    -artifact_prefix="artifacts/$target/" -print_final_stats=1 "corpus/$target" "cases/$target" 2>&1 |
    grep -vE '^#[0-9]+\s+(NEW|REDUCE|pulse|RELOAD)' | tail -25
done
