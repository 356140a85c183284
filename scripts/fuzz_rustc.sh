#!/usr/bin/env bash
# What cargo calls as the compiler for `scripts/fuzz.sh`: crates of this repository get the counters
# that lead libFuzzer, all others are built as ever. Counters in every crate made a build take an hour.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
compiler=$1
shift
case "${CARGO_MANIFEST_DIR:-}" in
  "$here" | "$here"/*) ;;
  *) exec "$compiler" "$@" ;;
esac
case " $* " in
  # These run while others are built, without libFuzzer beside them.
  *" --crate-name build_script_build "* | *" --crate-type proc-macro "*) exec "$compiler" "$@" ;;
esac
exec "$compiler" "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing
