"""A place where files are brought: what is said of it in a configuration, whoever brings them."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Final, Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from raftwright.errors import FormatError
from raftwright.service.units import SIZE, Bytes, Seconds, Secret
from raftwright.transfer.words import words_of

__all__ = [
    "WORDS",
    "Name",
    "Place",
    "Templates",
    "Threads",
    "Tries",
    "check_times",
    "is_unencrypted",
]

Name: TypeAlias = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9_.-]{0,39}\Z")]
Threads: TypeAlias = Annotated[int, Meta(ge=1, le=64)]
Tries: TypeAlias = Annotated[int, Meta(ge=0, le=10_000)]

WORDS: Final = frozenset({"file", "batch", "user", "host", "dest", "command", "bandwidth"})
"""In the templates of a command; `{bandwidth}` is KiB a second, at least 1, or 0 for no limit."""

_Argument: TypeAlias = Annotated[str, Meta(min_length=1, max_length=4096)]

_WORD: Final = re.compile(r"[a-z][a-z0-9]{0,39}\Z")
_HOST: Final = re.compile(r"[A-Za-z0-9_:\[][A-Za-z0-9_.:%\]@-]{0,254}\Z")
"""Users and hosts: nothing that a program takes for an option."""
_PLAIN: Final = re.compile(
    r"(?:\A|/)(?:bbcp|rcp|rsh|ftp|tftp|nc|ncat|netcat|bbftp)\Z|\A(?:rsync|http|ftp|dav)://|\A[^/\[]*::|=rsh\b"
)
"""Arguments of programs that put bytes on a network as they are."""
_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:_-]{1,254}\Z")


class Templates(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Programs that bring files to a place, as lists of arguments: nothing of them goes through a shell here.

    Whole words in braces are filled in: `{file}`, `{batch}`, `{dest}`, `{command}`, `{user}`, `{host}`, and
    the `parameters` of the place. Every other brace stays as it is."""

    transfer: Annotated[list[_Argument], Meta(min_length=1, max_length=256)]
    """Brings `{file}` to `{dest}`, which is a name without anything odd; or `{batch}`, an argument for each
    of several files, into `{dest}`, a directory."""
    remote: Annotated[list[_Argument], Meta(min_length=1, max_length=256)]
    """Runs `{command}` there, which is quoted as a POSIX shell wants it: that is what ssh hands to one."""


