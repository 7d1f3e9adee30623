"""Registration in Rucio: replicas, datasets of exposures, rules; each step may be taken again.

    files ─▶ add_replicas ─▶ dataset of the exposure (500 files at most) ─▶ rules ─▶ closed when complete

The server is asked what it has before anything is added: it would take a known name with other sums without
a word. What concerns all files (no connection, no permission, read-only) is an OutageError.
"""

from __future__ import annotations

import datetime
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import Meta

from raftwright.backbone.rucio_naming import DATASET, check_name
from raftwright.errors import FormatError, MissingExtraError
from raftwright.service.units import Period, Seconds
from raftwright.transfer.outcome import OutageError, RefusedError
from raftwright.transfer.words import words_of

__all__ = ["Entry", "Pending", "Registered", "Registrar", "RucioSettings", "Rule"]

_log = logging.getLogger("raftwright.rucio")
_quiet = logging.getLogger("raftwright.rucio.client")
_quiet.setLevel(logging.CRITICAL)  # what it has to say is in its exceptions

T = TypeVar("T")

_Text = Annotated[str, Meta(max_length=1000)]
_MOST_PARTS: Final = 100
_CONCERNS_ALL: Final = (
    *("AccessDenied", "AccountNotFound", "CannotAuthenticate", "CannotAuthorize", "DatabaseException"),
    *("IdentityNotFound", "InsufficientAccountLimit", "InvalidRSEExpression", "InvalidRuleWeight"),
    *("InsufficientTargetRSEs", "MissingClientParameter", "NoAuthInformation", "ConfigNotFound"),
    *("ConfigLoadingError", "ErrorLoadingCredentials", "ReplicationRuleCreationTemporaryFailed"),
    *("ResourceTemporaryUnavailable", "RSEAccessDenied", "RSENotFound", "RSEOverQuota", "RSEWriteBlocked"),
    *("ScopeAccessDenied", "ScopeNotFound", "ServerConnectionException", "ServiceUnavailable"),
    *("ClientProtocolNotFound", "ClientProtocolNotSupported", "RSEProtocolNotSupported"),
)
_ONLY_ASKS: Final = frozenset({"get_did", "get_metadata_bulk", "list_content", "list_replicas", "ping"})
_BROKEN: Final = re.compile(r"no error information passed \(http status code: 5\d\d\)")
"""An answer without a word of what is wrong: the server fails, perhaps at this file alone."""
_OUTAGE: Final = re.compile(
    r"read.?only|status code: 50[234]|OperationalError|database is locked|too many connections|QueuePool",
    re.I,
)
_NEVER: Final = ("InvalidObject", "InvalidPath", "InvalidMetadata", "InputValidationError")


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A replication rule that each dataset gets."""

    rses: Annotated[str, Meta(min_length=1, max_length=1000)]
    """RSE expression."""
    copies: Annotated[int, Meta(ge=1, le=100)] = 1
    lifetime: Seconds = 0.0
    """0: for ever."""
    activity: _Text = ""
    account: _Text = ""
    """That of the client by default."""


class RucioSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is registered, and as what. Who we are stands in Rucio's own configuration (RUCIO_CONFIG,
    RUCIO_HOME, ~/.rucio.cfg) unless `config` names one."""

    rse: Annotated[str, Meta(pattern=r"\A[A-Z0-9]+([_-][A-Z0-9]+)*\Z")]
    """Where the files stand."""
    scope: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_.-]{1,25}\Z")]
    other_scope: Annotated[str, Meta(pattern=r"\A([A-Za-z0-9_.-]{1,25})?\Z")] = ""
    """Scope of files that no Butler takes (sidecars, manifests, guiders). By default the same; apart, those
    who ingest by `transfer-done` do not hear of them."""
    pfn: Annotated[str, Meta(pattern=r"\A[a-z][a-z0-9+]*://\S{0,1000}\Z")]
    """URL of the root of the files at the RSE, `davs://host:443/path`; a name is put behind it."""
    prefix: Annotated[str, Meta(max_length=200)] = ""
    """Put before each name."""
    dataset: Annotated[str, Meta(max_length=200)] = DATASET
    """`{instrument}`, `{dayobs}`, `{obsid}` are filled in. Empty: no datasets, and so no rules."""
    most: Annotated[int, Meta(ge=1, le=10_000)] = 500
    """Files of a dataset; what is more goes into a second, `.2`."""
    chunk: Annotated[int, Meta(ge=1, le=1000)] = 100
    """Files of a request."""
    rules: list[Rule] = []
    md5: bool = False
    """Also told to Rucio; computed while a file is taken in."""
    run: Annotated[str, Meta(max_length=200)] = "{instrument}/raw/all"
    dataset_type: Annotated[str, Meta(max_length=100)] = "raw"
    storage_class: Annotated[str, Meta(max_length=100)] = "Exposure"
    """These three: of the Butler at the far side."""
    camera: str = ""
    """A camera file, where it is no built-in one."""
    config: str = ""
    """Rucio's configuration file; one for the whole process."""
    host: str = ""
    auth_host: str = ""
    account: _Text = ""
    timeout: Period = 60.0
    """Of a request."""
    watch: Period = 600.0
    """Between two looks at the rules."""
    stuck: Period = 6 * 3600.0
    """A rule that is not satisfied for so long is told as a problem."""

    def __post_init__(self) -> None:
        unknown = set(words_of(self.dataset)) - {"instrument", "dayobs", "obsid"}
        if unknown or (self.dataset and "{obsid}" not in self.dataset):
            raise FormatError(
                "dataset: has to have {obsid}, and may have {instrument} and {dayobs}; nothing else"
            )
        if self.prefix and check_name(self.prefix):
            raise FormatError(f"prefix: {check_name(self.prefix)}")
        if self.rules and not self.dataset:
            raise FormatError("rules: are of datasets, and dataset is empty")


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A file as Rucio is to know it."""

    id: int
    scope: str
    name: str
    bytes: int
    adler32: str
    md5: str = ""
    meta: Mapping[str, Any] = {}
    dataset: str = ""
    """Of its exposure; in the scope of the raws."""
    expected: frozenset[tuple[str, str]] | None = None
    """Scopes and names of all files of that exposure, once it is known."""

    @property
    def did(self) -> tuple[str, str]:
        """Scope and name."""
        return self.scope, self.name


class Registered(msgspec.Struct, frozen=True):
    """What became of an entry."""

    id: int
    verdict: Literal["success", "failure", "invalid", "waiting"]
    message: str = ""


class Pending(msgspec.Struct, frozen=True):
    """A rule that is not satisfied."""

    rule: str
    dataset: str
    state: str
    rses: str
    age: float
    """Seconds since it was made."""
    left: int
    """Files that are still to come, or stuck."""
    error: str = ""


class _Part(msgspec.Struct):
    """A dataset as it is at the server."""

    name: str
    open: bool
    files: set[tuple[str, str]]


class Registrar:
    """One client of a Rucio server, for one thread. All it does raises OutageError and RefusedError."""

    def __init__(self, settings: RucioSettings) -> None:
        self.settings = settings
        self._client: Any = None
        self._errors: Any = None
        self._ruled: set[str] = set()
        """Datasets that have their rules."""
        if settings.config:
            os.environ["RUCIO_CONFIG"] = settings.config  # which the clients read when they are imported
        _library()

    # -- files

    def register(self, entries: Sequence[Entry]) -> list[Registered]:
        """Registers files and attaches them to the datasets of their exposures; a result for each."""
        results: dict[int, Registered] = {}
        fit = []
        for entry in entries:
            wrong = check_name(entry.name)
            if wrong:
                results[entry.id] = Registered(entry.id, "invalid", wrong)
            else:
                fit.append(entry)
        for chunk in _parts_of(fit, self.settings.chunk):
            self._add(chunk, results)
        added = [entry for entry in fit if entry.id not in results]
        by_dataset: dict[str, list[Entry]] = {}
        for entry in added:
            by_dataset.setdefault(entry.dataset, []).append(entry)
        for dataset, some in by_dataset.items():
            try:
                if dataset:
                    self._gather(dataset, some)
            except RefusedError as error:
                verdict = _verdict(error)
                results.update({each.id: Registered(each.id, verdict, str(error)) for each in some})
            else:
                results.update({each.id: Registered(each.id, "success") for each in some})
        return [results[entry.id] for entry in entries]

    def _add(self, chunk: Sequence[Entry], results: dict[int, Registered]) -> None:
        """Adds the replicas of a chunk; what did not go into it is in `results`."""
        known = self._known(chunk)
        fit = []
        for entry in chunk:
            wrong = _differs(entry, known.get(entry.did))
            if wrong:
                results[entry.id] = Registered(entry.id, "invalid", f"Rucio has another content: {wrong}")
            else:
                fit.append(entry)
        refused = self._add_some(fit)
        if len(refused) == len(fit) > 1 and not any(one.verdict == "invalid" for one in refused.values()):
            raise OutageError(f"Rucio refuses every file: {next(iter(refused.values())).message}")
        results.update(refused)

    def _add_some(self, entries: Sequence[Entry]) -> dict[int, Registered]:
        """Adds replicas, halving where the server refuses: which ones it refuses, and why."""
        if not entries:
            return {}
        try:
            self._call("add_replicas", self.settings.rse, [self._file(entry) for entry in entries])
        except RefusedError as error:
            if len(entries) == 1:
                number = entries[0].id
                return {number: Registered(number, _verdict(error), str(error))}
            half = len(entries) // 2
            return self._add_some(entries[:half]) | self._add_some(entries[half:])
        return {}

    def _file(self, entry: Entry) -> dict[str, Any]:
        found: dict[str, Any] = {
            "scope": entry.scope,
            "name": entry.name,
            "bytes": entry.bytes,
            "adler32": entry.adler32,
            "pfn": f"{self.settings.pfn.rstrip('/')}/{entry.name}",
        }
        if entry.md5:
            found["md5"] = entry.md5
        if entry.meta:
            found["meta"] = dict(entry.meta)
        return found

    def compare(self, entries: Sequence[Entry]) -> dict[int, str]:
        """What Rucio lacks, or has otherwise, of files that were registered: by the number of the entry."""
        found: dict[int, str] = {}
        for chunk in _parts_of(entries, self.settings.chunk):
            dids = [{"scope": entry.scope, "name": entry.name} for entry in chunk]
            there = {
                (each["scope"], each["name"]): each
                for each in self._list("list_replicas", dids)
                if self.settings.rse in each["rses"]
            }
            for entry in chunk:
                if entry.did not in there:
                    found[entry.id] = f"Rucio knows no replica at {self.settings.rse}"
                elif wrong := _differs(entry, there[entry.did]):
                    found[entry.id] = f"Rucio has another content: {wrong}"
        for dataset in {entry.dataset for entry in entries if entry.dataset}:
            attached = {did for part in self._parts(dataset) for did in part.files}
            for entry in entries:
                if entry.dataset == dataset and entry.did not in attached:
                    found.setdefault(entry.id, f"is not in {dataset}")
        return found

    def _known(self, entries: Iterable[Entry]) -> dict[tuple[str, str], Mapping[str, Any]]:
        dids = [{"scope": entry.scope, "name": entry.name} for entry in entries]
        return {
            (each["scope"], each["name"]): each
            for each in self._list("get_metadata_bulk", dids)
            if "name" in each
        }

    # -- datasets

    def _gather(self, dataset: str, entries: Sequence[Entry]) -> None:
        """The dataset of an exposure has these files, and its rules; it is closed if that makes it
        complete."""
        parts = self._attach(dataset, entries)
        if any(entry.dataset == dataset for entry in entries):
            for part in parts:
                self._rule(part.name)
        expected = next((entry.expected for entry in reversed(entries) if entry.expected is not None), None)
        if expected and expected <= {did for part in parts for did in part.files}:
            for part in parts:
                if part.open:
                    self._close(part)

    def _attach(self, dataset: str, entries: Sequence[Entry]) -> list[_Part]:
        for last in (False, True):
            parts = self._parts(dataset)
            try:
                self._fill(dataset, parts, entries)
            except RefusedError as error:
                if last or type(error.__cause__).__name__ != "UnsupportedOperation":
                    raise
                continue  # somebody closed it in this moment
            return parts
        raise AssertionError("unreachable")

    def _fill(self, dataset: str, parts: list[_Part], entries: Sequence[Entry]) -> None:
        there = {did for part in parts for did in part.files}
        left = [entry.did for entry in entries if entry.did not in there]
        while left:
            room = self.settings.most - len(parts[-1].files) if parts and parts[-1].open else 0
            if room <= 0:
                parts.append(self._make(dataset, len(parts) + 1))
                continue
            some = left[: min(room, self.settings.chunk)]
            self._call(
                "add_files_to_datasets",
                [
                    {
                        "scope": self.settings.scope,
                        "name": parts[-1].name,
                        "dids": [{"scope": scope, "name": name} for scope, name in some],
                    }
                ],
                ignore_duplicate=True,
            )
            parts[-1].files |= set(some)
            left = left[len(some) :]

    def _parts(self, dataset: str) -> list[_Part]:
        """The datasets of an exposure as they are at the server, in their order."""
        found: list[_Part] = []
        while len(found) < _MOST_PARTS:
            name = _part(dataset, len(found) + 1)
            try:
                did = self._call("get_did", self.settings.scope, name)
            except RefusedError as error:
                if type(error.__cause__).__name__ == "DataIdentifierNotFound":
                    return found
                raise
            files = {
                (each["scope"], each["name"])
                for each in self._list("list_content", self.settings.scope, name)
            }
            found.append(_Part(name, bool(did.get("open")), files))
        raise RefusedError(f"{dataset}: has {_MOST_PARTS} parts; look what is attached there")

    def _make(self, dataset: str, number: int) -> _Part:
        if number > _MOST_PARTS:
            raise RefusedError(f"{dataset}: would have more than {_MOST_PARTS} parts")
        name = _part(dataset, number)
        try:
            self._call("add_dataset", self.settings.scope, name)
        except RefusedError as error:
            if type(error.__cause__).__name__ != "DataIdentifierAlreadyExists":
                raise
        return _Part(name, True, set())

    def _close(self, part: _Part) -> None:
        try:
            self._call("close", self.settings.scope, part.name)
        except RefusedError as error:
            if type(error.__cause__).__name__ != "UnsupportedOperation":  # closed already
                raise
        part.open = False
        _log.info("%s is complete, %d files", part.name, len(part.files))

    # -- rules

    def _rule(self, name: str) -> None:
        if name in self._ruled:
            return
        for rule in self.settings.rules:
            more = {key: value for key in ("activity", "account") if (value := getattr(rule, key))}
            try:
                self._call(
                    "add_replication_rule",
                    [{"scope": self.settings.scope, "name": name}],
                    rule.copies,
                    rule.rses,
                    lifetime=int(rule.lifetime) or None,
                    **more,
                )
            except RefusedError as error:
                if type(error.__cause__).__name__ not in ("DuplicateRule", "Duplicate"):
                    raise
        if len(self._ruled) >= 10_000:
            self._ruled.clear()
        self._ruled.add(name)

    def pending(self, older_than: float = 0.0) -> list[Pending]:
        """Rules of our scope that are not satisfied and older than so many seconds; the oldest first."""
        now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
        found = []
        for state in ("REPLICATING", "STUCK", "SUSPENDED", "WAITING_APPROVAL"):
            letter = {"WAITING_APPROVAL": "W", "SUSPENDED": "U"}.get(state, state[0])
            filters = {"scope": self.settings.scope, "state": letter}
            for each in self._list("list_replication_rules", filters):
                age = (now - each["created_at"]).total_seconds()
                if age >= older_than:
                    left = int(each["locks_replicating_cnt"] or 0) + int(each["locks_stuck_cnt"] or 0)
                    found.append(
                        Pending(
                            *(each["id"], each["name"], state, each["rse_expression"], age, left),
                            each["error"] or "",
                        )
                    )
        return sorted(found, key=lambda one: -one.age)

    # -- the server

    def ping(self) -> str:
        """Version of the server."""
        return str(self._call("ping").get("version", ""))

    def _list(self, method: str, *arguments: Any) -> list[Any]:
        return list(self._call(method, *arguments, _all=True))

    def _call(self, method: str, *arguments: Any, _all: bool = False, **more: Any) -> Any:
        """A request. What it lists is read to its end. Raises OutageError, RefusedError."""
        try:
            answer = getattr(self._connected(), method)(*arguments, **more)
            return list(answer) if _all else answer
        except Exception as error:
            raise self._said(method, error) from error

    def _said(self, method: str, error: Exception) -> OutageError | RefusedError:
        name, text = type(error).__name__, " ".join(str(error).split())[:500]
        server = self.settings.host or "Rucio"
        if isinstance(error, (OutageError, RefusedError)):
            return error
        broken = method in _ONLY_ASKS and _BROKEN.search(text)
        if isinstance(error, OSError) or name in _CONCERNS_ALL or broken or _OUTAGE.search(text):
            if isinstance(error, OSError) or name.startswith(("Cannot", "Server")):
                self._client = None
            return OutageError(f"{server}: {method}: {name}: {text}")
        return RefusedError(f"{server}: {method}: {name}: {text}")

    def _connected(self) -> Any:
        if self._client is None:
            settings = self.settings
            client = _library()
            program = sys.argv[0]  # which the client cuts
            try:
                self._client = client(
                    rucio_host=settings.host or None,
                    auth_host=settings.auth_host or settings.host or None,
                    account=settings.account or None,
                    timeout=max(1, round(settings.timeout)),
                    user_agent="raftwright",
                    logger=_quiet,
                )
            finally:
                sys.argv[0] = program
        return self._client

    def close(self) -> None:
        """Ends the connection."""
        session = getattr(self._client, "session", None)
        if session is not None:
            session.close()
        self._client = None


def _library() -> Callable[..., Any]:
    try:
        from rucio.client import Client
    except ImportError as error:
        raise MissingExtraError(
            "registration in Rucio needs its clients; install them with `pip install 'raftwright[rucio]'`"
        ) from error
    made: Callable[..., Any] = Client
    return made


def _verdict(error: RefusedError) -> Literal["invalid", "failure", "waiting"]:
    """What becomes of a file that Rucio refuses: `waiting` never counts as tried."""
    if type(error.__cause__).__name__ in _NEVER:
        return "invalid"
    return "waiting" if _BROKEN.search(str(error)) else "failure"


def _part(dataset: str, number: int) -> str:
    return dataset if number == 1 else f"{dataset}.{number}"


def _differs(entry: Entry, known: Mapping[str, Any] | None) -> str:
    """What an entry contradicts of what Rucio knows under its name."""
    if known is None:
        return ""
    for key in ("bytes", "adler32", "md5"):
        mine, theirs = getattr(entry, key), known.get(key)
        if mine and theirs not in (None, mine):
            return f"{key} {theirs}, not {mine}"
    return ""


def _parts_of(entries: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for begin in range(0, len(entries), size):
        yield entries[begin : begin + size]
