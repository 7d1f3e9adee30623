#!/usr/bin/env bash
# `make demo`: a simulated ComCam is served over ZeroMQ, a forwarder makes raw files of its images as they are
# read out, one of them over a line that loses and damages data; every pixel is verified against the seed.
# Results in DEMO_DIR (demo/).
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tools/common.sh
. tools/common.sh

place=${DEMO_DIR:-demo}
seed=${DEMO_SEED:-20261122}
day=20261122
camera=(--camera LSSTComCam --rafts R22 --seed "$seed" --day "$day" --readout 2s --every 6s)
rm -rf "$place/archive" "$place/ledger.db"* "$place/epoch" "$place"/*.log "$place"/raft.png "$place"/raft.fits
mkdir -p "$place"

pids=()
finish() {
  for pid in "${pids[@]}"; do
    kill -TERM "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
}
trap finish EXIT

# wait_for FILE PATTERN SECONDS: the last match of PATTERN in a log, as soon as there is one.
wait_for() {
  local end=$((SECONDS + $3))
  until grep -qE "$2" "$1" 2>/dev/null; do
    if [ "$SECONDS" -ge "$end" ]; then
      cat "$1" >&2
      die "$1: nothing like '$2' in $3 s"
    fi
    sleep 0.1
  done
  grep -E "$2" "$1" | tail -1
}

# serve_camera LOG OPTIONS..: a server in the background; its endpoint in $endpoint.
serve_camera() {
  local log=$1
  shift
  raftwright serve "${camera[@]}" "$@" >"$log" 2>&1 &
  server=$!
  pids+=("$server")
  endpoint=$(wait_for "$log" 'serving ' 30 | grep -oE 'tcp://[0-9.]+:[0-9]+' | head -1)
}

say "1/6  a DAQ: ComCam, simulated, seed $seed; an image every 6 s, each read out in 2 s"
serve_camera "$place/server.log" --count 3 --bind tcp://127.0.0.1:0
printf '  %s\n' "$endpoint"

say "2/6  a forwarder: claims what is read out, assembles while it comes, writes raw files"
raftwright forward "$endpoint" --out "$place/archive" --ledger "$place/ledger.db" \
  --metrics 127.0.0.1:0 >"$place/forwarder.log" 2>&1 &
forwarder=$!
pids+=("$forwarder")
metrics=$(wait_for "$place/forwarder.log" 'http://' 30 | grep -oE 'http://[0-9.]+:[0-9]+' | head -1)
for number in 000001 000002 000003; do
  wait_for "$place/forwarder.log" "CC_S_${day}_$number" 60 | sed 's/^/  /'
done

say "3/6  one more, over a line that loses, repeats, reorders, delays and damages data"
kill -TERM "$server"
wait "$server" || true
serve_camera "$place/faults.log" --start 4 --count 1 --bind "$endpoint" \
  --faults drop=0.08,corrupt=0.05,duplicate=0.05,reorder=0.05,delay=0.05:100ms --fault-seed 7
wait_for "$place/forwarder.log" "CC_S_${day}_000004" 60 | sed 's/^/  /'

say "4/6  how it went: rates, times, losses"
raftwright status "$metrics"

say "5/6  verifying the files: sums, structure, and every pixel against the seed"
for number in 000001 000002 000003 000004; do
  raftwright verify "$place/archive/$day/CC_S_${day}_$number" \
    --against "simulated:LSSTComCam?seed=$seed&count=4&day=$day&rafts=R22"
done

say "6/6  the last one as one FITS image in millimetres, and as a picture"
raftwright mosaic "$place/archive/$day/CC_S_${day}_000004" --out "$place/raft.fits"
raftwright show "$place/archive/$day/CC_S_${day}_000004" --electrons --scale percentile --stretch asinh \
  --colors blue --out "$place/raft.png"

finish
pids=()
say "done; what was made:"
printf '%s\n' \
  "  archive    $place/archive/$day ($(du -sh "$place/archive" | cut -f 1))" \
  "  ledger     $place/ledger.db" \
  "  logs       $place/server.log $place/faults.log $place/forwarder.log" \
  "  mosaic     $place/raft.fits" \
  "  picture    $place/raft.png"