class Place(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where it is, how files get there, and how patient one is with it."""

    name: Name
    kind: Literal["directory", "s3", "webdav", "command"]
    root: Annotated[str, Meta(min_length=1, max_length=4000)]
    """A directory, which has to be there; `s3://[PROFILE@]BUCKET/PREFIX`; `https://HOST/PATH` of a WebDAV
    server; for `command` a directory at the far side. There is no default."""
    storage: str = ""
    """Where a receiving endpoint (`raftwright endpoint`) moves what comes to `root`, its buffer, said as
    `root` is: files are looked for there too."""
    concurrency: Threads = 4
    """Files that are under way at a time."""
    timeout: Seconds = 60.0
    """For one file. What takes longer is given up, and tried again."""
    retries: Tries = 10
    """After so many more tries a file that the place alone refuses is given up on: a dead letter."""
    backoff: Seconds = 1.0
    """Before the second try; doubled each time, with some chance in it."""
    longest: Seconds = 600.0
    """Between two tries at most."""
    bandwidth: Bytes = 0
    """Bytes a second that go there, all threads together; 0: as fast as they go. `command`: what the program
    is told, see `{bandwidth}`."""
    resumable: Annotated[int, Meta(ge=5 << 20, le=1 << 40, extra=SIZE)] = 64 << 20
    """Files of so many bytes are continued where a try was cut; smaller ones are sent anew. `s3`: they go in
    parts. Not for `webdav`, which knows no such thing."""
    readonly: bool = False
    """Files are made read-only (mode bits) before they get their name."""
    immutable: Literal["never", "auto", "required"] = "never"
    """Files are held against change and removal once they are there: `chattr +i`, or a legal hold in a bucket
    that has an object lock. `auto`: where it can be, else read-only. `required`: nothing goes where it cannot
    be."""
    staged: bool = False
    """`s3`: put under a hidden name, looked at there, and copied to its own by the server."""
    link: Literal["auto", "never"] = "auto"
    """`directory`: hard links where the file system gives them, else copies. What is to be read-only or held
    is never linked, and a link is no second copy."""
    endpoint: str = ""
    """`s3`: URL of the server, by default as lsst.resources finds it (profile, S3_ENDPOINT_URL)."""
    access_key: str = ""
    secret_key: Secret = ""
    """`s3`: by default as boto3 finds them."""
    verify: Literal["auto", "checksum", "read"] = "auto"
    """How it is made sure of what is there. `read`: always read back, from the disk where that can be had.
    `auto`: `s3`: the MD5 that the server made of it, or else read back; `directory`: read back as the kernel
    gives it. `checksum`, `s3`: the CRC-32C that the server says, where it is known to compute that itself."""
    user: str = ""
    """`webdav`, with `password`; `command`: the word `{user}`."""
    password: Secret = ""
    token: Secret = ""
    """`webdav`: a bearer token, instead of user and password."""
    authority: str = ""
    """`webdav`: file with the certificates to trust, by default those that lsst.resources trusts."""
    host: str = ""
    """`command`: the word `{host}`."""
    commands: Templates | None = None
    parameters: dict[str, str] = {}
    """`command`: words of your own, by name."""
    insecure: bool = False
    """Files may go there unencrypted. Without it only this host is spoken to so."""

    def __post_init__(self) -> None:
        check_times(self.timeout, self.backoff, self.longest)
        _CHECKS[self.kind](self)
        if self.storage:
            _check_storage(self)
        for kind, key in _ALONE:
            if self.kind not in kind and getattr(self, key):
                raise FormatError(f"{key}: a place of the kind {self.kind} has none; remove it")


def _check_storage(place: Place) -> None:
    if place.storage.rstrip("/") == place.root.rstrip("/"):
        raise FormatError("storage: is the root itself; leave it out where nobody takes files away")
    try:
        msgspec.structs.replace(place, root=place.storage, storage="")
    except FormatError as error:
        raise FormatError(f"storage: {error}") from None


def check_times(timeout: float, backoff: float, longest: float) -> None:
    """Raises FormatError for times that make no sense."""
    if timeout <= 0 or backoff <= 0:
        raise FormatError("timeout and backoff have to be above 0")
    if longest < backoff:
        raise FormatError("longest: has to be at least backoff")


def _check_encrypted(place: Place) -> None:
    """Raises FormatError where files would go over a network unencrypted and `insecure` is not set."""
    if place.insecure:
        return
    url = place.endpoint if place.kind == "s3" else place.root if place.kind == "webdav" else ""
    if is_unencrypted(url):
        raise FormatError(f"{url[:200]!a} is not encrypted; use https, or say insecure: true")
    for argument in place.commands.transfer if place.commands else ():
        if _PLAIN.search(argument):
            raise FormatError(
                f"commands: transfer: {argument[:100]!a} does not encrypt; use ssh, or say insecure: true"
            )


def is_unencrypted(url: str) -> bool:
    """Whether what goes there can be read on the way: it leaves this host, and not by TLS."""
    parts = urlsplit(url)
    return parts.scheme in ("http", "dav") and not _is_here(parts.hostname or "")


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_directory(place: Place) -> None:
    root = place.root
    if not root.startswith("/") or "\0" in root:
        raise FormatError(f"root: {root[:200]!a} is no absolute path; name the directory")
    if place.endpoint or place.access_key or place.secret_key:
        raise FormatError("a directory has no endpoint and no keys; remove them")


def _check_s3(place: Place) -> None:
    root = place.root
    parts = urlsplit(root)
    bucket = parts.netloc.rpartition("@")[2]
    if parts.scheme != "s3" or not _BUCKET.match(bucket) or parts.query or parts.fragment:
        raise FormatError(f"root: {root[:200]!a} is no s3://[PROFILE@]BUCKET/PREFIX")
    if bool(place.access_key) != bool(place.secret_key):
        raise FormatError("access_key and secret_key go together; give both or none")
    if place.endpoint and urlsplit(place.endpoint).scheme not in ("http", "https"):
        raise FormatError(f"endpoint: {place.endpoint[:200]!a} is no http(s) URL")
    _check_encrypted(place)


def _check_webdav(place: Place) -> None:
    try:
        parts = urlsplit(place.root)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        usable = usable and not (parts.username or parts.query or parts.fragment)
    except ValueError:
        usable = False
    if not usable:
        raise FormatError(
            f"root: {place.root[:200]!a} is no https://HOST/PATH; users and passwords stand apart"
        )
    if bool(place.user) != bool(place.password) or (place.token and place.user):
        raise FormatError("user and password go together, or there is a token; give one of them")
    _check_encrypted(place)


def _check_command(place: Place) -> None:
    _check_directory(place)
    if place.commands is None:
        raise FormatError("commands: has to say transfer and remote; see docs/howto/hand-over.md")
    for name in place.parameters:
        if name in WORDS or not _WORD.match(name):
            raise FormatError(f"parameters: {name[:40]!a} cannot be a word of yours; call it something else")
    known = WORDS | set(place.parameters)
    for key, wanted, none in (
        ("transfer", place.commands.transfer, {"command"}),
        ("remote", place.commands.remote, {"file", "batch", "dest"}),
    ):
        words = {word for argument in wanted for word in words_of(argument)}
        if unknown := sorted(words - (known - none)):
            raise FormatError(
                f"commands: {key}: {{{unknown[0]}}} is unknown; there are {', '.join(sorted(known - none))}"
            )
        if words_of(wanted[0]):
            raise FormatError(f"commands: {key}: the program itself is no {{word}}; name it")
        for word in sorted({"user", "host"} & words):
            if not _HOST.match(getattr(place, word)):
                raise FormatError(f"{word}: {getattr(place, word)[:80]!a} is none; commands: {key} wants it")
    transfer = [word for argument in place.commands.transfer for word in words_of(argument)]
    if ("file" in transfer) == ("batch" in transfer) or "dest" not in transfer:
        raise FormatError("commands: transfer: has to have {dest}, and {file} or an argument {batch}")
    if "batch" in transfer and "{batch}" not in place.commands.transfer:
        raise FormatError("commands: transfer: {batch} is an argument of its own: each file becomes one")
    if "command" not in [word for argument in place.commands.remote for word in words_of(argument)]:
        raise FormatError("commands: remote: has to have {command}")
    if place.bandwidth and "bandwidth" not in transfer:
        raise FormatError("bandwidth: the program has to be told; give it {bandwidth}, in KiB a second")
    _check_encrypted(place)


_CHECKS: Final = {
    "directory": _check_directory,
    "s3": _check_s3,
    "webdav": _check_webdav,
    "command": _check_command,
}
_ALONE: Final = (
    (("command",), "commands"),
    (("command",), "parameters"),
    (("command",), "host"),
    (("command", "webdav"), "user"),
    (("webdav",), "password"),
    (("webdav",), "token"),
    (("webdav",), "authority"),
    (("s3",), "staged"),
    (("s3",), "endpoint"),
    (("s3",), "access_key"),
)
"""What only places of some kinds have."""
