"""Key pairs for CURVE, and which clients a server lets in: a directory that only its owner can read."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from pathlib import Path

import msgspec

from raftwright.errors import ConflictError, FormatError, NotFoundError, StorageError, UsageError

__all__ = ["KeyPair", "KeyStore", "check_key", "is_key"]

_NAME = re.compile(r"\A[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")
_KEY = re.compile(r"\A[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}\Z")
_MOST = 4096


class KeyPair(msgspec.Struct, frozen=True):
    """A CURVE key pair, both in Z85 (40 characters)."""

    public: str
    secret: str

    def __repr__(self) -> str:
        return f"KeyPair(public={self.public!r}, secret=…)"


class KeyStore:
    """Keys as files: NAME.secret (mode 0600), NAME.public, and allowed/NAME.public for clients to let in.

    Secrets that others could read are refused.
    """

    def __init__(self, directory: str | os.PathLike[str] | None = None) -> None:
        """By default `$XDG_CONFIG_HOME/raftwright/keys`, which is `~/.config/raftwright/keys`."""
        if directory is None:
            base = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
            directory = os.path.join(base, "raftwright", "keys")
        self.directory = Path(directory)

    def new(self, name: str) -> KeyPair:
        """Makes a pair. Raises ConflictError if there is one of that name, UsageError, StorageError."""
        import zmq

        _check_name(name)
        if os.path.lexists(self._file(name, "secret")) or os.path.lexists(self._file(name, "public")):
            raise ConflictError(
                f"{self._file(name, 'secret')}: there are keys {name} already, and they are left; give "
                "another name, or remove them"
            )
        public, secret = (key.decode("ascii") for key in zmq.curve_keypair())
        self._write(self._file(name, "secret"), secret, 0o600)
        self._write(self._file(name, "public"), public, 0o644)
        return KeyPair(public, secret)

    def add(self, name: str, public: str) -> None:
        """Keeps somebody else's public key, such as a server's. Raises ConflictError if the name is taken."""
        _check_name(name)
        check_key(public)
        if os.path.lexists(self._file(name, "public")) and self.public(name) == public:
            return
        self._write(self._file(name, "public"), public, 0o644)

    def names(self) -> list[str]:
        """Names of the pairs and of lone public keys, sorted."""
        return self._names(self.directory)

    def has_secret(self, name: str) -> bool:
        """Whether the secret key is here as well."""
        _check_name(name)
        return os.path.lexists(self._file(name, "secret"))

    def public(self, name: str) -> str:
        """The public key of a name, or the key itself if that is what was given.

        Raises NotFoundError, FormatError, StorageError.
        """
        if _KEY.match(name):
            return name
        _check_name(name)
        return self._read(self._file(name, "public"), f"keys {name}")

    def secret(self, name: str) -> KeyPair:
        """The pair. Raises NotFoundError, FormatError, StorageError: others may read the secret."""
        _check_name(name)
        secret = self._read(self._file(name, "secret"), f"keys {name}", private=True)
        from zmq import ZMQError, curve_public

        try:
            return KeyPair(curve_public(secret.encode("ascii")).decode("ascii"), secret)
        except (ZMQError, ValueError) as error:
            raise FormatError(
                f"{self._file(name, 'secret')}: is no secret key ({error}); make new ones"
            ) from None

    def allow(self, name: str, public: str) -> None:
        """Puts a client's public key on the list. Raises ConflictError if the name has another one there."""
        _check_name(name)
        check_key(public)
        path = self.directory / "allowed" / f"{name}.public"
        if os.path.lexists(path):
            if self._read(path, f"client {name}") == public:
                return
            raise ConflictError(f"{path}: client {name} has another key there; revoke that first")
        self._write(path, public, 0o644)

    def revoke(self, name: str) -> None:
        """Takes a client off the list. Raises NotFoundError."""
        _check_name(name)
        path = self.directory / "allowed" / f"{name}.public"
        try:
            os.unlink(path)
        except FileNotFoundError:
            raise NotFoundError(f"no client {name} is allowed; `raftwright keys list` tells who is") from None
        except OSError as error:
            raise StorageError(error.errno, f"cannot be removed ({error.strerror})", str(path)) from error

    def allowed(self) -> dict[str, str]:
        """Name -> public key of the clients on the list. Raises FormatError, StorageError."""
        folder = self.directory / "allowed"
        return {name: self._read(folder / f"{name}.public", f"client {name}") for name in self._names(folder)}

    def allowed_keys(self) -> frozenset[str]:
        """The public keys on the list, as they are at this moment."""
        return frozenset(self.allowed().values())

    def _file(self, name: str, kind: str) -> Path:
        return self.directory / f"{name}.{kind}"

    def _names(self, folder: Path) -> list[str]:
        try:
            found = os.listdir(folder)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise StorageError(error.errno, f"cannot be read ({error.strerror})", str(folder)) from error
        stems = {
            stem for stem, _, kind in (name.rpartition(".") for name in found) if kind in ("public", "secret")
        }
        return sorted(stem for stem in stems if _NAME.match(stem))

    def _write(self, path: Path, text: str, mode: int) -> None:
        try:
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
            os.makedirs(path.parent, mode=0o700, exist_ok=True)
            partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
            fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            try:
                with open(fd, "w", encoding="ascii") as file:
                    file.write(text + "\n")
                    file.flush()
                    os.fsync(file.fileno())
                os.link(partial, path)  # does not replace
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(partial)
        except FileExistsError:
            raise ConflictError(f"{path}: is there already and is left as it is; give another name") from None
        except OSError as error:
            raise StorageError(error.errno, f"cannot be written ({error.strerror})", str(path)) from error

    def _read(self, path: Path, what: str, *, private: bool = False) -> str:
        try:
            with open(path, "rb", opener=_open) as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise FormatError(f"{path}: is no file; put the key there")
                if private and stat.S_IMODE(status.st_mode) & 0o077:
                    raise StorageError(
                        13,
                        f"may be read by others (mode {stat.S_IMODE(status.st_mode):04o}); chmod 600 it",
                        str(path),
                    )
                data = file.read(_MOST)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFoundError(f"{what}: there is no {path}; `raftwright keys new` makes a pair") from None
        except StorageError:
            raise
        except OSError as error:
            raise StorageError(error.errno, f"cannot be read ({error.strerror})", str(path)) from error
        return check_key(data.decode("ascii", "replace").strip(), str(path))


def is_key(text: str) -> bool:
    """Whether this has the form of a key."""
    return _KEY.match(text) is not None


def check_key(text: str, where: str = "") -> str:
    """The key itself. Raises FormatError if it is none."""
    if not is_key(text):
        place = f"{where}: " if where else ""
        raise FormatError(f"{place}that is no CURVE key; one has 40 characters of Z85")
    return text


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def _check_name(name: str) -> None:
    if _NAME.match(name) is None:
        raise UsageError(
            f"{ascii(name)[:80]} is no name for keys; give letters, digits, and _ . - after the first"
        )
