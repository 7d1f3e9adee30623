# Sourced by the scripts beside it, from the top of the tree.
# shellcheck shell=bash
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV
export PATH="$PWD/.venv/bin:$PATH" PYTHONNOUSERSITE=1

say() { printf '\n==> %s\n' "$*"; }
warn() { printf 'warning: %s\n' "$*" >&2; }
die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

jobs=${JOBS:-$(nproc)}
