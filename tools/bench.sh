#!/usr/bin/env bash
# `make bench`: the C++ benchmark, then the Python one, then the table of `raftwright bench`.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tools/common.sh
. tools/common.sh

say "C++ core"
build/release/cpp/bench/raftwright_bench
say "Python, against NumPy, fitsio and astropy"
.venv/bin/python -m pytest bench --benchmark-enable --benchmark-columns=min,median,rounds --timeout 1800 --quiet
say "raftwright bench"
raftwright bench
