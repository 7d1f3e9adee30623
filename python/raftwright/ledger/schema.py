"""The tables of the ledger, version 4: the one definition, for SQLite and PostgreSQL.

Migrations (`raftwright.ledger.migrations`) lead to it, and `ddl/*.sql` are printed from it, so that a new
ledger is made without SQLAlchemy; tests compare all three.

Columns `*_tai` are seconds since 1970-01-01T00:00:00 TAI. `dayobs` is that of the image name. Nothing but
`owner`, `role`, `early` and `tag` is ever deleted; `event` is only appended to.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from raftwright.ledger.states import EDGES

__all__ = ["VIEWS", "metadata"]

metadata = MetaData()

# Tables whose rows are changed soon after they are made leave room for that in their pages (fillfactor).

_Key = BigInteger().with_variant(Integer, "sqlite")


def _state(thing: str, default: str) -> Column[str]:
    states = ", ".join(f"'{state}'" for state in EDGES[thing])
    return Column(
        "state",
        String,
        CheckConstraint(f"state IN ({states})", name=f"{thing}_state_is_known"),
        nullable=False,
        server_default=default,
    )


def _image_id(*, primary_key: bool = False) -> Column[int]:
    """Without a foreign key: images stay for ever, and to look that up for every row would be a third of all
    work. `raftwright ledger check` does it."""
    return Column("image_id", _Key, primary_key=primary_key, nullable=False)


image = Table(
    "image",
    metadata,
    Column("id", _Key, primary_key=True),
    Column("obsid", String, nullable=False),
    # The same name under another id of the DAQ is another image.
    Column("daq_id", String, nullable=False),
    Column("camera", String, nullable=False),
    Column("instrument", String, nullable=False),
    Column("folder", String, nullable=False, server_default=""),
    Column("dayobs", Integer, nullable=False),
    Column("seqnum", Integer, nullable=False),
    Column("controller", String, nullable=False),
    # YYYYMMDDnnnnn, as the Gen3 exposure dimension has it.
    Column("exposure_id", BigInteger, nullable=False),
    _state("image", "announced"),
    Column("reason", Text, nullable=False, server_default=""),
    Column("header_state", String, nullable=False, server_default="expected"),
    Column("expected_sources", Integer, nullable=False, server_default="0"),
    Column("expected_detectors", Integer, nullable=False, server_default="0"),
    Column("trigger_tai", Float),
    Column("begin_tai", Float),
    Column("end_tai", Float),
    Column("end_readout_tai", Float),
    Column("announced_tai", Float, nullable=False),
    Column("settled_tai", Float),  # when it became complete, incomplete or lost
    Column("complete_tai", Float),
    # From the header, where there is one.
    Column("image_type", String),
    Column("exposure_time", Float),
    Column("physical_filter", String),
    Column("target", String),
    Column("group_id", String),
    Column("ra", Float),
    Column("dec", Float),
    Column("cur_index", Integer),  # CURINDEX: which exposure of its group it is, from 1 on
    UniqueConstraint("obsid", "daq_id"),
    Index("image_night", "dayobs", "state"),
    Index("image_unsettled", "state", "announced_tai"),
    Index("image_group", "group_id"),
)

source = Table(
    "source",
    metadata,
    _image_id(primary_key=True),
    Column("location", String, primary_key=True),
    Column("kind", String, nullable=False, server_default=""),
    _state("source", "expected"),
    Column("reason", Text, nullable=False, server_default=""),
    Column("expected", BigInteger, nullable=False),
    Column("received", BigInteger, nullable=False, server_default="0"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("owner", String, nullable=False, server_default=""),
    Column("created", BigInteger, nullable=False, server_default="0"),
    Column("next_try", Float, nullable=False, server_default="0"),
    Index("source_state", "state", "next_try"),
    sqlite_with_rowid=False,
    postgresql_with={"fillfactor": 75},
)

detector = Table(
    "detector",
    metadata,
    _image_id(primary_key=True),
    Column("detector", String, primary_key=True),  # R22_S11
    Column("location", String, nullable=False),
    Column("purpose", String, nullable=False),  # SCIENCE, GUIDER, as the manifest has it
    _state("detector", "expected"),
    Column("reason", Text, nullable=False, server_default=""),
    Column("missing_pixels", BigInteger, nullable=False, server_default="0"),
    sqlite_with_rowid=False,
    postgresql_with={"fillfactor": 75},
)

file = Table(
    "file",
    metadata,
    Column("id", _Key, primary_key=True),
    _image_id(),
    # raw, sidecar, manifest, header; container: one file with all of these.
    Column("kind", String, nullable=False, server_default="raw"),
    Column("detector", String, nullable=False, server_default=""),
    Column("location", String, nullable=False, server_default=""),
    Column("version", Integer, nullable=False, server_default="1"),
    Column("path", String, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("adler32", String, nullable=False, server_default=""),
    Column("crc32c", String, nullable=False),
    Column("missing", BigInteger, nullable=False, server_default="0"),
    # written, unchanged, kept, conflict; lost: it is not there any more, damaged: its sums do not hold.
    Column("status", String, nullable=False),
    Column("replaces", String, nullable=False, server_default=""),
    Column("replaced_by", String, nullable=False, server_default=""),
    Column("written_tai", Float, nullable=False),
    Column("verified_tai", Float),
    UniqueConstraint("path"),
    Index("file_image", "image_id", "detector"),
    postgresql_with={"fillfactor": 75},
)

# What is in a container, with the sum that it has there. Never changed: a name has one content.
member = Table(
    "member",
    metadata,
    Column("container_id", _Key, primary_key=True),  # a file of the kind container
    Column("file_id", _Key, primary_key=True),
    Column("bytes", BigInteger, nullable=False),
    Column("crc32c", String, nullable=False),
    Index("member_file", "file_id"),
    sqlite_with_rowid=False,
)

header = Table(
    "header",
    metadata,
    Column("id", _Key, primary_key=True),
    # A header may come before the DAQ tells of the image, or without it.
    Column("obsid", String, nullable=False),
    Column("version", Integer, nullable=False),
    Column("state", String, nullable=False),  # partial, complete
    Column("path", String, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("crc32c", String, nullable=False),
    Column("md5", String, nullable=False, server_default=""),
    Column("problems", Text, nullable=False, server_default="[]"),  # JSON list of sentences
    Column("made_tai", Float, nullable=False),
    UniqueConstraint("obsid", "version"),
)

delivery = Table(
    "delivery",
    metadata,
    Column("id", _Key, primary_key=True),
    _image_id(),
    Column("destination", String, nullable=False),
    # What is delivered: a file of the image, or a command that is run (destination `command:<name>`).
    Column("path", String, nullable=False),
    Column("target", String, nullable=False, server_default=""),
    Column("bytes", BigInteger, nullable=False, server_default="0"),
    Column("crc32c", String, nullable=False, server_default=""),
    Column("priority", Integer, nullable=False, server_default="0"),  # lower goes first
    Column("rank", Integer, nullable=False, server_default="0"),  # within an image: manifest, sidecar, raw
    _state("delivery", "queued"),
    Column("reason", Text, nullable=False, server_default=""),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("owner", String, nullable=False, server_default=""),
    Column("next_try", Float, nullable=False, server_default="0"),
    Column("queued_tai", Float, nullable=False),
    Column("delivered_tai", Float),
    Column("began_tai", Float),  # of `sending`: when this try began
    UniqueConstraint("image_id", "destination", "path", "crc32c"),
    # What has arrived is not in it: the queue stays short however long the history is.
    Index(
        "delivery_queue",
        *("destination", "state", "priority", "image_id", "rank"),
        sqlite_where=text("state <> 'delivered'"),
        postgresql_where=text("state <> 'delivered'"),
    ),
    postgresql_with={"fillfactor": 75},
)

attempt = Table(
    "attempt",
    metadata,
    Column("id", _Key, primary_key=True),
    _image_id(),
    Column("thing", String, nullable=False),  # source, delivery
    Column("subject", String, nullable=False),  # a location, or destination and path
    Column("number", Integer, nullable=False),
    Column("owner", String, nullable=False),
    Column("began_tai", Float, nullable=False),
    Column("ended_tai", Float),
    Column("outcome", String, nullable=False, server_default=""),
    Column("reason", Text, nullable=False, server_default=""),
    Column("bytes", BigInteger, nullable=False, server_default="0"),
    Index("attempt_image", "image_id", "subject", "number"),
    postgresql_with={"fillfactor": 70},
)

owner = Table(
    "owner",
    metadata,
    Column("name", String, primary_key=True),
    Column("host", String, nullable=False),
    Column("boot", String, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("started", BigInteger, nullable=False),
    # On one machine by the clock since boot, beyond it by the database's.
    Column("renewed", Float, nullable=False),
)

role = Table(
    "role",
    metadata,
    Column("name", String, primary_key=True),  # archiver:LSSTComCam
    Column("owner", String, nullable=False),
    Column("since_tai", Float, nullable=False),
)

event = Table(
    "event",
    metadata,
    Column("number", _Key, primary_key=True),
    Column("at_tai", Float, nullable=False),
    Column("image_id", _Key),
    Column("obsid", String, nullable=False, server_default=""),
    Column("dayobs", Integer, nullable=False, server_default="0"),
    # image, source, detector, file, header, delivery, replica, ingest, tag, quarantine, role
    Column("thing", String, nullable=False),
    Column("subject", String, nullable=False, server_default=""),
    Column("old", String, nullable=False, server_default=""),
    Column("new", String, nullable=False),
    Column("owner", String, nullable=False, server_default=""),
    Column("detail", Text, nullable=False, server_default="{}"),
    Index("event_image", "image_id"),
    Index("event_night", "dayobs", "thing"),
    sqlite_autoincrement=True,
)

cursor = Table(
    "cursor",
    metadata,
    Column("name", String, primary_key=True),
    Column("number", BigInteger, nullable=False),
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("id", _Key, primary_key=True),
    Column("what", String, nullable=False),  # image, file, header, message
    Column("name_hex", String, nullable=False),
    Column("shown", String, nullable=False),
    Column("reason", Text, nullable=False),
    Column("first_tai", Float, nullable=False),
    Column("last_tai", Float, nullable=False),
    Column("count", BigInteger, nullable=False, server_default="1"),
    Column("standing", String, nullable=False, server_default="aside"),  # aside, again, settled
    UniqueConstraint("what", "name_hex"),
    Index(
        "quarantine_again",
        *("what",),
        sqlite_where=text("standing = 'again'"),
        postgresql_where=text("standing = 'again'"),
    ),
)

# What was told of an image before the DAQ announced it: taken over when it does.
early = Table(
    "early",
    metadata,
    Column("obsid", String, primary_key=True),
    Column("facts", Text, nullable=False),  # JSON: columns of image
    Column("told_tai", Float, nullable=False),
)

# A copy of a file at an endpoint, verified there. Its queue is `delivery`, destination `endpoint:<name>`.
replica = Table(
    "replica",
    metadata,
    Column("id", _Key, primary_key=True),
    _image_id(),
    Column("file_id", _Key, nullable=False),
    Column("endpoint", String, nullable=False),
    Column("target", String, nullable=False),  # its name there
    Column("bytes", BigInteger, nullable=False),
    Column("crc32c", String, nullable=False),
    Column("adler32", String, nullable=False, server_default=""),
    _state("replica", "verified"),
    Column("reason", Text, nullable=False, server_default=""),
    Column("custodial", Integer, nullable=False, server_default="0"),  # 1: nobody can change it there
    Column("verified_tai", Float, nullable=False),  # when it was first found there as it should be
    Column("checked_tai", Float, nullable=False),  # when it was last read there
    UniqueConstraint("file_id", "endpoint"),
    Index("replica_scrub", "endpoint", "state", "checked_tai"),
    Index("replica_image", "image_id"),
    Index(
        "replica_spoilt",
        *("endpoint", "state"),
        sqlite_where=text("state <> 'verified'"),
        postgresql_where=text("state <> 'verified'"),
    ),
    postgresql_with={"fillfactor": 75},
)

_UNDER_WAY = text("state NOT IN ('ingested', 'removed')")
_GOES_FIRST = text("state = 'ingested' AND pinned = 0")

# A file that belongs into a Butler repository, and what came of it.
ingest = Table(
    "ingest",
    metadata,
    Column("id", _Key, primary_key=True),
    _image_id(),  # 0: of no image
    Column("file_id", _Key, nullable=False, server_default="0"),  # 0: none of the ledger's
    Column("repository", String, nullable=False),
    Column("path", String, nullable=False),
    Column("uri", Text, nullable=False, server_default=""),  # where it is in the repository
    Column("detector", String, nullable=False, server_default=""),
    Column("kind", String, nullable=False, server_default="raw"),  # raw, guider
    Column("crc32c", String, nullable=False, server_default=""),
    Column("bytes", BigInteger, nullable=False, server_default="0"),
    Column("priority", Integer, nullable=False, server_default="0"),  # lower goes first
    _state("ingest", "queued"),
    Column("reason", Text, nullable=False, server_default=""),
    Column("code", Integer, nullable=False, server_default="0"),  # as imageInOODS tells it
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("owner", String, nullable=False, server_default=""),
    Column("next_try", Float, nullable=False, server_default="0"),  # of `waiting`: until when
    Column("dataset_id", String, nullable=False, server_default=""),
    Column("run", String, nullable=False, server_default=""),
    Column("dataset_type", String, nullable=False, server_default=""),
    Column("pinned", Integer, nullable=False, server_default="0"),
    Column("queued_tai", Float, nullable=False),
    Column("ingested_tai", Float),
    Column("observed_tai", Float, nullable=False),
    Column("removed_tai", Float),
    Column("stored", Text, nullable=False, server_default=""),  # of an object: tag and sums of the store
    UniqueConstraint("repository", "path", "crc32c"),
    # What is done is not in it: the queue stays short however long the history is.
    Index(
        "ingest_queue",
        *("repository", "state", "priority", "image_id"),
        sqlite_where=_UNDER_WAY,
        postgresql_where=_UNDER_WAY,
    ),
    Index(
        "ingest_observed",
        *("repository", "observed_tai"),
        sqlite_where=_GOES_FIRST,
        postgresql_where=_GOES_FIRST,
    ),
    Index("ingest_age", "repository", "state", "pinned", "ingested_tai"),
    # Counts of many images are had from it alone.
    Index("ingest_image", "image_id", "detector", "repository", "state"),
    postgresql_with={"fillfactor": 75},
)

# What people want kept, under a name: an image, or a detector of it.
tag = Table(
    "tag",
    metadata,
    _image_id(primary_key=True),
    Column("detector", String, primary_key=True, server_default=""),  # empty: all of them
    Column("name", String, primary_key=True),
    Column("reason", Text, nullable=False, server_default=""),
    Column("tagged_tai", Float, nullable=False),
    Index("tag_name", "name"),
    sqlite_with_rowid=False,
)

information = Table(
    "information",
    metadata,
    Column("name", String, primary_key=True),
    Column("value", String, nullable=False),
)

# Columns as the exposure dimension of a Gen3 repository names them; times as MJD, TAI.
_MJD = "({} / 86400.0 + 40587.0)"
VIEWS: Final[dict[str, str]] = {
    "exposure": f"""
