#!/usr/bin/env bash
# Wheel and source archive in dist/. With auditwheel and patchelf at hand the wheel gets the manylinux tag that
# its symbols allow; without, it keeps the plain one of this machine.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tools/common.sh
. tools/common.sh

rm -rf dist
uv build --quiet --python .venv/bin/python --build-constraints requirements/run.txt --out-dir dist
if command -v auditwheel >/dev/null && command -v patchelf >/dev/null; then
  plain=(dist/*-linux_*.whl)
  auditwheel repair --wheel-dir dist "${plain[@]}"
  rm -f "${plain[@]}"
fi
ls -l dist
