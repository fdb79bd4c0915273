#!/usr/bin/env bash
# Installs the packages of package.json outside of the tracked tree: into INTEROP_DIR,
# else target/interop. Does nothing if they are already installed. Needs node 20 and npm.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
into=${INTEROP_DIR:-$here/../../target/interop}

# The stamp is written last: an interrupted installation is repeated.
if cmp --silent "$here/package.json" "$into/installed.json"; then
  exit 0
fi
mkdir -p "$into"
cp "$here/package.json" "$into/package.json"
npm install --no-audit --no-fund --no-package-lock --loglevel=error --prefix "$into"
cp "$here/package.json" "$into/installed.json"
