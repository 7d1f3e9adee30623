#!/usr/bin/env bash
# Compiles the lock files in requirements/ from pyproject.toml (see requirements/README.md).
set -euo pipefail
cd "$(dirname "$0")/.."
compile() {
  local output=$1
  shift
  .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --upgrade --no-emit-index-url \
    --custom-compile-command "make lock" --group build --output-file "$output" pyproject.toml "$@"
}
compile requirements/test.txt --extra show --extra ledger --extra postgres --extra kafka --extra s3 \
  --extra webdav --extra butler --extra web --extra rucio --extra test --extra bench --extra dev
compile requirements/run.txt --extra show --constraint requirements/test.txt
compile requirements/demo.txt --extra show --extra butler --extra web --constraint requirements/test.txt
# A server that tests talk to, in an environment of its own: nothing of it is shared with the others.
.venv/bin/uv pip compile --quiet --universal --python-version 3.11 --upgrade --no-emit-index-url \
  --custom-compile-command "make lock" --group rucio-server --output-file requirements/rucio.txt
