"""A repository made: configuration, tables, instruments, detectors, dataset types, collections."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

import msgspec

from raftwright.butler.reading import PARAMETERS
from raftwright.butler.records import camera_records
from raftwright.butler.repository import FORMAT, SHEET, Entry, Repository, Sheet, open_repository, read_sheet
from raftwright.butler.software import (
    URL,
    ArgumentError,
    Butler,
    CollectionType,
    Config,
    ResourcePath,
    make_url,
)
from raftwright.butler.troubles import storage_error
from raftwright.camera import camera as find_camera
from raftwright.camera import camera_names
from raftwright.errors import NotFoundError, StorageError, UsageError
from raftwright.rawfile.names import check_path

if TYPE_CHECKING:
    from raftwright.camera import Camera

__all__ = ["DEFAULT_CAMERAS", "make_repository"]

DEFAULT_CAMERAS: Final = ("LATISS", "LSSTComCam", "LSSTCam")
_CONFIGURATION: Final = "butler.yaml"
_DATABASE: Final = "gen3.sqlite3"
_ASIDE: Final = "making-"


def make_repository(
    root: str | os.PathLike[str],
    *,
    db_url: str | None = None,
    namespace: str | None = None,
    cameras: Sequence[str | os.PathLike[str]] = (),
    raw: str = "{instrument}/raw/all",
    guider: str = "{instrument}/raw/guider",
    chain: str = "{instrument}/defaults",
) -> Repository:
    """Makes a repository, or completes one that is there: what is there already stays as it is.

    Parameters
    ----------
    root
        Directory; made if need be.
    db_url
        Registry: `postgresql://user@host/database` (the password is the environment's to know: `~/.pgpass`,
        `PGPASSWORD`); SQLite in `root` by default.
    namespace
        Schema of the registry in PostgreSQL.
    cameras
        Names or camera files; those of the observatory by default.
    raw, guider, chain
        Names of the collections, with `{instrument}` in them.

    Raises
    ------
    UsageError, NotFoundError, CameraError, StorageError, FormatError
    """
    place = os.path.abspath(os.fspath(root))
    chosen = {camera.name: camera for camera in map(find_camera, cameras or DEFAULT_CAMERAS)}
    for pattern in (raw, guider, chain):
        _check_pattern(pattern)
    _check_codes(chosen.values())
    url = _registry_url(db_url)
    check_path(place)
    if "?" in place or unquote(place) != place:
        raise UsageError(
            f"{place}: a Butler misreads `?`, and `%` with two digits; name the directory otherwise"
        )
    try:
        os.makedirs(place, exist_ok=True)
    except OSError as error:
        raise StorageError(error.errno, f"cannot be made: {error.strerror}", place) from error
    with _alone(place):
        for left in Path(place).glob(f"{_ASIDE}*"):  # by one that was killed
            shutil.rmtree(left, ignore_errors=True)
        if not Path(place, _CONFIGURATION).exists():
            _create(place, url, namespace)
        elif url is not None:
            _check_same(place, url)
        try:
            sheet = read_sheet(place)
        except NotFoundError:
            sheet = Sheet(FORMAT, (), raw, guider, chain)
        _write_sheet(place, _with_cameras(place, sheet, chosen, cameras))
        repository = open_repository(place, writeable=True)
        try:
            with repository.writing("set up"):
                _fill(repository)
        except BaseException:
            repository.close()
            raise
    return repository


def _check_pattern(pattern: str) -> None:
    try:
        made = pattern.format(instrument="LSSTCam")
    except (KeyError, IndexError, ValueError):
        made = ""
    if "LSSTCam" not in made or not all(c.isalnum() or c in "/_-." for c in made):
        raise UsageError(
            f"{pattern[:60]!r} is no name of collections; write it with {{instrument}}, as in "
            "{instrument}/raw/all"
        )


def _check_codes(cameras: Iterable[Camera]) -> None:
    seen: dict[str, str] = {}
    for camera in cameras:
        if camera.code in seen:
            raise UsageError(
                f"{camera.name} and {seen[camera.code]} both name their images {camera.code}_…; "
                "one repository has one of them"
            )
        seen[camera.code] = camera.name


def _registry_url(text: str | None) -> URL | None:
    if text is None:
        return None
    try:
        url = make_url(text)
    except ArgumentError:
        raise UsageError("the registry is no URL; write postgresql://user@host/database") from None
    if url.get_backend_name() == "sqlite":
        raise UsageError("a registry in SQLite is in the repository itself; leave the URL out")
    if url.get_backend_name() != "postgresql":
        raise UsageError(
            f"a registry is in SQLite or PostgreSQL, not in {url.get_backend_name()[:20]}; "
            "write postgresql://user@host/database"
        )
    if url.password is not None:
        raise UsageError(
            "the registry's URL would be readable for everybody with its password; "
            "put that into ~/.pgpass or PGPASSWORD"
        )
    return url.set(drivername="postgresql+psycopg2")


@contextlib.contextmanager
def _alone(place: str) -> Iterator[None]:
    """Of several that set up one directory, one does, and the others find it done."""
    try:
        number = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise StorageError(error.errno, f"cannot be opened: {error.strerror}", place) from error
    try:
        fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)


def _create(place: str, url: URL | None, namespace: str | None) -> None:
    """Tables and configuration, made aside and put in place when they are whole, the configuration last."""
    if url is not None:
        _prepare_postgres(url)
    try:
        aside = tempfile.mkdtemp(prefix=_ASIDE, dir=place)
    except OSError as error:
        raise StorageError(error.errno, f"cannot be written: {error.strerror}", place) from error
    try:
        Butler.makeRepo(ResourcePath(aside, forceDirectory=True), _configuration(url, namespace))
        database = Path(aside, _DATABASE)
        if database.exists() and not Path(place, _DATABASE).exists():
            database.rename(Path(place, _DATABASE))
        Path(aside, _CONFIGURATION).rename(Path(place, _CONFIGURATION))
    except OSError as error:
        raise StorageError(error.errno or errno.EIO, f"cannot be made: {error}", place) from error
    except Exception as error:
        raise storage_error(error, place, "made") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _configuration(url: URL | None, namespace: str | None) -> Config:
    config = Config()
    config["datastore", "root"] = "<butlerRoot>"
    classes = {
        "RaftwrightHeader": {"pytype": "raftwright.rawfile.header.Header"},
        "RaftwrightSegments": {"pytype": "dict"},
        "RaftwrightPixels": {"pytype": "numpy.ndarray"},
        "RaftwrightStamps": {"pytype": "tuple"},
        "RaftwrightGuiderHeader": {"pytype": "astropy.io.fits.Header"},
        "RaftwrightRaw": {
            "pytype": "raftwright.butler.reading.Raw",
            "derivedComponents": {
                "header": "RaftwrightHeader",
                "segments": "RaftwrightSegments",
                "segment": "RaftwrightPixels",
                "mosaic": "RaftwrightPixels",
            },
            "parameters": list(PARAMETERS),
        },
        "RaftwrightGuider": {
            "pytype": "raftwright.butler.reading.GuiderStamps",
            "derivedComponents": {"header": "RaftwrightGuiderHeader", "stamps": "RaftwrightStamps"},
        },
    }
    for name, content in classes.items():
        config["storageClasses", name] = content
    config["datastore", "formatters"] = {
        "RaftwrightRaw": "raftwright.butler.formatter.RawFormatter",
        "RaftwrightGuider": "raftwright.butler.formatter.GuiderFormatter",
    }
    if url is not None:
        config["registry", "db"] = url.render_as_string(hide_password=False)
        if namespace is not None:
            config["registry", "namespace"] = namespace
    return config


def _prepare_postgres(url: URL) -> None:
    """The extension that registries need, which only some users may create."""
    import psycopg2  # type: ignore[import-untyped]

    try:
        connection = psycopg2.connect(
            url.set(drivername="postgresql").render_as_string(hide_password=False), connect_timeout=10
        )
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute("CREATE EXTENSION IF NOT EXISTS btree_gist")
        finally:
            connection.close()
    except psycopg2.Error as error:
        said = " ".join(str(error).split())[:200]
        where = url.render_as_string()
        if "btree_gist" in said or getattr(error, "pgcode", None) == "42501":
            raise StorageError(
                errno.EACCES,
                f"lacks the extension btree_gist ({said}); have an administrator run "
                "CREATE EXTENSION btree_gist in it",
                where,
            ) from error
        raise StorageError(
            errno.ECONNREFUSED, f"cannot be reached ({said}); look after its server", where
        ) from error


def _check_same(place: str, url: URL) -> None:
    text = str(Config(str(Path(place, _CONFIGURATION)))["registry", "db"])
    if text != url.render_as_string(hide_password=False):
        raise UsageError(
            f"{place}: has its registry in {text.partition('?')[0]} already; "
            "leave the URL out, or name another directory"
        )


def _with_cameras(
    place: str, sheet: Sheet, chosen: dict[str, Camera], given: Sequence[str | os.PathLike[str]]
) -> Sheet:
    """The sheet with some cameras more; camera files are kept in the repository, for whoever reads later."""
    files = {find_camera(each).name: os.fspath(each) for each in given if find_camera(each).name in chosen}
    entries = {entry.name: entry for entry in sheet.cameras}
    for name in chosen:
        if name in entries and not entries[name].file and name in camera_names():
            continue
        path = files.get(name)
        if path is None or path in camera_names():
            entries[name] = Entry(name)
            continue
        kept = Path("cameras", f"{name}.yaml")
        _write(Path(place, kept), Path(path).read_bytes())
        entries[name] = Entry(name, str(kept))
    _check_codes([find_camera(Path(place, e.file) if e.file else e.name) for e in entries.values()])
    return msgspec.structs.replace(sheet, cameras=tuple(entries.values()))


def _write_sheet(place: str, sheet: Sheet) -> None:
    content = msgspec.json.format(msgspec.json.encode(sheet), indent=2) + b"\n"
    path = Path(place, SHEET)
    if not path.exists() or path.read_bytes() != content:
        _write(path, content)


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        with aside.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(path)
    except OSError as error:
        raise StorageError(error.errno, f"cannot be written: {error.strerror}", str(path)) from error


def _fill(repository: Repository) -> None:
    registry = repository.butler.registry
    collections = repository.butler.collections
    for kind in repository.types.values():
        registry.registerDatasetType(kind)
    for camera in repository.cameras:
        for element, records in camera_records(camera).items():
            registry.insertDimensionData(element, *records, skip_existing=True)
        runs = [repository.run_of("raw", camera.name), repository.run_of("guider", camera.name)]
        for run in runs:
            collections.register(run, CollectionType.RUN)
        chain = repository.chain_of(camera.name)
        if collections.register(chain, CollectionType.CHAINED):
            collections.redefine_chain(chain, runs)
