"""Key pairs and lists of clients on disk."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import zmq

from raftwright.errors import ConflictError, FormatError, NotFoundError, StorageError, UsageError
from raftwright.stream import KeyPair, KeyStore


@pytest.fixture
def keys(tmp_path: Path) -> KeyStore:
    return KeyStore(tmp_path / "a" / "keys")


def test_a_pair_is_made_and_found(keys: KeyStore) -> None:
    assert keys.names() == []
    pair = keys.new("dc01")
    assert len(pair.public) == len(pair.secret) == 40
    assert zmq.curve_public(pair.secret.encode()) == pair.public.encode()
    assert keys.secret("dc01") == pair
    assert keys.public("dc01") == pair.public
    assert keys.public(pair.public) == pair.public
    assert keys.names() == ["dc01"]
    assert keys.has_secret("dc01")
    assert keys.new("dc02") != pair


def test_secrets_are_for_their_owner_only(keys: KeyStore) -> None:
    before = os.umask(0)
    try:
        keys.new("dc01")
    finally:
        os.umask(before)
    secret = keys.directory / "dc01.secret"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert stat.S_IMODE(keys.directory.stat().st_mode) == 0o700
    for mode in (0o640, 0o604, 0o644, 0o660):
        secret.chmod(mode)
        with pytest.raises(StorageError, match="chmod 600"):
            keys.secret("dc01")
    assert keys.public("dc01")


def test_the_secret_is_not_told_by_accident(keys: KeyStore) -> None:
    pair = keys.new("dc01")
    assert pair.secret not in repr(pair)
    assert pair.secret not in str(pair)
    assert pair.public in repr(pair)


def test_keys_are_never_replaced(keys: KeyStore) -> None:
    pair = keys.new("dc01")
    with pytest.raises(ConflictError):
        keys.new("dc01")
    assert keys.secret("dc01") == pair
    (keys.directory / "dc01.secret").unlink()
    with pytest.raises(ConflictError):
        keys.new("dc01")
    assert not keys.has_secret("dc01")
    assert [path.name for path in keys.directory.iterdir()] == ["dc01.public"], "nothing is left beside it"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "../x", "a\0b", "a b", "-x", ".x", "x" * 65, "é", "a\n"]
)
def test_names_that_could_lead_astray(keys: KeyStore, name: str) -> None:
    for call in (keys.new, keys.secret, keys.has_secret, keys.revoke):
        with pytest.raises(UsageError):
            call(name)
    with pytest.raises(UsageError):
        keys.allow(name, "x" * 40)
    assert not keys.directory.exists()


def test_what_is_not_there(keys: KeyStore) -> None:
    for call in (keys.secret, keys.public, keys.revoke):
        with pytest.raises(NotFoundError):
            call("dc01")
    assert keys.allowed() == {}
    assert keys.allowed_keys() == frozenset()


def test_files_that_are_no_keys(keys: KeyStore, tmp_path: Path) -> None:
    keys.new("dc01")
    secret = keys.directory / "dc01.secret"
    for text in ("", "short", "x" * 41, "\xff" * 40, '"' * 40, "x" * 100_000):
        secret.write_text(text, encoding="latin-1")
        with pytest.raises(FormatError):
            keys.secret("dc01")
    secret.unlink()
    secret.symlink_to(keys.directory / "dc01.public")
    with pytest.raises(StorageError):
        keys.secret("dc01")
    secret.unlink()
    os.mkfifo(secret, 0o600)
    with pytest.raises(FormatError):
        keys.secret("dc01")
    secret.unlink()
    secret.mkdir()
    with pytest.raises((FormatError, StorageError)):
        keys.secret("dc01")


def test_clients_are_let_in_and_put_out(keys: KeyStore) -> None:
    one, two = keys.new("one").public, keys.new("two").public
    keys.allow("dc01", one)
    keys.allow("dc01", one)
    keys.allow("dc02", two)
    assert keys.allowed() == {"dc01": one, "dc02": two}
    assert keys.allowed_keys() == {one, two}
    with pytest.raises(ConflictError, match="revoke"):
        keys.allow("dc01", two)
    with pytest.raises(FormatError):
        keys.allow("dc03", "no key")
    keys.revoke("dc01")
    assert keys.allowed() == {"dc02": two}
    with pytest.raises(NotFoundError):
        keys.revoke("dc01")
    assert keys.names() == ["one", "two"], "clients are no pairs"


def test_public_keys_of_others_are_kept_by_name(keys: KeyStore, tmp_path: Path) -> None:
    public = KeyStore(tmp_path / "server").new("server").public
    keys.add("summit", public)
    keys.add("summit", public)
    assert keys.public("summit") == public
    assert keys.names() == ["summit"]
    assert not keys.has_secret("summit")
    with pytest.raises(ConflictError):
        keys.add("summit", keys.new("other").public)
    with pytest.raises(ConflictError):
        keys.new("summit")
    with pytest.raises(FormatError):
        keys.add("base", "no key")


def test_the_place_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert KeyStore().directory == tmp_path / "raftwright" / "keys"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", "/home/x")
    assert KeyStore().directory == Path("/home/x/.config/raftwright/keys")
    assert isinstance(KeyPair("a", "b"), KeyPair)