SELECT instrument, exposure_id AS id, obsid AS obs_id, dayobs AS day_obs, seqnum AS seq_num,
    group_id AS "group", image_type AS observation_type, exposure_time, physical_filter,
    target AS target_name, ra AS tracking_ra, dec AS tracking_dec,
    {_MJD.format("begin_tai")} AS begin_mjd_tai, {_MJD.format("end_tai")} AS end_mjd_tai,
    state, header_state, expected_detectors, id AS image_id
FROM image""",
    "obscore": f"""
SELECT 'image' AS dataproduct_type, 1 AS calib_level, image.instrument AS instrument_name,
    image.obsid AS obs_id, image.exposure_id AS lsst_exposure, file.detector AS lsst_detector,
    'file://' || file.path AS access_url, 'image/fits' AS access_format,
    file.bytes / 1000 AS access_estsize, image.target AS target_name, image.ra AS s_ra,
    image.dec AS s_dec, {_MJD.format("image.begin_tai")} AS t_min, {_MJD.format("image.end_tai")} AS t_max,
    image.exposure_time AS t_exptime, image.physical_filter AS lsst_filter, image.dayobs AS day_obs
FROM file JOIN image ON image.id = file.image_id
WHERE file.kind = 'raw' AND file.status NOT IN ('conflict', 'lost', 'damaged', 'removed')
    AND file.replaced_by = ''""",
    "night": """
SELECT dayobs AS day_obs, instrument, count(*) AS images,
    sum(CASE WHEN state = 'complete' THEN 1 ELSE 0 END) AS complete,
    sum(CASE WHEN state = 'incomplete' THEN 1 ELSE 0 END) AS incomplete,
    sum(CASE WHEN state = 'lost' THEN 1 ELSE 0 END) AS lost,
    sum(CASE WHEN state IN ('announced', 'capturing') THEN 1 ELSE 0 END) AS waiting
FROM image GROUP BY dayobs, instrument""",
}
"""Views: name and query. Both databases take them."""
