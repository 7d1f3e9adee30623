"""A ledger with years of rows, made fast: by the database itself, from a list of nights and one of detectors.

    from ledger_rows import fill
    fill(url, files=10_000_000)

Earlier nights have images, sources, detectors and files; the last one has also events, attempts and
deliveries, as the services would have written them.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

from raftwright.camera import camera as find_camera
from raftwright.ledger import open_ledger
from raftwright.ledger.database import Transaction

__all__ = ["fill", "last_night"]

_FIRST_DAY = datetime.date(2025, 1, 1)
_IMAGES_A_NIGHT = 1000


def fill(
    url: str,
    files: int = 10_000_000,
    *,
    camera: str = "LSSTCam",
    root: str = "/archive",
    images_a_night: int = _IMAGES_A_NIGHT,
    last: datetime.date | None = None,
    story: bool = True,
) -> list[int]:
    """Fills an empty ledger with nights of whole images, until there are so many raw files; the days.

    Every 500th image is incomplete: its first source has no files. `last` is the last night.
    """
    model = find_camera(camera)
    boards = [(board.location, board.kind) for board in model.boards.values()]
    detectors = [
        (detector.name, board.location) for board in model.boards.values() for detector in board.detectors
    ]
    images = max(1, files // len(detectors))
    nights = -(-images // images_a_night)
    first = _FIRST_DAY if last is None else last - datetime.timedelta(days=nights - 1)
    days: list[int] = []
    with open_ledger(url, busy=600.0) as ledger:

        def tables(transaction: Transaction) -> None:
            transaction.run("CREATE TABLE bench_board (location TEXT, kind TEXT)")
            transaction.run("CREATE TABLE bench_detector (detector TEXT, location TEXT)")
            transaction.insert("bench_board", ("location", "kind"), boards)
            transaction.insert("bench_detector", ("detector", "location"), detectors)

        ledger.database.change(tables)
        for night in range(nights):
            day = int((first + datetime.timedelta(days=night)).strftime("%Y%m%d"))
            days.append(day)
            count = min(images_a_night, images - night * images_a_night)
            begin = 1.7e9 + 86400.0 * night
            tell = story and night == nights - 1
            ledger.database.change(
                lambda transaction, day=day, count=count, begin=begin, tell=tell: _night(
                    transaction,
                    model.code,
                    model.name,
                    day,
                    count,
                    begin,
                    len(boards),
                    len(detectors),
                    root,
                    tell,
                )
            )
        ledger.database.change(
            lambda transaction: [
                transaction.run(f"DROP TABLE bench_{name}") for name in ("board", "detector")
            ]
        )
    return days


def last_night(days: Sequence[int]) -> int:
    """The one that has everything."""
    return days[-1]


def _night(
    transaction: Transaction,
    code: str,
    camera: str,
    day: int,
    count: int,
    begin: float,
    boards: int,
    detectors: int,
    root: str,
    tell: bool,
) -> None:
    rows: list[tuple[Any, ...]] = []
    for number in range(1, count + 1):
        moment = begin + 34.0 * number
        short = number % 500 == 0
        rows.append(
            (
                *(
                    f"{code}_O_{day}_{number:06d}",
                    f"{day}{number:05d}",
                    camera,
                    camera,
                    "raw",
                    day,
                    number,
                    "O",
                ),
                *(day * 100_000 + number, "incomplete" if short else "complete"),
                *("3 detectors are not whole" if short else "", "complete", boards, detectors),
                *(moment, moment, moment + 30, moment + 32, moment + 31, moment + 33),
                *(None if short else moment + 33, "OBJECT", 30.0, "r_57", "M 51", "g", 202.4, 47.2),
            )
        )
    columns = (
        *(
            "obsid",
            "daq_id",
            "camera",
            "instrument",
            "folder",
            "dayobs",
            "seqnum",
            "controller",
            "exposure_id",
        ),
        *(
            "state",
            "reason",
            "header_state",
            "expected_sources",
            "expected_detectors",
            "trigger_tai",
            "begin_tai",
        ),
        *("end_tai", "end_readout_tai", "announced_tai", "settled_tai", "complete_tai", "image_type"),
        *("exposure_time", "physical_filter", "target", "group_id", "ra", "dec"),
    )
    transaction.insert("image", columns, rows)
    short = "(image.seqnum % 500 = 0 AND each.location = (SELECT min(location) FROM bench_board))"
    tonight = f"FROM image CROSS JOIN bench_{{}} AS each WHERE image.dayobs = {int(day)}"
    order = "ORDER BY image.id, each.{}"
    transaction.run(
        "INSERT INTO source (image_id, location, kind, state, reason, expected, received, attempts, owner)"
        f" SELECT image.id, each.location, each.kind, CASE WHEN {short} THEN 'failed' ELSE 'done' END,"
        f" CASE WHEN {short} THEN 'no answer' ELSE '' END, 230000000, 230000000, 1, 'bench:1:00'"
        f" {tonight.format('board')} {order.format('location')}"
    )
    transaction.run(
        "INSERT INTO detector (image_id, detector, location, purpose, state)"
        " SELECT image.id, each.detector, each.location, 'SCIENCE',"
        f" CASE WHEN {short} THEN 'expected' ELSE 'present' END"
        f" {tonight.format('detector')} {order.format('detector')}"
    )
    name = "image.obsid || '_' || each.detector || '.fits'"
    path = f"'{root}/' || image.dayobs || '/' || image.obsid || '/' || {name}"
    crc = "'0badcafe'"
    transaction.run(
        "INSERT INTO file (image_id, kind, detector, location, path, bytes, adler32, crc32c, status,"
        f" written_tai, verified_tai) SELECT image.id, 'raw', each.detector, each.location, {path}, 14000000,"
        f" '00000001', {crc}, 'written', image.end_tai + 1.5, image.end_tai + 2"
        f" {tonight.format('detector')} AND NOT {short} {order.format('detector')}"
    )
    if not tell:
        return
    event = (
        "INSERT INTO event (at_tai, image_id, obsid, dayobs, thing, subject, old, new, owner, detail) SELECT "
    )
    image = "image.id, image.obsid, image.dayobs"
    owner = "'bench:1:00'"
    transaction.run(
        f"{event} image.announced_tai, {image}, 'image', image.obsid, '', 'announced', {owner}, '{{}}'"
        f" FROM image WHERE image.dayobs = {int(day)}"
    )
    for shift, old, new in ((0.1, "expected", "claimed"), (2.0, "claimed", "done")):
        transaction.run(
            f"{event} image.end_tai + {shift}, {image}, 'source', each.location, '{old}', '{new}', {owner},"
            f" '{{\"attempt\":1}}' {tonight.format('board')} {order.format('location')}"
        )
    transaction.run(
        f"{event} image.end_tai + 2, {image}, 'file', {path}, '', 'written', {owner},"
        f" '{{\"version\":1}}' {tonight.format('detector')} AND NOT {short} {order.format('detector')}"
    )
    transaction.run(
        f"{event} image.end_tai + 2, {image}, 'detector', each.detector, 'expected', 'present', {owner},"
        f" '{{}}' {tonight.format('detector')} AND NOT {short} {order.format('detector')}"
    )
    transaction.run(
        f"{event} image.settled_tai, {image}, 'image', image.obsid, 'capturing', image.state, {owner}, '{{}}'"
        f" FROM image WHERE image.dayobs = {int(day)}"
    )
    transaction.run(
        "INSERT INTO attempt (image_id, thing, subject, number, owner, began_tai, ended_tai, outcome, bytes)"
        f" SELECT image.id, 'source', each.location, 1, {owner}, image.end_tai, image.end_tai + 2, 'done',"
        f" 230000000 {tonight.format('board')} {order.format('location')}"
    )
    transaction.run(
        "INSERT INTO delivery (image_id, destination, path, target, bytes, crc32c, state, attempts, owner,"
        f" queued_tai, delivered_tai) SELECT image.id, 'oods', {path}, '', 14000000, {crc}, 'delivered', 1,"
        f" {owner}, image.end_tai + 2, image.end_tai + 3 {tonight.format('detector')} AND NOT {short}"
        f" {order.format('detector')}"
    )
