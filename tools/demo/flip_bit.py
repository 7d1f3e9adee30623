"""Flips one bit in the middle of a file, as a bad disk would: `flip_bit.py FILE`."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

path = Path(sys.argv[1])
mode = stat.S_IMODE(path.stat().st_mode)
times = path.stat()
path.chmod(mode | stat.S_IWUSR)
with path.open("r+b") as stream:
    stream.seek(path.stat().st_size // 2)
    (byte,) = stream.read(1)
    stream.seek(-1, os.SEEK_CUR)
    stream.write(bytes([byte ^ 0x10]))
path.chmod(mode)
os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
sys.stdout.write(f"  one bit of {path.name} is another now; size and time are as before\n")
