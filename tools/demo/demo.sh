#!/usr/bin/env bash
# `make demo`: a short night of a simulated ComCam. The services of a site run as three processes from one file,
# night.yaml. The archiver is killed and brought back; one image is taken while no forwarder runs, and is caught
# up. In the end everything is verified: every pixel against the seed, every header with astropy, the ledger
# against the disk and what was delivered. Results in demo/.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=tools/common.sh
. tools/common.sh

place=demo
day=20261122
images=12
night=$place/night.yaml
rm -rf "$place"
mkdir -p "$place/archive" "$place/observers"
sed "s|HERE|$PWD|" tools/demo/night.yaml >"$night"

declare -A pid=()
finish() {
  for service in "${!pid[@]}"; do stop "$service" TERM || true; done
}
trap finish EXIT

# start NAME SERVICE,SERVICE: some services of the site as a process.
start() {
  raftwright up "$night" --only "$2" >>"$place/$1.log" 2>&1 &
  pid[$1]=$!
}

# stop NAME SIGNAL: ends such a process, and waits for its end.
stop() {
  kill -"$2" "${pid[$1]}" 2>/dev/null || true
  wait "${pid[$1]}" 2>/dev/null || true
  unset "pid[$1]"
}

name_of() { printf 'CC_S_%s_%06d' "$day" "$1"; }

# field OBSID FIELD: a field of an image in the ledger.
field() {
  raftwright image "$1" "$place/archive" --json 2>/dev/null |
    python -c 'import json, sys; print(json.load(sys.stdin)["images"][0]["image"][sys.argv[1]])' "$2" 2>/dev/null || true
}

# wait_for SECONDS COMMAND..: until it succeeds.
wait_for() {
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    if [ "$SECONDS" -ge "$end" ]; then
      tail -n 20 "$place"/*.log >&2
      die "this did not come in time: $*"
    fi
    sleep 0.2
  done
}
complete() { [ "$(field "$(name_of "$1")" state)" = complete ]; }
known() { [ -n "$(field "$(name_of "$1")" state)" ]; }

say "1/7  a night of ComCam: $images images, one every 6 s; the camera, header service, forwarder, archiver, catch-up"
raftwright up "$night" --dry-run
start site simulator,telemetry,header,catchup
start forwarder forwarder
start archiver archiver
for number in 1 2 3; do wait_for 90 complete "$number"; done
raftwright image "$(name_of 3)" "$place/archive" | head -n 16

say "2/7  the archiver is killed; images go on; it is brought back"
stop archiver KILL
wait_for 60 test -e "$place/archive/$day/$(name_of 5)/$(name_of 5)_R22_S22.fits"
copy=$place/observers/LSSTComCam/$day/$(name_of 5)
[ ! -e "$copy" ] || die "$copy: the archiver was killed, and yet it is there"
printf '  %s is written; nobody delivers it\n' "$(name_of 5)"
start archiver archiver
wait_for 60 complete 5
wait_for 60 test -e "$copy/$(name_of 5)_R22_S22.fits"
printf '  the archiver is back: complete, and delivered to %s\n' "$copy"

say "3/7  no forwarder runs while the next image is taken; the catch-up archiver finds it missing"
stop forwarder TERM
missed=
for number in 6 7 8 9; do
  if [ ! -e "$place/archive/$day/$(name_of "$number")" ]; then
    missed=$number
    break
  fi
done
[ -n "$missed" ] || die "the camera is ahead of the demonstration"
wait_for 60 complete "$missed"
printf '  %s was fetched by the catch-up archiver, and is complete\n' "$(name_of "$missed")"
start forwarder forwarder

say "4/7  the rest of the night"
wait_for 120 complete "$images"
for number in $(seq "$images"); do wait_for 60 complete "$number"; done
delivered() { raftwright audit "$place/archive" --destinations --config "$night" --json >"$place/audit.json" 2>/dev/null; }
wait_for 30 delivered
raftwright status "$place/archive"

say "5/7  every pixel against the seed, every header with astropy, the ledger against the disk and the observers' copy"
for number in $(seq "$images"); do
  raftwright verify "$place/archive/$day/$(name_of "$number")" \
    --against "simulated:LSSTComCam?seed=20261122&count=$images&day=$day&rafts=R22" | tail -n 1
done
python tools/demo/check_headers.py "$place/archive"
raftwright audit "$place/archive" --destinations --digests --config "$night"

say "6/7  the last image as one FITS image in millimetres, and as a picture"
last=$place/archive/$day/$(name_of "$images")
raftwright mosaic "$last" --out "$place/raft.fits"
raftwright show "$last" --electrons --scale percentile --stretch asinh --colors blue --out "$place/raft.png"

finish
say "7/7  the report of the night"
raftwright night-report "$day" "$place/archive" --out "$place/report" --config "$night"

say "done; what was made:"
printf '%s\n' \
  "  archive    $place/archive/$day ($(du -sh "$place/archive" | cut -f 1))" \
  "  ledger     $place/archive/ledger.db   try: raftwright image $(name_of "${missed}") $place/archive" \
  "  delivered  $place/observers" \
  "  logs       $place/site.log $place/forwarder.log $place/archiver.log" \
  "  mosaic     $place/raft.fits" \
  "  picture    $place/raft.png" \
  "  report     $place/report/$day.html"
