#!/usr/bin/env bash
# `make demo`: DAQ data of a full raft become files and pictures. Results in DEMO_DIR (demo/).
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tools/common.sh
. tools/common.sh

place=${DEMO_DIR:-demo}
seed=${DEMO_SEED:-20261122}
name=CC_O_20261122_000123
recording=$place/recording/$name
raws=$place/raws/20261122/$name
rm -rf "$place/recording" "$place/raws" "$place"/raft.png "$place"/raft.fits
mkdir -p "$place"

say "1/5  simulating the DAQ: a full raft of ComCam, seed $seed"
raftwright simulate "$name" --camera LSSTComCam --seed "$seed" --out "$place/recording"

say "2/5  assembling it into raw FITS files"
raftwright assemble "$recording" --out "$place/raws"

say "3/5  verifying the files: sums, structure, and every pixel against the recording"
raftwright verify "$raws" --against "$recording"

say "4/5  the raft as one FITS image, true gaps, coordinates in millimetres"
raftwright mosaic "$raws" --out "$place/raft.fits"

say "5/5  a picture of it"
raftwright show "$raws" --electrons --scale percentile --stretch asinh --colors blue --out "$place/raft.png"

say "done; what was made:"
printf '%s\n' \
  "  recording  $recording ($(du -sh "$recording" | cut -f 1))" \
  "  raw files  $raws ($(du -sh "$raws" | cut -f 1))" \
  "  mosaic     $place/raft.fits" \
  "  picture    $place/raft.png"
