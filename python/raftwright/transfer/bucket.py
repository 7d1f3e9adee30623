"""A bucket of any server that speaks S3, found as lsst.resources finds it; and what it says, in our words."""

from __future__ import annotations

import contextlib
import difflib
import functools
import os
import threading
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit, urlunsplit

from raftwright import _core
from raftwright.errors import NotFoundError
from raftwright.transfer.bodies import Body
from raftwright.transfer.extras import need
from raftwright.transfer.outcome import OutageError, RefusedError
from raftwright.transfer.place import is_unencrypted
from raftwright.transfer.targets import check_text, checked
from raftwright.transfer.throttle import Throttle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from raftwright.transfer.place import Place

__all__ = ["AbsentError", "Bucket", "TakenError", "UnconditionalError", "UnencryptedError"]

_LONGEST_KEY: Final = 1024
_TAKEN: Final = frozenset({409, 412})
_FILE_ALONE: Final = frozenset({400, 411, 413, 414})
"""Answers that concern one object and not the place."""
_STEP: Final = 1 << 20


class AbsentError(RefusedError):
    """There is no such object."""


class TakenError(RefusedError):
    """The name is not free."""


class UnconditionalError(RefusedError):
    """The server does not know what it was asked for."""


class UnencryptedError(OutageError):
    """What goes there could be read on the way, and nobody said that it may."""


class Bucket:
    """Raises MissingExtraError without the extra `s3`."""

    def __init__(self, place: Place) -> None:
        need(f"destination {place.name}", "s3", "boto3", "lsst.resources")
        self.place = place
        self.profile, _, self.name = urlsplit(place.root).netloc.rpartition("@")
        self.throttle = Throttle(place.bandwidth)
        self._lock = threading.Lock()
        self._made: Any = None
        self._conditional = True

    # What is slow to import is imported by the first thread that goes there.

    @functools.cached_property
    def _errors(self) -> Any:
        import botocore.exceptions

        return botocore.exceptions

    @functools.cached_property
    def root(self) -> Any:
        """As lsst.resources has it."""
        from lsst.resources import ResourcePath

        return ResourcePath(self.place.root.rstrip("/") + "/", forceDirectory=True)

    # -- names

    def key(self, parts: tuple[str, ...]) -> str:
        """Of an object, by the parts of a target or of a name of our own. Raises RefusedError."""
        target = "/".join(parts)
        check_text(target)
        key = self._prefix + target  # not by lsst.resources, to which `%`, `#` and `?` mean something
        if len(key.encode()) > _LONGEST_KEY:
            raise RefusedError(f"{ascii(target)[:300]}: is too long; a key has at most {_LONGEST_KEY} bytes")
        return key

    def prefix(self, folder: str) -> str:
        """Of the keys in a folder; ends with `/`, or is empty. Raises RefusedError."""
        return self.key((*checked(folder.rstrip("/")), "")) if folder.rstrip("/") else self._prefix

    @functools.cached_property
    def _prefix(self) -> str:
        found = str(self.root.relativeToPathRoot)
        return "" if found in ("", "./", ".") else found

    def shown(self, key: str) -> str:
        """An object, for people."""
        return ascii(f"s3://{self.name}/{key}")[1:-1]

    # -- the connection

    @property
    def client(self) -> Any:
        """Of boto3. Raises OutageError."""
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made

    def _make(self) -> Any:
        import boto3
        from botocore.config import Config

        wanted = self.place
        endpoint, key, secret = _endpoint_of(wanted, self.profile)
        if is_unencrypted(endpoint) and not wanted.insecure:
            raise UnencryptedError(
                f"{wanted.name}: {endpoint[:200]!a} is not encrypted; use https, or say insecure: true"
            )
        patience = max(1.0, min(wanted.timeout, 60.0))
        config = Config(
            connect_timeout=min(10.0, patience),
            read_timeout=patience,
            max_pool_connections=wanted.concurrency + 2,
            retries={"mode": "standard", "total_max_attempts": 1},  # the lane tries again
            tcp_keepalive=True,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            **({"s3": {"addressing_style": "path"}} if endpoint else {}),
        )
        try:
            session = boto3.Session(botocore_session=_session(None if key else self.profile or None))
            client = session.client(
                "s3",
                endpoint_url=endpoint or None,
                aws_access_key_id=key or None,
                aws_secret_access_key=secret or None,
                config=config,
            )
        except (self._errors.BotoCoreError, ValueError) as error:
            raise OutageError(f"{wanted.name}: no connection can be made ({error})") from None
        client.meta.events.register("before-send.s3", _now_it_is_sent)
        return client

    def close(self) -> None:
        """Closes the connections, and ends what waits for its turn."""
        self.throttle.close()
        with self._lock:
            if self._made is not None:
                self._made.close()
                self._made = None

    def check(self) -> str:
        """Where the bucket is, if it is there. Raises NotFoundError where the server knows none of that
        name, with those that are called alike; OutageError where nobody can say."""
        where = str(self.client.meta.endpoint_url)
        try:
            with self.said(f"s3://{self.name}"):
                self.client.head_bucket(Bucket=self.name)
        except AbsentError:
            said = f"there is no bucket {self.name[:255]!a} at {where}{self._alike()}"
            raise NotFoundError(f"{said}; correct the name, or make it") from None
        except RefusedError as error:
            raise OutageError(str(error)) from None
        return f"bucket s3://{self.name} at {where}"

    def _alike(self) -> str:
        """What buckets there are that may be meant, as far as we may know."""
        try:
            with self.said("buckets"):
                names = [str(one.get("Name")) for one in self.client.list_buckets().get("Buckets", ())]
        except (RefusedError, OutageError):
            return ""
        alike = difflib.get_close_matches(self.name, names[:10_000], n=3)
        return f" (is {' or '.join(f'{name!a}' for name in alike)} meant?)" if alike else ""

    # -- objects

    def head(self, key: str) -> dict[str, Any] | None:
        """What the server says of an object; None where there is none. Raises OutageError, RefusedError."""
        try:
            with self.said(self.shown(key)):
                found: dict[str, Any] = self.client.head_object(
                    Bucket=self.name, Key=key, ChecksumMode="ENABLED"
                )
                return found
        except AbsentError:
            return None

    def read(self, key: str, to: Callable[[bytes], object] | None = None) -> tuple[str, int]:
        """CRC-32C and bytes of an object, read anew; `to` is given every piece. Raises AbsentError,
        OutageError, RefusedError."""
        crc = size = 0
        with self.said(self.shown(key)):
            body = self.client.get_object(Bucket=self.name, Key=key)["Body"]
            try:
                for piece in body.iter_chunks(_STEP):
                    crc, size = _core.crc32c(piece, crc), size + len(piece)
                    if to is not None:
                        to(piece)
            finally:
                body.close()
        return f"{crc:08x}", size

    def only_if_free(self, call: Callable[[dict[str, str]], Any]) -> Any:
        """Calls with the condition that the name is free, where the server knows conditions; we have looked
        before. Raises TakenError, OutageError, RefusedError."""
        try:
            return call({"IfNoneMatch": "*"} if self._conditional else {})
        except UnconditionalError:
            if not self._conditional:
                raise
            self._conditional = False
            return call({})

    def delete(self, key: str, head: dict[str, Any]) -> None:
        """Deletes this version of an object, where there are versions: a mark that it is deleted would keep
        it for ever. Raises OutageError, RefusedError."""
        version = head.get("VersionId")
        with self.said(self.shown(key)):
            self.client.delete_object(
                Bucket=self.name, Key=key, **({"VersionId": version} if version else {})
            )

    @contextlib.contextmanager
    def said(self, shown: str, *, bucket: bool = False) -> Iterator[None]:
        """What boto3 raises, in our words."""
        try:
            yield
        except self._errors.ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            code = str(error.response.get("Error", {}).get("Code", ""))
            message = error.response.get("Error", {}).get("Message", "")
            said = f"{shown}: the server answers {status} {code}: {message}"
            if status == 404 and "bucket" not in code.lower() and not bucket:
                raise AbsentError(said) from None
            if status == 501:
                raise UnconditionalError(said) from None
            if status in _TAKEN:
                raise TakenError(said) from None
            if status in _FILE_ALONE:
                raise RefusedError(said[:1000]) from None
            raise OutageError(said[:1000]) from None
        except self._errors.ParamValidationError as error:
            raise RefusedError(f"{shown}: {str(error)[:500]}") from None
        except (self._errors.BotoCoreError, self._errors.HTTPClientError) as error:
            raise OutageError(f"{shown}: {str(error)[:500]}") from None


