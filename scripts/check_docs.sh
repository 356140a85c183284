#!/usr/bin/env bash
# Every file, function and metric that a document names exists.
set -euo pipefail
cd "$(dirname "$0")/.."
bad=0
miss() { echo "$1 names $2, which does not exist" >&2; bad=1; }

for page in $(git ls-files '*.md'); do
  folder=$(dirname "$page")
  # Links to files of the project.
  for link in $(grep -oE '\]\([^)#]+' "$page" | sed 's/^](//' | grep -vE '^(https?|mailto):' || true); do
    [ -e "$folder/$link" ] || miss "$page" "$link"
  done
done
# `path/file.rs::function`, `path/file.rs` and `folder/`, the paths being of the project or of a service.
find_file() { for root in . datahub/src twin/src cli/src; do [ -e "$root/$1" ] && echo "$root/$1" && return; done; return 0; }
for name in $(grep -ohE '`[a-z_/]+\.rs(::[a-z_]+)?`' ARCHITECTURE.md docs/*.md | tr -d '`' | sort -u); do
  file=$(find_file "${name%%::*}")
  [ -n "$file" ] || { miss ARCHITECTURE.md "$name"; continue; }
  case $name in *::*) grep -qE "fn ${name##*::}\b" "$file" || miss ARCHITECTURE.md "$name" ;; esac
done
for metric in $(grep -ohE '`(datahub|twin)_[a-z_]+`' docs/LOGGING.md | tr -d '`'); do
  grep -rq "\"$metric\"" datahub/src twin/src || miss docs/LOGGING.md "$metric"
done
exit $bad
