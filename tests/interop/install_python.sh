#!/usr/bin/env bash
# Installs the packages of requirements.txt into a virtual environment in INTEROP_DIR, else
# target/interop. Does nothing if they are already installed. Needs Python 3.11 with venv.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
into=${INTEROP_DIR:-$here/../../target/interop}
home=$into/python

# The stamp is written last: an interrupted installation is repeated.
if cmp --silent "$here/requirements.txt" "$home/installed.txt"; then
  exit 0
fi
rm -rf "$home"
mkdir -p "$into"
python3 -m venv "$home"
"$home/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
  --only-binary :all: --requirement "$here/requirements.txt"
cp "$here/requirements.txt" "$home/installed.txt"
