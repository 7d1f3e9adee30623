"""The ledger: the record of truth of what the DAQ announced, where it is, and what is missing.

with open_ledger("archive/ledger.db") as ledger:
    for image in ledger.images.select(dayobs=20261122, states=["incomplete"]):
        print(image.obsid, image.reason)
"""

from __future__ import annotations

from raftwright.ledger.announcing import facts_of
from raftwright.ledger.claims import Claims
from raftwright.ledger.clock import tai
from raftwright.ledger.leases import LEASE
from raftwright.ledger.ledger import Ledger, open_ledger
from raftwright.ledger.replicas import ENDPOINT
from raftwright.ledger.rows import (
    AttemptRow,
    DeliveryPlan,
    DeliveryRow,
    DetectorFacts,
    DetectorRow,
    EventRow,
    FileRow,
    HeaderRow,
    ImageFacts,
    ImageRow,
    IngestPlan,
    IngestRow,
    QuarantineRow,
    ReplicaRow,
    SourceFacts,
    SourceRow,
    TagRow,
)
from raftwright.ledger.units import Claim, Entry, Outcome, Unit, UnitKey

__all__ = [
    "ENDPOINT",
    "LEASE",
    "AttemptRow",
    "Claim",
    "Claims",
    "DeliveryPlan",
    "DeliveryRow",
    "DetectorFacts",
    "DetectorRow",
    "Entry",
    "EventRow",
    "FileRow",
    "HeaderRow",
    "ImageFacts",
    "ImageRow",
    "IngestPlan",
    "IngestRow",
    "Ledger",
    "Outcome",
    "QuarantineRow",
    "ReplicaRow",
    "SourceFacts",
    "SourceRow",
    "TagRow",
    "Unit",
    "UnitKey",
    "facts_of",
    "open_ledger",
    "tai",
]
