"""How things stand with the replicas: of an endpoint, and of an image against what is wanted. Read off the
ledger; nothing is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from raftwright.backbone.packing import Packer, Standing
from raftwright.errors import NotFoundError
from raftwright.ledger.clock import tai
from raftwright.ledger.containers import CONTAINER
from raftwright.ledger.replicas import ENDPOINT

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from raftwright.backbone.settings import Endpoint, Settings
    from raftwright.ledger import Ledger
    from raftwright.ledger.rows import FileRow, ImageRow

__all__ = [
    "DeadLetter",
    "FileStanding",
    "ImageStanding",
    "containers_of",
    "dead_letters",
    "endpoints_of",
    "letters",
    "oldest_check",
    "standing_of",
    "unconfigured",
]

_PAGE: Final = 200
_GOOD: Final = frozenset({"written", "unchanged", "kept"})
_DEAD: Final = (
    "SELECT image.obsid, delivery.path, delivery.target, delivery.bytes, delivery.state, delivery.reason,"
    " delivery.attempts FROM delivery JOIN image ON image.id = delivery.image_id"
    " WHERE delivery.destination = ? AND delivery.state <> 'delivered'"
    " AND delivery.state IN ('failed', 'conflict') ORDER BY delivery.id LIMIT ?"
)
_OLDEST: Final = "SELECT min(checked_tai) FROM replica WHERE endpoint = ? AND state = 'verified'"
_NEXT: Final = "SELECT min(endpoint) FROM replica WHERE endpoint > ?"
_ANY: Final = "SELECT 1 FROM replica WHERE endpoint = ? AND state = 'verified' LIMIT 1"


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A file that does not get to an endpoint until somebody does something."""

    obsid: str
    endpoint: str
    path: str
    target: str
    bytes: int
    state: str
    reason: str
    attempts: int


class FileStanding(msgspec.Struct, frozen=True, kw_only=True):
    """A file of an image, and where it is."""

    path: str
    kind: str
    bytes: int
    verified: tuple[str, ...]
    """Endpoints with a good replica of it, or of a container that has it as it is."""
    lacking: Mapping[str, str]
    """Endpoints that want it and have no good replica, and why."""
    safe: bool
    """Whether as many and those endpoints have it that have to."""


class ImageStanding(msgspec.Struct, frozen=True, kw_only=True):
    """An image against what is wanted."""

    obsid: str
    state: str
    files: tuple[FileStanding, ...]

    @property
    def safe(self) -> bool:
        """Whether all of its files are; an image without files is not."""
        return bool(self.files) and all(file.safe for file in self.files)


def letters(ledger: Ledger, endpoint: str, limit: int = 1000) -> list[DeadLetter]:
    """The dead letters of an endpoint, the oldest first. Raises StorageError."""
    return [
        DeadLetter(endpoint=endpoint, **dict(zip(_LETTER, row, strict=True)))
        for row in ledger.read(_DEAD, (ENDPOINT + endpoint, limit))
    ]


_LETTER: Final = ("obsid", "path", "target", "bytes", "state", "reason", "attempts")


def dead_letters(ledger: Ledger) -> dict[str, dict[str, int]]:
    """What is on its way to each endpoint or given up, counted by state. Raises StorageError."""
    return {
        name.removeprefix(ENDPOINT): counts
        for name, counts in ledger.deliveries.counts(delivered=False).items()
        if name.startswith(ENDPOINT)
    }


def oldest_check(ledger: Ledger, endpoint: str) -> float | None:
    """Seconds since the replica there that was not read for the longest time was; None where there is none.
    Raises StorageError."""
    found = ledger.read(_OLDEST, (endpoint,))[0][0]
    return None if found is None else round(max(0.0, tai() - found), 1)


def endpoints_of(ledger: Ledger, endpoints: Sequence[Endpoint], dayobs: int | None = None) -> dict[str, Any]:
    """Each endpoint as JSON: replicas and deliveries by state, dead letters, the oldest check; those too that
    are not configured (any more) and have replicas, without a kind. Raises StorageError."""
    replicas = ledger.replicas.counts(dayobs=dayobs)
    waiting = ledger.deliveries.counts(dayobs=dayobs, delivered=False)
    known = {one.name: (str(one.kind), one.custodial) for one in endpoints}
    known |= dict.fromkeys(unconfigured(ledger, known), ("", False))
    return {
        name: {
            "kind": kind,
            "custodial": custodial,
            "replicas": replicas.get(name, {}),
            "waiting": waiting.get(ENDPOINT + name, {}),
            "dead_letters": [msgspec.to_builtins(each) for each in letters(ledger, name, 100)],
            "oldest_check_s": oldest_check(ledger, name),
        }
        for name, (kind, custodial) in known.items()
    }


