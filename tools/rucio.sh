#!/usr/bin/env bash
# Makes the environment of the Rucio server that tests start, and prints its directory: what it needs is older than
# what the package needs, so it is apart from .venv. Nothing is done twice; several may call this at a time.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tools/common.sh
. tools/common.sh

made=$PWD/build/rucio-server
stamp=$made/.requirements-$(.venv/bin/python -c 'import sys; print(sys.version)' | cat - requirements/rucio.txt |
  sha256sum | cut -c1-16)
mkdir -p build
exec 9>build/rucio-server.lock
flock 9
if [ ! -e "$stamp" ]; then
  say "installing requirements/rucio.txt into build/rucio-server" >&2
  rm -rf "$made"
  .venv/bin/uv venv --quiet --python .venv/bin/python "$made" >&2
  .venv/bin/uv pip install --quiet --compile-bytecode --python "$made/bin/python" -r requirements/rucio.txt >&2
  touch "$stamp"
fi
printf '%s\n' "$made"
