#!/usr/bin/env bash
# What we depend on: scripts/audit.sh [--strict]
# Licences, sources and banned crates are judged by deny.toml. Known holes, withdrawn and unsound
# crates are looked up in RustSec's database: ROVI_ADVISORY_DB names a copy of it, else it is
# fetched into .tools/advisory-db.
# A check that cannot be made, as without a network, is named in the last lines and fails nothing;
# with --strict it does.
set -euo pipefail
cd "$(dirname "$0")/.."

strict=false
[ "${1:-}" = --strict ] && strict=true
database_url=https://github.com/RustSec/advisory-db.git
lock_files=(Cargo.lock fuzz/Cargo.lock)
made=() left_out=()

finish() {
  printf '\n'
  printf 'checked: %s\n' "${made[@]}"
  [ ${#left_out[@]} -eq 0 ] && exit 0
  printf 'NOT CHECKED: %s\n' "${left_out[@]}"
  $strict && exit 1
  exit 0
}

# Sets `database`, or tells why not.
find_database() {
  database=${ROVI_ADVISORY_DB:-.tools/advisory-db}
  if [ -n "${ROVI_ADVISORY_DB:-}" ]; then
    [ -d "$database/crates" ] || { echo "ROVI_ADVISORY_DB=$database is no copy of RustSec's database" >&2; exit 1; }
    return
  fi
  export GIT_TERMINAL_PROMPT=0
  if [ -d "$database/.git" ]; then
    timeout 60 git -C "$database" pull --quiet --ff-only 2>/dev/null || echo "the database could not be renewed"
    return
  fi
  rm -rf "$database.new"
  timeout 60 git clone --quiet --depth 1 "$database_url" "$database.new" 2>/dev/null && mv "$database.new" "$database"
}

age_of_database() { git -C "$database" log -1 --format='of %cs' 2>/dev/null || echo "of unknown age"; }

if ! scripts/install_audit_tools.sh; then
  left_out+=("licences, sources, bans and advisories: cargo-deny and cargo-audit could not be installed")
  finish
fi

for manifest in Cargo.toml fuzz/Cargo.toml; do
  # Crates that are not there yet are fetched; that they cannot be is no verdict on them.
  if ! cargo metadata --quiet --format-version 1 --filter-platform x86_64-unknown-linux-gnu \
    --manifest-path "$manifest" >/dev/null; then
    left_out+=("licences, sources and bans of $manifest: its crates could not be fetched")
    continue
  fi
  .tools/bin/cargo-deny --log-level error --manifest-path "$manifest" --config deny.toml check licenses bans sources
  made+=("licences, sources and bans of $manifest")
done

if find_database; then
  for lock_file in "${lock_files[@]}"; do
    .tools/bin/cargo-audit audit --no-fetch --stale --db "$database" --file "$lock_file" --deny unsound --deny yanked
    made+=("$lock_file against the advisories $(age_of_database)")
  done
else
  left_out+=("known holes: $database_url could not be fetched; name a copy in ROVI_ADVISORY_DB")
fi
finish
