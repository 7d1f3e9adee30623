"""Bodies of messages, decoded by many threads."""

from __future__ import annotations

import subprocess
import sys

FIRST = """
import sys, threading
from raftwright.camera import camera
from raftwright.daq.info import decode_description
from raftwright.stream.messages import ImageReply, Pull, Query, Welcome, decode
sys.setswitchinterval(1e-6)
barrier = threading.Barrier(8)
body = b'{"what": "x", "image": "a", "location": "a", "credit": 1, "chunk": 1, "final": true, "sources": {}}'
def work():
    barrier.wait()
    for kind in (Welcome, ImageReply, Query, Pull):
        try:
            decode(body, kind)
        except ValueError:
            pass
    try:
        decode_description({"name": "x", "sources": [{"location": "22/0"}]}, "x")
    except ValueError:
        pass
    camera("LSSTComCam")
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_threads_that_are_the_first_to_decode_at_the_same_time() -> None:
    """msgspec crashes when two threads meet a type for the first time together."""
    for _ in range(4):
        done = subprocess.run([sys.executable, "-c", FIRST], capture_output=True, check=False, timeout=60)
        assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
