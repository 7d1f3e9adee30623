"""What tests of containers share: images that are settled, their containers, and whether one is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from handoff_stand import Site

from raftwright.backbone.packing import Packer
from raftwright.backbone.settings import Containers, Endpoint
from raftwright.ledger import FileRow
from raftwright.rawfile.container import check_container

__all__ = ["SOON", "add_sidecar", "box", "boxes", "obsid", "packer", "ready", "settle", "unit", "whole"]

SOON = Containers(settle=0.0, patience=0.0, reserve=0.0)


def packer(site: Site, *endpoints: Endpoint, **settings: Any) -> Packer:
    chosen = msgspec.structs.replace(SOON, always=True, **settings)
    return Packer(site.ledger, lambda: chosen, endpoints)


def settle(site: Site, *numbers: int, state: str = "complete", header: str = "complete") -> None:
    """As an archiver that found all sources to have ended."""
    for number in numbers:
        image = site.ledger.images.get(obsid(number))[0]

        def work(transaction: Any, image: Any = image) -> None:
            if image.state != state:
                site.ledger.images.move_in(transaction, image.id, state, "for the test")
            transaction.run(
                "UPDATE image SET header_state = ?, settled_tai = 1.0 WHERE id = ?", (header, image.id)
            )

        site.ledger.database.change(work)


def ready(site: Site, *numbers: int, **more: Any) -> None:
    for number in numbers:
        site.image(number, **more)
    settle(site, *numbers)


def obsid(number: int) -> str:
    return f"CC_O_20261122_{number:06d}"


def box(site: Site, number: int, version: int = 1) -> Path:
    name = f"{obsid(number)}.zip" if version == 1 else f"{obsid(number)}.v{version}.zip"
    return site.root / "20261122" / obsid(number) / name


def unit(site: Site, number: int) -> Any:
    (found,) = site.ledger.containers.units([site.ledger.images.get(obsid(number))[0].id])
    return found


def boxes(site: Site, number: int) -> list[FileRow]:
    return site.ledger.files.of(site.ledger.images.get(obsid(number))[0].id, "container")


def add_sidecar(site: Site, number: int, text: bytes = b"later", detector: str = "R22_S00") -> Path:
    """A later sidecar, found to hold."""
    path = box(site, number).with_name(f"{obsid(number)}_{detector}.sidecar2.json")
    site.ledger.files.enter([site.file(path, "sidecar", number, text, detector)])
    site.ledger.files.all_verified([str(path)])
    return path


def whole(site: Site, number: int, version: int = 1) -> None:
    """Its container is one, in the ledger and on the disk, with every file of the image."""
    row = boxes(site, number)[-1]
    assert (row.path, row.version, row.status) == (str(box(site, number, version)), version, "written")
    found = check_container(row.path)
    assert (found.bytes, found.crc32c, found.adler32, found.wrong) == (row.bytes, row.crc32c, row.adler32, ())
    files = [one for one in site.ledger.files.of(row.image_id) if one.kind != "container"]
    assert {one.name: one.crc32c for one in found.members if not one.name.startswith("_")} == {
        Path(file.path).name: file.crc32c for file in files if file.status == "written"
    }
    assert unit(site, number).standing() == "whole"
