#!/usr/bin/env bash
# pytest against the sanitized build of the extension (build/asan, configured with RAFTWRIGHT_PYTHON=ON).
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tools/common.sh
. tools/common.sh

site=$PWD/build/asan/site
rm -rf "$site"
cmake --install build/asan --prefix "$site" --component python >/dev/null
cp -R python/raftwright/. "$site/raftwright/"

runtime() { "${CXX:-g++}" -print-file-name="$1"; }
# The interpreter itself leaks at exit by design; libstdc++ must be there when the interceptors look for it.
export LD_PRELOAD="$(runtime libasan.so) $(runtime libubsan.so) $(runtime libstdc++.so)"
export ASAN_OPTIONS=detect_leaks=0:max_allocation_size_mb=4096:strict_string_checks=1
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
export PYTHONPATH="$site" PYTHONMALLOC=malloc RAFTWRIGHT_EXPECT_SANITIZERS=address,undefined
exec .venv/bin/python -m pytest -p no:xdist --quiet "$@"
