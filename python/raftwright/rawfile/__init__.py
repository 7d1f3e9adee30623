"""Raw FITS files: written from the DAQ's streams, read back, verified, and turned into recordings again.

report = write_image("recordings/MC_O_20261122_000123", "out", header="header.yaml")
raw = open_raw(report.files[0].path)
raw.segments["Segment10"]          # (2048, 576) int32, readout order
verify("out", against="recordings/MC_O_20261122_000123").ok
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from raftwright.rawfile.cards import Card, Notes, Value
from raftwright.rawfile.header import Header
from raftwright.rawfile.names import FileName, ImageName, manifest_name, raw_file_name, sidecar_path
from raftwright.rawfile.report import Failure, FileReport, WriteReport

if TYPE_CHECKING:
    from raftwright.rawfile.document import HeaderDocument, Record, read_header_document
    from raftwright.rawfile.findings import Finding, VerifiedFile, VerifyReport
    from raftwright.rawfile.read import RawFile, open_raw
    from raftwright.rawfile.replaying import ReplayedSource, ReplayReport, replay
    from raftwright.rawfile.verifying import verify
    from raftwright.rawfile.write import write_image

__all__ = [
    "Card",
    "Failure",
    "FileName",
    "FileReport",
    "Finding",
    "Header",
    "HeaderDocument",
    "ImageName",
    "Notes",
    "RawFile",
    "Record",
    "ReplayReport",
    "ReplayedSource",
    "Value",
    "VerifiedFile",
    "VerifyReport",
    "WriteReport",
    "manifest_name",
    "open_raw",
    "raw_file_name",
    "read_header_document",
    "replay",
    "sidecar_path",
    "verify",
    "write_image",
]

# Who only writes loads nothing that reads or compares.
_HOMES = {
    "Finding": "findings",
    "HeaderDocument": "document",
    "RawFile": "read",
    "Record": "document",
    "ReplayReport": "replaying",
    "ReplayedSource": "replaying",
    "VerifiedFile": "findings",
    "VerifyReport": "findings",
    "open_raw": "read",
    "read_header_document": "document",
    "replay": "replaying",
    "verify": "verifying",
    "write_image": "write",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"raftwright.rawfile.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'raftwright.rawfile' has no attribute {name!r}")
