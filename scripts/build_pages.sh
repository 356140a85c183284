#!/usr/bin/env bash
# Builds the pages of web/ into web/dist, unless they are newer than all that they are made of.
set -euo pipefail
cd "$(dirname "$0")/../web"

sources=(src build.mjs package.json package-lock.json tsconfig.json .npmrc)
if [ -f dist/index.html ] && [ -z "$(find "${sources[@]}" -newer dist/index.html -print -quit)" ]; then
  exit 0
fi
# The packages of the lock file, unless they are there; none of them runs a script to be installed.
if [ ! -f node_modules/.package-lock.json ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
  npm ci --ignore-scripts --no-progress --loglevel=error
fi
npm run --silent check
npm run --silent build