def unconfigured(ledger: Ledger, endpoints: Collection[str]) -> list[str]:
    """Endpoints with replicas that count, and that nobody reads again: they are none of these. Quick, however
    many replicas there are. Raises StorageError."""
    found: list[str] = []
    name = ""
    while True:
        name = ledger.read(_NEXT, (name,))[0][0]
        if name is None:
            return found
        if name not in endpoints and ledger.read(_ANY, (name,)):
            found.append(name)


def containers_of(
    ledger: Ledger, settings: Settings, dayobs: int | None = None, image_ids: Iterable[int] | None = None
) -> list[Standing]:
    """How the containers of images stand, where they are made: of a night, of some images, or of all. Raises
    StorageError."""
    packer = Packer(ledger, lambda: settings.containers, settings.endpoints)
    found: list[Standing] = []
    after, chosen = 0, None if image_ids is None else set(image_ids)
    instruments = [settings.instrument] if settings.instrument else []
    while packer.wanted:
        if chosen is None:
            ids = ledger.containers.ids(after, _PAGE, dayobs=dayobs, instruments=instruments)
        else:
            ids = sorted(each for each in chosen if each > after)[:_PAGE]
        found += [packer.standing(unit) for unit in ledger.containers.units(ids) if packer.takes(unit)]
        if len(ids) < _PAGE:
            break
        after = ids[-1]
    return found


def standing_of(ledger: Ledger, settings: Settings, obsid: str) -> list[ImageStanding]:
    """The images of a name: of each file, which endpoints have it and which lack it. Raises NotFoundError,
    StorageError."""
    images = ledger.images.get(obsid)
    if not images:
        raise NotFoundError(f"{obsid[:100]!a}: the ledger knows no such image")
    return [_image(ledger, settings, image) for image in images]


def _image(ledger: Ledger, settings: Settings, image: ImageRow) -> ImageStanding:
    files = [file for file in ledger.files.of(image.id) if file.status in _GOOD]
    wanting = [
        one for one in settings.endpoints if not one.instruments or image.instrument in one.instruments
    ]
    names = {one.name for one in settings.endpoints}
    replicas = ledger.replicas.of(image.id)
    others = {replica.endpoint for replica in replicas} - names
    there: dict[str, dict[str, str]] = {}
    for replica in replicas:
        if replica.endpoint in others:
            continue  # nobody reads it again
        said = replica.state if not replica.reason else f"{replica.state}: {replica.reason}"
        there.setdefault(replica.path, {})[replica.endpoint] = said
    on_their_way = {
        (row.path, row.destination): row.state if not row.reason else f"{row.state}: {row.reason}"
        for row in ledger.deliveries.of(image.id)
        if row.state != "delivered"
    }
    packed = ledger.replicas.in_containers(image.id)
    least = settings.replicas or len(settings.endpoints)
    listed: list[FileStanding] = []
    for file in files:
        wanted = [one for one in wanting if file.kind in one.what or CONTAINER in one.what]
        if not wanted:
            continue
        have = dict(there.get(file.path, {}))
        by_itself = {one.name for one in wanted if file.kind in one.what}
        for name in packed.get(file.id, set()) - others:
            if name not in have or name not in by_itself:  # else it is still to be there by itself
                have[name] = "verified"
        lacking = {
            one.name: on_their_way.get((file.path, ENDPOINT + one.name))
            or have.get(one.name)
            or _not_planned(file, one)
            for one in wanted
            if have.get(one.name) != "verified"
        }
        safe = ledger.replicas.safe(
            [file.id], settings.required, settings.custodial, least=min(least, len(wanted)), but=others
        )
        listed.append(
            FileStanding(
                path=file.path,
                kind=file.kind,
                bytes=file.bytes,
                verified=tuple(sorted(name for name, state in have.items() if state == "verified")),
                lacking=lacking,
                safe=file.id in safe,
            )
        )
    return ImageStanding(obsid=image.obsid, state=image.state, files=tuple(listed))


def _not_planned(file: FileRow, endpoint: Endpoint) -> str:
    if not file.verified:
        return "not yet found to hold in the archive"
    return "not planned" if file.kind in endpoint.what else "no container there has it as it is"
