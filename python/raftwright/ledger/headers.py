"""Header documents of images, and how far an image has one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from raftwright.errors import ConflictError, FormatError, UsageError
from raftwright.ledger.clock import tai
from raftwright.ledger.database import Change, Transaction, clean, quoted
from raftwright.ledger.rows import HeaderRow, plain_id, plain_path
from raftwright.ledger.states import EDGES, sources_of
from raftwright.rawfile.names import ImageName

if TYPE_CHECKING:
    from raftwright.ledger.database import Database

__all__ = ["Headers"]

_HEADER: Final = ", ".join(HeaderRow.__struct_fields__)
_STATES: Final = frozenset({"partial", "complete"})


class Headers:
    """Thread-safe; raises StorageError when the ledger cannot be read or written."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(
        self,
        obsid: str,
        version: int,
        path: str,
        bytes: int,
        crc32c: str,
        md5: str = "",
        state: str = "complete",
        problems: Sequence[str] = (),
    ) -> bool:
        """Enters a version of a header document; False where it is there already. It may come before the DAQ
        tells of the image.

        Raises ConflictError where the version is there with other bytes, UsageError.
        """
        if state not in _STATES:
            raise UsageError(f"{obsid}: a header is partial or complete, not {state!a}")
        said = msgspec.json.encode([clean(problem, 500) for problem in problems]).decode()

        def work(transaction: Transaction) -> bool:
            values = (obsid, version, state, clean(plain_path(path)), bytes, crc32c, md5, said, tai())
            columns = HeaderRow.__struct_fields__
            if not transaction.insert("header", columns, [values]):
                known = transaction.one(
                    "SELECT crc32c FROM header WHERE obsid = ? AND version = ?", (obsid, version)
                )
                if known is not None and known[0] != crc32c:
                    raise ConflictError(
                        f"{obsid}: the ledger has version {version} of its header with other bytes; "
                        "give this one the next version",
                        path,
                    )
                return False
            detail = {"version": version, "path": path, "crc32c": crc32c, "problems": list(problems)}
            self._move_in(transaction, obsid, state, detail, always=True)
            return True

        return self._database.change(work)

    def missed(self, obsid: str, daq_id: str | None = None) -> bool:
        """Files of an image were written without its header; whether that is news."""
        return self._database.change(
            lambda transaction: self._move_in(transaction, obsid, "missing", {}, daq_id=daq_id)
        )

    @staticmethod
    def _move_in(
        transaction: Transaction,
        obsid: str,
        state: str,
        detail: dict[str, object],
        *,
        daq_id: str | None = None,
        always: bool = False,
    ) -> bool:
        moved = False
        images = transaction.rows(
            "SELECT id, dayobs, header_state, daq_id FROM image WHERE obsid = ?"
            f" ORDER BY id{transaction.lock}",
            (obsid,),
        )
        leads = quoted(sources_of("header", state))
        for image_id, dayobs, old, found_id in images:
            if daq_id is not None and plain_id(daq_id) != found_id:
                continue
            new = state if state in EDGES["header"][old] else old
            if new != old:
                transaction.run(
                    f"UPDATE image SET header_state = ? WHERE id = ? AND header_state IN ({leads})",
                    (new, image_id),
                )
                moved = True
            if new != old or always:
                transaction.note(Change("header", obsid, old, new, image_id, obsid, dayobs, dict(detail)))
        if not images and always:
            transaction.note(Change("header", obsid, "", state, None, obsid, _dayobs(obsid), dict(detail)))
        return moved

    def of(self, obsid: str) -> list[HeaderRow]:
        """The versions of the header of an image, oldest first."""
        found = []
        for row in self._database.read(
            f"SELECT {_HEADER} FROM header WHERE obsid = ? ORDER BY version", (obsid,)
        ):
            fields = dict(zip(HeaderRow.__struct_fields__, row, strict=True))
            fields["problems"] = tuple(msgspec.json.decode(fields["problems"]))
            found.append(HeaderRow(**fields))
        return found


def _dayobs(obsid: str) -> int:
    """Of the name; 0 of one that is none."""
    try:
        return int(ImageName.parse(obsid).dayobs)
    except FormatError:
        return 0
