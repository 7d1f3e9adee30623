#!/usr/bin/env bash
# Source archive -> wheel -> an environment of its own with the core dependencies only -> does it work?
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tools/common.sh
. tools/common.sh

place=$PWD/build/package
rm -rf "$place"
mkdir -p "$place"
export CMAKE_BUILD_PARALLEL_LEVEL=$jobs
uv build --quiet --python .venv/bin/python --build-constraints requirements/test.txt --out-dir "$place/dist"
uv venv --quiet --python .venv/bin/python "$place/venv"
uv pip install --quiet --python "$place/venv/bin/python" --constraint requirements/test.txt "$place"/dist/*.whl
.venv/bin/python tools/check_wheel.py "$place"/dist/*.whl "$place"/dist/*.tar.gz
cp tools/check_installed.py "$place/"
cd "$place"
exec venv/bin/python -I check_installed.py
