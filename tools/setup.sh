#!/usr/bin/env bash
# Sets up what a target of the Makefile needs, and nothing twice:
#
#   tools/setup.sh run     a virtual environment in .venv with what the package needs and is built with
#   tools/setup.sh demo    also a Butler and a web server
#   tools/setup.sh test    also judges, linters, a cross compiler, an emulator
#
# As root on Debian missing system packages are installed. Otherwise what is required is asked for, and what
# only serves tests is done without: those tests are skipped and say so, or fail when RAFTWRIGHT_REQUIRE_TOOLS=1.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tools/common.sh
. tools/common.sh

set_name=${1:?usage: tools/setup.sh run|demo|test}
base_python=${PYTHON:-python3}
stamps=.venv/.raftwright

have_header() { "$base_python" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))'; }

# --- system packages -----------------------------------------------------------------------------------
required=()
optional=()
command -v "$base_python" >/dev/null || required+=(python3)
command -v "${CXX:-g++}" >/dev/null || required+=(g++)
if command -v "$base_python" >/dev/null; then
  "$base_python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    die "$base_python is older than Python 3.11; name a newer one with make PYTHON=..."
  [ -x .venv/bin/python ] || "$base_python" -c 'import ensurepip, venv' 2>/dev/null || required+=(python3-venv)
  have_header || required+=(python3-dev)
fi
if [ "$set_name" = test ]; then
  command -v fitsverify >/dev/null || optional+=(fitsverify)
  command -v fpack >/dev/null || optional+=(libcfitsio-bin)
  [ -e /usr/include/fitsio.h ] || optional+=(libcfitsio-dev)
  command -v initdb >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || optional+=(postgresql)
  if [ "$(uname -m)" = x86_64 ]; then
    command -v qemu-aarch64-static >/dev/null || optional+=(qemu-user-static)
    command -v aarch64-linux-gnu-g++ >/dev/null || optional+=(g++-aarch64-linux-gnu)
  fi
fi
if [ ${#required[@]} -gt 0 ] || [ ${#optional[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing Debian packages: ${required[*]} ${optional[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq </dev/null || warn "apt-get update failed; trying with the lists that are there"
    if ! apt-get install -y -qq --no-install-recommends "${required[@]}" "${optional[@]}" </dev/null >/dev/null; then
      [ ${#required[@]} -eq 0 ] || apt-get install -y -qq --no-install-recommends "${required[@]}" </dev/null
      for package in "${optional[@]}"; do
        apt-get install -y -qq --no-install-recommends "$package" </dev/null >/dev/null || warn "no package $package"
      done
    fi
  else
    [ ${#required[@]} -eq 0 ] ||
      die "these are needed: ${required[*]}; on Debian: sudo apt-get install ${required[*]}"
    warn "without ${optional[*]} the tests that need them are skipped; on Debian: sudo apt-get install ${optional[*]}"
  fi
fi

# --- the virtual environment ---------------------------------------------------------------------------
interpreter=python-$("$base_python" -c 'import sys; print(sys.base_prefix, sys.version)' | sha256sum | cut -c1-16)
if ! .venv/bin/python -c '' 2>/dev/null || [ ! -e "$stamps/$interpreter" ]; then
  say "making .venv with $("$base_python" --version)"
  rm -rf .venv
  "$base_python" -m venv .venv
  mkdir -p "$stamps"
  touch "$stamps/$interpreter"
fi
have_set() { [ -e "$stamps/$1-$(sha256sum <"requirements/$1.txt" | cut -c1-16)" ]; }
install_set() {
  say "installing requirements/$1.txt"
  "${@:2}" -r "requirements/$1.txt"
  rm -f "$stamps/$1-"*
  touch "$stamps/$1-$(sha256sum <"requirements/$1.txt" | cut -c1-16)"
}
have_set uv || install_set uv .venv/bin/python -m pip install --quiet --disable-pip-version-check
# test.txt holds the others with the same pins, demo.txt holds run.txt.
have_set "$set_name" || { [ "$set_name" != test ] && have_set test; } ||
  { [ "$set_name" = run ] && have_set demo; } ||
  install_set "$set_name" .venv/bin/uv pip install --quiet --compile-bytecode --python .venv/bin/python
# A server that tests start; without it they are skipped.
[ "$set_name" != test ] || tools/rucio.sh >/dev/null || warn "no Rucio server: the tests that need one are skipped"
