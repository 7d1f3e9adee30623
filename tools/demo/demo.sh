#!/usr/bin/env bash
# `make demo`: a short night of a simulated ComCam. The services of a site run as three processes from one file,
# night.yaml. The archiver is killed and brought back; one image is taken while no forwarder runs, and is caught
# up. Every image goes into a Butler repository, and to two backbone endpoints and a custodial one. In the end
# everything is verified: every pixel against the seed, every header with astropy, the ledger against the disk
# and all places; a replica is spoilt and healed, and what is old leaves. Results in demo/.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=tools/common.sh
. tools/common.sh

place=demo
day=20261122
images=12
night=$place/night.yaml
# What is custodial may have been made immutable by root.
free() { [ ! -d "$place/custodial" ] || chattr -R -i "$place/custodial" 2>/dev/null || true; }
free
rm -rf "$place"
mkdir -p "$place/archive" "$place/observers" "$place"/backbone-{base,archive} "$place/custodial"
sed "s|HERE|$PWD|" tools/demo/night.yaml >"$night"

declare -A pid=()
finish() {
  for service in "${!pid[@]}"; do stop "$service" TERM || true; done
}
trap 'finish; free' EXIT

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

say "1/9  a night of ComCam: $images images, one every 6 s; camera, header service, forwarder, archiver, catch-up,"
printf '     OODS, hand-off\n'
raftwright up "$night" --dry-run
start site simulator,telemetry,header,catchup
start backbone oods,handoff
start forwarder forwarder
start archiver archiver
for number in 1 2 3; do wait_for 90 complete "$number"; done
raftwright image "$(name_of 3)" "$place/archive" | head -n 16

say "2/9  the archiver is killed; images go on; it is brought back"
stop archiver KILL
wait_for 60 test -e "$place/archive/$day/$(name_of 5)/$(name_of 5)_R22_S22.fits"
copy=$place/observers/LSSTComCam/$day/$(name_of 5)
[ ! -e "$copy" ] || die "$copy: the archiver was killed, and yet it is there"
printf '  %s is written; nobody delivers it\n' "$(name_of 5)"
start archiver archiver
wait_for 60 complete 5
wait_for 60 test -e "$copy/$(name_of 5)_R22_S22.fits"
printf '  the archiver is back: complete, and delivered to %s\n' "$copy"

say "3/9  no forwarder runs while the next image is taken; the catch-up archiver finds it missing"
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

say "4/9  the rest of the night"
wait_for 120 complete "$images"
for number in $(seq "$images"); do wait_for 60 complete "$number"; done
delivered() {
  raftwright audit "$place/archive" --destinations --endpoints --config "$night" --json >"$place/audit.json" 2>/dev/null
}
wait_for 60 delivered
raftwright status "$place/archive"

say "5/9  every pixel against the seed, every header with astropy, the ledger against the disk and all places"
for number in $(seq "$images"); do
  raftwright verify "$place/archive/$day/$(name_of "$number")" \
    --against "simulated:LSSTComCam?seed=20261122&count=$images&day=$day&rafts=R22" | tail -n 1
done
python tools/demo/check_headers.py "$place/archive"
raftwright audit "$place/archive" --destinations --endpoints --digests --config "$night"

say "6/9  every image through the Butler; the last one as one FITS image in millimetres, and as pictures"
python tools/demo/look_through_butler.py "$place/butler" "$place/butler.png" "$images"
url=$(raftwright status "$(sed -n 's/.*oods: page \(http[^,]*\).*/\1/p' "$place/backbone.log")" --json |
  python -c 'import json, sys; print(json.load(sys.stdin)["services"][0]["status"]["web"])')
python tools/demo/look_over_http.py "$url" "$(name_of "$images")" "$place/http.png"
last=$place/archive/$day/$(name_of "$images")
raftwright mosaic "$last" --out "$place/raft.fits"
raftwright show "$last" --electrons --scale percentile --stretch asinh --colors blue --out "$place/raft.png"

say "7/9  a bit of a replica flips; the scrub finds it and brings a good copy"
raftwright handoff status --config "$night"
replica=$place/backbone-base/LSSTComCam/$day/$(name_of 2)/$(name_of 2)_R22_S11.fits
python tools/demo/flip_bit.py "$replica"
raftwright handoff scrub --now --endpoint base --config "$night"
raftwright handoff status "$(name_of 2)" --config "$night" | tail -n 3

say "8/9  retention: what would leave, then what leaves; it is safe at the endpoints"
raftwright oods retention --dry-run --config "$night"
raftwright oods retention --config "$night" --json >"$place/retention.json"
raftwright oods status --config "$night"
raftwright audit "$place/archive" --destinations --endpoints --config "$night"

finish
say "9/9  the report of the night"
raftwright night-report "$day" "$place/archive" --out "$place/report" --config "$night"

say "done; what was made:"
printf '%s\n' \
  "  archive    $place/archive/$day ($(du -sh "$place/archive" | cut -f 1))" \
  "  ledger     $place/archive/ledger.db   try: raftwright image $(name_of "${missed}") $place/archive" \
  "  delivered  $place/observers" \
  "  Butler     $place/butler   pictures: $place/butler.png $place/http.png" \
  "  replicas   $place/backbone-base $place/backbone-archive $place/custodial" \
  "  logs       $place/site.log $place/backbone.log $place/forwarder.log $place/archiver.log" \
  "  mosaic     $place/raft.fits" \
  "  picture    $place/raft.png" \
  "  report     $place/report/$day.html"
