#!/usr/bin/env bash
# `make fuzz`: every C++ target and the Python parsers for FUZZ_SECONDS each, from FUZZ_SEED (default: a new one).
# A crashing input is kept in build/fuzz and named.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tools/common.sh
. tools/common.sh

seconds=${FUZZ_SECONDS:-300}
seed=${FUZZ_SEED:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}
found=$PWD/build/fuzz
mkdir -p "$found"
cmake --preset asan -DRAFTWRIGHT_PYTHON=ON -DPython_EXECUTABLE="$PWD/.venv/bin/python" >/dev/null
cmake --build --preset asan --parallel "$jobs" -- --quiet

say "C++ targets, $seconds s each, seed $seed"
failed=0
for target in fuzz_fits fuzz_intake fuzz_readout fuzz_rice fuzz_unpack; do
  printf '%s: ' "$target"
  "build/asan/cpp/fuzz/$target" --seconds "$seconds" --seed "$seed" --artifacts "$found" \
    "cpp/fuzz/corpus/$target" || failed=1
done
say "Python parsers, $seconds s each, seed $seed"
RAFTWRIGHT_FUZZ_SECONDS=$seconds RAFTWRIGHT_FUZZ_SEED=$seed \
  tools/pytest-asan.sh --timeout $((seconds * 2 + 300)) tests/test_fuzz_parsers.py || failed=1
exit $failed
