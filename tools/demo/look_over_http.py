"""Asks the OODS over HTTP as prompt processing does: is it here, and where; then takes a picture.

python tools/demo/look_over_http.py URL OBSID PICTURE
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from urllib.parse import quote
from urllib.request import urlopen


def main(url: str, obsid: str, picture: str) -> int:
    def ask(path: str) -> bytes:
        with urlopen(url + path, timeout=60) as answer:
            return bytes(answer.read())

    header = json.loads(ask(f"/images/{obsid}/R22_S11/header"))
    group, snap = quote(header["GROUPID"], safe=""), header["CURINDEX"] - 1
    found = json.loads(ask(f"/presence/LSSTComCam/{group}/{snap}/R22_S11"))
    sys.stdout.write(f"  GET {url}/presence/LSSTComCam/{group}/{snap}/R22_S11\n  {json.dumps(found)}\n")
    Path(picture).write_bytes(ask(f"/images/{obsid}/preview.png"))
    sys.stdout.write(f"  GET {url}/images/{obsid}/preview.png: {picture}\n")
    return 0 if found["present"] else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