def _now_it_is_sent(request: Any, **_: Any) -> None:
    body = getattr(request.body, "raw", request.body)
    if isinstance(body, Body):
        body.sending = True


def _endpoint_of(wanted: Place, profile: str) -> tuple[str, str, str]:
    """URL, key and secret: what the destination says, else what lsst.resources is told in the environment
    (`LSST_RESOURCES_S3_PROFILE_<profile>`, `S3_ENDPOINT_URL`), else nothing: then boto3 looks for them."""
    endpoint, key, secret = wanted.endpoint, wanted.access_key, wanted.secret_key
    told = os.environ.get(f"LSST_RESOURCES_S3_PROFILE_{profile}", "") if profile else ""
    told = told or os.environ.get("S3_ENDPOINT_URL", "")
    if not endpoint and told:
        parts = urlsplit(told)
        if parts.username and parts.password and not key:
            key, secret = unquote(parts.username), unquote(parts.password)
        endpoint = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    return endpoint, key, secret


_loading = threading.Lock()


@functools.cache
def _loader() -> Any:
    """What botocore knows of S3: read once, for all buckets."""
    import botocore.session

    loader = botocore.session.Session().get_component("data_loader")
    loader.load_service_model("s3", "service-2")
    loader.load_service_model("s3", "endpoint-rule-set-1")
    return loader


def _session(profile: str | None) -> Any:
    """A session of botocore for one bucket."""
    import botocore.session

    with _loading:
        loader = _loader()
    session = botocore.session.Session(profile=profile)
    session.register_component("data_loader", loader)
    return session
