#!/usr/bin/env bash
# Brings Python and C++ into form; tests/quality/test_style.py is what checks it.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tools/common.sh
. tools/common.sh

ruff check --fix --quiet . || true # what cannot be mended by itself is `make lint`'s to tell
ruff format .
find cpp src -path cpp/tests/vendor -prune -o \( -name '*.cpp' -o -name '*.hpp' \) -print0 | xargs -0 clang-format -i
