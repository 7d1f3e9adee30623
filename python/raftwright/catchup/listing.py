"""Which images there are to look at: of the DAQ and of the ledger, in the order of the policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from raftwright.errors import FormatError, RaftwrightError, StorageError
from raftwright.rawfile.names import ImageName

if TYPE_CHECKING:
    from raftwright.capture.troubles import Troubles
    from raftwright.catchup.selection import Selection
    from raftwright.catchup.settings import Policy
    from raftwright.daq import Store
    from raftwright.ledger import Ledger

__all__ = ["Listed", "Listing", "order_of"]

_PAGE: Final = 1000
_UNSETTLED: Final = ("announced", "capturing", "incomplete", "lost")
_GROUND: Final = frozenset(
    {"BIAS", "DARK", "FLAT", "CALIBRATION", "TEST", "FE55", "PPUMP", "SPOT", "SFLAT", "DFLAT", "SCAN"}
)
"""Types of images that are not of the sky, and can be taken again."""


@dataclass
class Listed:
    """What is known of an image before it is looked at."""

    name: ImageName
    in_daq: bool = False
    """Among the complete images of the DAQ."""
    kind: str = ""
    """IMGTYPE, where the ledger knows it."""

    def rank(self, policy: Policy) -> tuple[Any, ...]:
        """Sorts what goes first to the front."""
        return (*order_of(self, policy), self.name.dayobs, self.name.seqnum, str(self.name))


def order_of(image: Listed, policy: Policy) -> tuple[Any, ...]:
    """What goes before the age of an image."""
    match policy:
        case "newest":
            return (-int(image.name.dayobs), -image.name.seqnum)
        case "priority":
            return (int(image.kind.upper() in _GROUND),)
        case _:
            return ()


class Listing:
    """Asks the DAQ and the ledger; either may be absent."""

    def __init__(
        self,
        store: Store | None,
        ledger: Ledger | None,
        selection: Selection,
        troubles: Troubles,
        aside: Callable[[str, str], None],
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._selection = selection
        self._troubles = troubles
        self._aside = aside
        self.daq = store is not None
        """Whether the DAQ answered last time."""

    def images(self, folder: str, policy: Policy) -> list[Listed]:
        """Every image that the DAQ has whole, and those of the ledger that lack something; all of the ledger
        where the DAQ does not answer. Raises StorageError where nobody can be asked."""
        found: dict[str, Listed] = {}
        underway: set[str] = set()
        problem: RaftwrightError | None = None
        if self._store is not None:
            try:
                underway.update(self._store.underway())
                names = self._store.images(folder or None)
                underway.update(self._store.underway())
                self.daq = True
                self._troubles.over("daq", "the DAQ answers again")
                for text in names:
                    self._enter(found, text, in_daq=True)
            except RaftwrightError as error:
                problem = error
                self.daq = False
                self._troubles.failed("daq", error, "the DAQ cannot be asked")
        if self._ledger is not None:
            try:
                self._ask_ledger(found, folder, policy)
                self._troubles.over("ledger", "the ledger can be read again")
            except StorageError as error:
                self._troubles.failed("ledger", error)
                if problem is not None or self._store is None:
                    raise
        elif problem is not None:
            raise problem
        listed = [each for name, each in found.items() if name not in underway]
        return sorted(listed, key=lambda each: each.rank(policy))

    def _ask_ledger(self, found: dict[str, Listed], folder: str, policy: Policy) -> None:
        assert self._ledger is not None
        if self._selection.images:
            for name in self._selection.images:
                for row in self._ledger.images.get(name):
                    self._enter(found, row.obsid, kind=row.image_type or "")
            return
        after = 0
        while True:
            rows = self._ledger.images.select(
                states=_UNSETTLED if self.daq else None, after_id=after, limit=_PAGE
            )
            for row in rows:
                if row.folder in ("", folder) or not folder:
                    self._enter(found, row.obsid, kind=row.image_type or "")
            if len(rows) < _PAGE:
                break
            after = rows[-1].id
        if policy == "priority":
            for obsid, kind in self._ledger.read(
                "SELECT obsid, image_type FROM image WHERE image_type IS NOT NULL AND dayobs >= ?",
                (int(self._selection.first_day or 0),),
            ):
                if obsid in found:
                    found[obsid].kind = kind

    def _enter(self, found: dict[str, Listed], text: str, *, in_daq: bool = False, kind: str = "") -> None:
        each = found.get(text)
        if each is None:
            try:
                name = ImageName.parse(text)
            except FormatError as error:
                self._aside(text, str(error))
                return
            if not self._selection.may_want(name):
                return
            each = found[text] = Listed(name)
        each.in_daq |= in_daq
        each.kind = kind or each.kind
