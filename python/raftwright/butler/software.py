"""The Butler's own software, which an extra brings: imported in one place, so that whoever lacks it is told
how to get it."""

from __future__ import annotations

from raftwright.errors import MissingExtraError

try:
    from lsst.daf.butler import (  # type: ignore[attr-defined]
        Butler,
        CollectionType,
        Config,
        DataCoordinate,
        DatasetIdGenEnum,
        DatasetRef,
        DatasetType,
        DimensionRecord,
        FileDataset,
        FormatterV2,
        MissingDatasetTypeError,
        Timespan,
    )
    from lsst.daf.butler.registry import ConflictingDefinitionError
    from lsst.resources import ResourcePath
    from sqlalchemy.engine import URL, make_url
    from sqlalchemy.event import listen
    from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, SQLAlchemyError
except ImportError as error:  # pragma: no cover - the test environment has it
    raise MissingExtraError(
        "a Butler repository needs lsst-daf-butler; install it with `pip install 'raftwright[butler]'`"
    ) from error

__all__ = [
    "URL",
    "ArgumentError",
    "Butler",
    "CollectionType",
    "Config",
    "ConflictingDefinitionError",
    "DBAPIError",
    "DataCoordinate",
    "DatasetIdGenEnum",
    "DatasetRef",
    "DatasetType",
    "DimensionRecord",
    "FileDataset",
    "FormatterV2",
    "IntegrityError",
    "MissingDatasetTypeError",
    "ResourcePath",
    "SQLAlchemyError",
    "Timespan",
    "listen",
    "make_url",
]
