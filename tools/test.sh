#!/usr/bin/env bash
# The stages of `make test`. With arguments only the stages named run. Every stage runs, whatever became of
# those before it; the summary at the end says how each went, and one failure fails the whole.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tools/common.sh
. tools/common.sh

all_stages=(core baseline aarch64 sanitizers threads python package)
skipped=77

configure() { # PRESET [CMAKE ARGUMENTS]
  cmake --preset "$1" "${@:2}" >"build/$1.configure.log" 2>&1 || {
    cat "build/$1.configure.log"
    return 1
  }
}

build() { cmake --build --preset "$1" --parallel "$jobs" -- --quiet; }

# skip REASON: for want of a tool; a failure where every tool is required.
skip() {
  printf 'skipped: %s\n' "$*"
  [ "${RAFTWRIGHT_REQUIRE_TOOLS:-0}" != 1 ] || return 1
  return $skipped
}

on_x86_64() { [ "$(uname -m)" = x86_64 ] || { printf 'skipped: this stage is for x86-64 hosts\n' && return 1; }; }

stage_core() { # the package and the C++ tests from one build tree; the tests with each set of kernels
  tools/install.sh tests
  ctest --preset release
}

stage_baseline() { # the same programs on a processor without AVX, as a wheel may meet one
  on_x86_64 || return $skipped
  command -v qemu-x86_64-static >/dev/null || skip "qemu-x86_64-static is not installed"
  tools/install.sh tests
  qemu-x86_64-static -cpu qemu64 build/release/cpp/tests/raftwright_tests --test-case-exclude='*[slow]*'
}

stage_aarch64() { # cross build, run under qemu-user
  on_x86_64 || return $skipped
  command -v aarch64-linux-gnu-g++ >/dev/null || skip "aarch64-linux-gnu-g++ is not installed"
  command -v qemu-aarch64-static >/dev/null || skip "qemu-aarch64-static is not installed"
  configure aarch64
  build aarch64
  ctest --preset aarch64
}

stage_sanitizers() { # AddressSanitizer and UndefinedBehaviorSanitizer: C++ tests, fuzz targets, the parsers from Python
  configure asan -DRAFTWRIGHT_PYTHON=ON -DPython_EXECUTABLE="$PWD/.venv/bin/python" -DRAFTWRIGHT_FUZZ_SECONDS=4
  build asan
  ctest --preset asan --label-exclude fuzz
  say "sanitizers: fuzz targets, 4 s each"
  ctest --preset asan --label-regex fuzz --parallel "$jobs"
  say "sanitizers: the parsers, through Python"
  tools/pytest-asan.sh tests/test_fuzz_parsers.py
}

stage_threads() { # ThreadSanitizer
  configure tsan
  build tsan
  ctest --preset tsan --exclude-regex cpp-scalar
}

stage_python() { # pytest: unit, property, end to end, style
  tools/install.sh tests
  .venv/bin/python -m pytest --numprocesses "$jobs" --dist worksteal --quiet
}

stage_package() { # what pip makes of the source archive, in an environment of its own, core dependencies only
  tools/check_package.sh
}

stages=("$@")
[ ${#stages[@]} -gt 0 ] || stages=("${all_stages[@]}")
for stage in "${stages[@]}"; do
  declare -F "stage_$stage" >/dev/null || die "there is no stage '$stage'; there are: ${all_stages[*]}"
done

mkdir -p build
summary=()
failed=0
for stage in "${stages[@]}"; do
  say "$stage"
  begun=$SECONDS
  set +e
  (
    set -e
    "stage_$stage"
  )
  status=$?
  set -e
  case $status in
    0) word=passed ;;
    "$skipped") word=skipped ;;
    *)
      word=FAILED
      failed=1
      ;;
  esac
  summary+=("$(printf '  %-11s %-8s %5d s' "$stage" "$word" $((SECONDS - begun)))")
done

printf '\n==> summary\n'
printf '%s\n' "${summary[@]}"
if [ "$failed" = 1 ]; then
  printf 'make test: FAILED\n'
  exit 1
fi
printf 'make test: passed\n'
