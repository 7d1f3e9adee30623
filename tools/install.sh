#!/usr/bin/env bash
# Builds the package and installs it into .venv, when its sources have changed since the last time.
# With the argument `tests` the same build tree also gets the C++ tests and the benchmark (build/release).
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tools/common.sh
. tools/common.sh

with_tests=OFF
[ "${1:-}" != tests ] || with_tests=ON
stamps=.venv/.raftwright
sources=$(find CMakeLists.txt LICENSE NOTICE README.md pyproject.toml cpp src python -type f \
  -not -path '*/__pycache__/*' -not -path 'cpp/fuzz/*' -print0 | sort -z | xargs -0 sha256sum | sha256sum | cut -c1-16)
if [ -e "$stamps/package-$sources-ON" ] || [ -e "$stamps/package-$sources-$with_tests" ]; then
  exit 0
fi

say "building the package into .venv (build tree: build/release)"
rm -f "$stamps/package-"*
# Compiled to bytecode, as pip does it: programs start in half the time.
CMAKE_BUILD_PARALLEL_LEVEL=$jobs .venv/bin/uv pip install --quiet --compile-bytecode --python .venv/bin/python \
  --no-build-isolation --no-deps --no-cache --reinstall-package raftwright \
  --config-settings build-dir=build/release \
  --config-settings cmake.define.RAFTWRIGHT_TESTS=$with_tests \
  --config-settings cmake.define.RAFTWRIGHT_BENCH=$with_tests \
  --config-settings cmake.define.RAFTWRIGHT_WERROR=ON \
  .
touch "$stamps/package-$sources-$with_tests"
