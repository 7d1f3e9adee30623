#!/usr/bin/env bash
# `make demo`: DAQ data of a full raft become files and a picture. Results in DEMO_DIR (demo/).
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tools/common.sh
. tools/common.sh

place=${DEMO_DIR:-demo}
seed=${DEMO_SEED:-20261122}
name=CC_O_20261122_000123
rm -rf "$place/recording" "$place/raws" "$place"/*.png
mkdir -p "$place"

say "1/4  simulating the DAQ: a full raft of ComCam, seed $seed"
raftwright simulate "$name" --camera LSSTComCam --seed "$seed" --out "$place/recording"
recording=$(dirname "$(find "$place/recording" -name image.json)")

say "2/4  assembling it into raw FITS files"
raftwright assemble "$recording" --out "$place/raws"

say "3/4  verifying the files: sums, structure, and every pixel against the recording"
find "$place/raws" -name '*.fits' -print0 | sort -z | xargs -0 raftwright verify --against "$recording"

say "4/4  a picture of the raft"
find "$place/raws" -name '*.fits' -print0 | sort -z | xargs -0 raftwright show --out "$place/raft.png"

say "done"
du -sh "$recording" "$place/raws"
printf 'recording  %s\nraw files  %s\npicture    %s\n' "$recording" "$(find "$place/raws" -mindepth 2 -maxdepth 2 -type d | head -n 1)" "$place/raft.png"
