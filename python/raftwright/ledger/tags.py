"""Tags: images, and detectors of them, that people want kept."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any, Final

from raftwright.errors import NotFoundError, UsageError
from raftwright.ledger.clock import tai
from raftwright.ledger.database import Change, Transaction, clean, parts
from raftwright.ledger.rows import TagRow, dayobs_of

if TYPE_CHECKING:
    from raftwright.ledger.database import Database

__all__ = ["Tags"]

_LONGEST: Final = 200


class Tags:
    """Thread-safe; raises StorageError when the ledger cannot be read or written."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def tag(
        self, name: str, image_ids: Iterable[int], detectors: Collection[str] = ("",), reason: str = ""
    ) -> int:
        """Keeps images, or some detectors of them, under a name: retention leaves them alone in every
        repository. How many were not so before.

        Raises NotFoundError for an image that the ledger does not know, UsageError for a name that is none.
        """
        name = clean(name.strip(), _LONGEST)
        if not name or not name.isprintable():
            raise UsageError(f"{name!a}: is no name for a tag; give one of printable characters")
        wanted = sorted(set(image_ids))

        def work(transaction: Transaction) -> int:
            images = self._images_in(transaction, wanted)
            moment, new = tai(), 0
            for image_id in wanted:
                rows = [
                    (image_id, detector, name, clean(reason), moment) for detector in sorted(set(detectors))
                ]
                entered = transaction.insert(
                    "tag", ("image_id", "detector", "name", "reason", "tagged_tai"), rows
                )
                if entered:
                    self._note(transaction, image_id, images[image_id], "", name, detectors, reason)
                new += entered
            return new

        return self._database.change(work)

    def untag(self, name: str, image_ids: Iterable[int] | None = None, reason: str = "") -> int:
        """Takes a tag from images, or from all that have it; how many rows had it."""

        def work(transaction: Transaction) -> int:
            rows = transaction.rows(
                "SELECT image_id, detector FROM tag WHERE name = ? ORDER BY image_id", (name,)
            )
            chosen = None if image_ids is None else set(image_ids)
            of_image: dict[int, list[str]] = {}
            for image_id, detector in rows:
                if chosen is None or image_id in chosen:
                    of_image.setdefault(image_id, []).append(detector)
            images = self._images_in(transaction, sorted(of_image))
            done = 0
            for image_id, detectors in of_image.items():
                done += transaction.run("DELETE FROM tag WHERE image_id = ? AND name = ?", (image_id, name))
                self._note(transaction, image_id, images[image_id], name, "", detectors, reason)
            return done

        return self._database.change(work)

    def of(self, image_id: int) -> list[TagRow]:
        """The tags of an image."""
        return self._select("WHERE tag.image_id = ? ORDER BY tag.name, tag.detector", (image_id,))

    def named(self, name: str, after_image_id: int = 0, limit: int = 1000) -> list[TagRow]:
        """What has a tag, by image; the next ones follow `after_image_id`."""
        return self._select(
            "WHERE tag.name = ? AND tag.image_id > ? ORDER BY tag.image_id, tag.detector LIMIT ?",
            (name, after_image_id, limit),
        )

    def names(self) -> dict[str, int]:
        """The tags that there are, with how many rows have each."""
        return {
            str(name): int(count)
            for name, count in self._database.read(
                "SELECT name, count(*) FROM tag GROUP BY name ORDER BY name"
            )
        }

    def _select(self, where: str, values: tuple[Any, ...]) -> list[TagRow]:
        return [
            TagRow(**dict(zip(TagRow.__struct_fields__, row, strict=True)))
            for row in self._database.read(
                "SELECT tag.name, tag.image_id, image.obsid, tag.detector, tag.reason, tag.tagged_tai"
                f" FROM tag JOIN image ON image.id = tag.image_id {where}",
                values,
            )
        ]

    @staticmethod
    def _images_in(transaction: Transaction, image_ids: list[int]) -> dict[int, str]:
        """Their names; the rows are locked, as `Ingests.leave` does before it looks for tags."""
        found: dict[int, str] = {}
        for part in parts(image_ids):
            among, values = transaction.among("id", part)
            found.update(
                transaction.rows(
                    f"SELECT id, obsid FROM image WHERE {among} ORDER BY id{transaction.lock}", values
                )
            )
        for image_id in image_ids:
            if image_id not in found:
                raise NotFoundError(f"the ledger has no image of the number {image_id}")
        return found

    @staticmethod
    def _note(
        transaction: Transaction,
        image_id: int,
        obsid: str,
        old: str,
        new: str,
        detectors: Iterable[str],
        reason: str,
    ) -> None:
        detail = {
            **({"detectors": some} if (some := sorted(set(detectors) - {""})) else {}),
            **({"reason": reason} if reason else {}),
        }
        transaction.note(Change("tag", old or new, old, new, image_id, obsid, dayobs_of(obsid), detail))
