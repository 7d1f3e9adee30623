"""What a Kafka publisher and a Kafka subscriber have in common: the URL, the options, the library.

`kafka://HOST:PORT[,HOST:PORT...]/PREFIX`: all events are in the topic `PREFIX.events`. What the brokers want
to know of us (TLS, passwords) is never in a URL: it stands in a file that only its owner can read, or in the
environment.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from raftwright.errors import MissingExtraError, StorageError, UsageError

__all__ = ["FILE_VARIABLE", "Place", "common_settings", "library", "parse", "read_options"]

_URL = re.compile(r"kafka://([^/?#]+)/([A-Za-z0-9._-]{1,200})\Z")
_BROKER = re.compile(r"(?:[A-Za-z0-9_.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):[0-9]{1,5}\Z")
_ALLOWED = re.compile(
    r"(?:security\.protocol|enable\.ssl\.certificate\.verification|sasl\.[a-z.]{1,60}|ssl\.[a-z.]{1,60})\Z"
)
_CODE = ("ssl.engine", "ssl.providers")
"""Options that load code."""
FILE_VARIABLE: Final = "RAFTWRIGHT_KAFKA_OPTIONS"
_VARIABLES: Final = {
    f"RAFTWRIGHT_KAFKA_{name.replace('.', '_').upper()}": name
    for name in (
        *("security.protocol", "sasl.mechanism", "sasl.username", "sasl.password", "ssl.ca.location"),
        *("ssl.certificate.location", "ssl.key.location", "ssl.key.password"),
    )
}
_LONGEST: Final = 64 << 10


class Place(NamedTuple):
    """What a URL says."""

    brokers: str
    topic: str


def parse(url: str) -> Place:
    """Raises UsageError where it is no such URL."""
    if "@" in url:
        raise UsageError("a kafka:// URL has no name and password; put them into a file of mode 0600")
    found = _URL.match(url)
    brokers = found[1].split(",") if found else []
    if found is None or not all(_BROKER.match(broker) for broker in brokers):
        raise UsageError(f"{url[:200]!a} is none; write kafka://HOST:PORT[,HOST:PORT]/PREFIX")
    return Place(",".join(brokers), f"{found[2]}.events")


def read_options(path: str = "", environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Security options, from the file (or the one that the environment names) and the environment.

    A file has lines `sasl.password = ...`; `#` begins a comment line. The environment goes before the file.

    Raises UsageError where others can read the file, or an option is none about security; StorageError where
    it cannot be read. No message contains a value.
    """
    environment = os.environ if environment is None else environment
    options: dict[str, str] = {}
    path = path or environment.get(FILE_VARIABLE, "")
    if path:
        for number, line in enumerate(_lines(path), 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            name, mark, value = line.partition("=")
            name = name.strip()
            if not mark or not _ALLOWED.match(name) or name.startswith(_CODE):
                raise UsageError(f"{path}, line {number}: this is no security option of Kafka; remove it")
            options[name] = value.strip()
    for variable, name in _VARIABLES.items():
        if environment.get(variable):
            options[name] = environment[variable]
    return options


def _lines(path: str) -> list[str]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_uid not in (0, os.geteuid()):
                raise UsageError(f"{path} is no file of yours; give another")
            if found.st_mode & 0o077:
                raise UsageError(f"{path} can be read by others; chmod 600 it, and change what it held")
            return file.read(_LONGEST).decode().splitlines()
    except OSError as error:
        raise StorageError(
            error.errno, f"options of Kafka cannot be read ({error.strerror}); look at the path", path
        ) from error
    except UnicodeDecodeError:
        raise UsageError(f"{path} is no text; write lines NAME = VALUE") from None


def library() -> Any:
    """confluent_kafka, imported when it is used. Raises MissingExtraError."""
    try:
        import confluent_kafka
    except ImportError:
        raise MissingExtraError(
            "kafka:// needs confluent-kafka; install it with pip install 'raftwright[kafka]'"
        ) from None
    return confluent_kafka


def common_settings(place: Place, options: str, name: str) -> dict[str, Any]:
    """Settings that producers and consumers share. Raises what `read_options` does."""
    return {
        "bootstrap.servers": place.brokers,
        "client.id": re.sub(r"[^A-Za-z0-9._-]", "-", name)[:100] or "raftwright",
        "reconnect.backoff.ms": 100,
        "reconnect.backoff.max.ms": 5000,
        "socket.keepalive.enable": True,
        "topic.metadata.refresh.interval.ms": 10_000,
        "allow.auto.create.topics": True,
        **read_options(options),
    }
