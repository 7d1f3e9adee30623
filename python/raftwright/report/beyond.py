"""What the ledger does not have: images that only the disk or the DAQ knows, and numbers that nobody used."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from raftwright.errors import RaftwrightError, StorageError
from raftwright.report.book import Book
from raftwright.report.disk import list_directory, what_is
from raftwright.report.verdicts import Finding, ImageAudit, Verdict, What

if TYPE_CHECKING:
    from raftwright.report.auditing import Options

__all__ = ["catalogue_of", "compare_daq", "not_taken", "only_in_daq", "split", "strangers"]


def split(obsid: str) -> tuple[str, str, int] | None:
    """Source, controller and number of a name; None of what is no name."""
    parts = obsid.split("_")
    if len(parts) != 4 or not parts[3].isdecimal():
        return None
    return parts[0], parts[1], int(parts[3])


def strangers(
    book: Book, options: Options, known: Mapping[int, Mapping[tuple[str, str], set[int]]]
) -> Iterator[ImageAudit]:
    """Directories of images that the ledger does not have."""
    from raftwright.rawfile.names import ImageName

    assert options.archive is not None
    if options.dayobs is not None:
        nights = [options.dayobs]
    elif options.since_tai is not None:
        nights = sorted(known)
    else:
        nights = sorted(
            int(name) for name in _folders(options.archive) if len(name) == 8 and name.isdecimal()
        )
    for night in nights:
        for name in _folders(options.archive / str(night)):
            try:
                parsed = ImageName.parse(name)
            except RaftwrightError:
                image = ImageAudit(name, night, Verdict.MORE_FOUND)
                image.add(
                    What.STRANGE, str(options.archive / str(night) / name), "is no directory of an image"
                )
                yield image
                continue
            if parsed.seqnum in known.get(night, {}).get((parsed.source, parsed.controller), ()):
                continue
            if int(parsed.dayobs) == night and book.value("SELECT 1 FROM image WHERE obsid = ?", name):
                continue
            image = ImageAudit(name, night, Verdict.NOT_ANNOUNCED)
            image.directory = str(options.archive / str(night) / name)
            files = list_directory(image.directory) or {}
            image.found = sum(1 for file in files if what_is(file, name) == "raw")
            said = "is on the disk, and the ledger does not know the image"
            if int(parsed.dayobs) != night:
                said = f"stands in the directory of the night {night}"
            image.add(What.NO_ROW, image.directory, said)
            yield image


def _folders(directory: Path) -> list[str]:
    try:
        with os.scandir(directory) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StorageError(error.errno, f"cannot be looked at ({error.strerror})", str(directory)) from error


def not_taken(known: Mapping[int, Mapping[tuple[str, str], set[int]]]) -> Iterator[ImageAudit]:
    """Numbers between the first and the last of a night that nobody knows of."""
    for night, counters in sorted(known.items()):
        for (source, controller), numbers in sorted(counters.items()):
            for number in sorted(set(range(min(numbers), max(numbers))) - numbers):
                yield ImageAudit(f"{source}_{controller}_{night}_{number:06d}", night, Verdict.NOT_TAKEN)


def catalogue_of(options: Options) -> frozenset[str] | None:
    """Names of images that the DAQ has and that are read out; None where it is not asked."""
    if options.daq is None:
        return None
    under = set(options.daq.underway())
    return frozenset(name for name in options.daq.images() if name not in under)


def compare_daq(image: ImageAudit, catalogue: Collection[str]) -> None:
    """Says of an image that lacks something whether the DAQ still has it."""
    if image.verdict in (Verdict.OK, Verdict.WAITING, Verdict.MORE_FOUND):
        return
    if image.found < image.expected:
        there = image.obsid in catalogue
        said = "still has it: it can be fetched" if there else "does not have it any more"
        image.findings.append(Finding(What.DAQ, "DAQ", said))


def only_in_daq(
    catalogue: Collection[str],
    known: dict[int, dict[tuple[str, str], set[int]]],
    options: Options,
) -> Iterator[ImageAudit]:
    """Images of the DAQ that neither the ledger nor the disk knows."""
    from raftwright.rawfile.names import ImageName

    for name in sorted(catalogue):
        try:
            parsed = ImageName.parse(name)
        except RaftwrightError:
            image = ImageAudit(name, 0, Verdict.MORE_FOUND)
            image.add(What.DAQ, name, "is in the DAQ's catalogue and no name of an image")
            yield image
            continue
        night = int(parsed.dayobs)
        if options.dayobs not in (None, night) or (options.since_tai is not None and night not in known):
            continue
        numbers = known.setdefault(night, {}).setdefault((parsed.source, parsed.controller), set())
        if parsed.seqnum not in numbers:
            numbers.add(parsed.seqnum)
            image = ImageAudit(name, night, Verdict.NOT_ANNOUNCED)
            image.add(What.DAQ, name, "is in the DAQ, and the ledger does not know the image")
            yield image
