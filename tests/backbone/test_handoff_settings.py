"""What a configuration may say of endpoints, and what it is told where it may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from raftwright.backbone import Endpoint, Settings
from raftwright.errors import FormatError
from raftwright.service.config import ConfigError, load

NEAR = {"name": "near", "kind": "directory", "root": "/near"}


def settings(**values: Any) -> Settings:
    return msgspec.convert(values, Settings)


def test_a_replica_is_a_copy_that_is_read_back_and_read_only() -> None:
    (endpoint,) = settings(endpoints=[NEAR]).endpoints
    assert (endpoint.link, endpoint.verify, endpoint.readonly) == ("never", "read", True)
    assert endpoint.place.immutable == "never"
    held = msgspec.convert({**NEAR, "custodial": True}, Endpoint)
    assert held.place.immutable == "auto"
    assert msgspec.convert(
        {**NEAR, "custodial": True, "immutable": "required"}, Endpoint
    ).place.immutable == ("required")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"endpoints": [NEAR, NEAR]}, "near is there twice"),
        (
            {"endpoints": [NEAR, {**NEAR, "name": "far", "root": "/./near/"}]},
            "near and far are one place",
        ),
        ({"endpoints": [{**NEAR, "storage": "/near/"}]}, "storage: is the root itself"),
        ({"endpoints": [{**NEAR, "storage": "near"}]}, "storage: root: .* no absolute path"),
        ({"endpoints": [NEAR], "replicas": 2}, "2 are wanted of 1 endpoints"),
        ({"endpoints": [NEAR], "required": ["far"]}, "there is no endpoint far"),
        ({"endpoints": [NEAR], "custodial": 1}, "1 are wanted, 0 of the endpoints"),
        ({"endpoints": [{**NEAR, "what": []}]}, "names nothing"),
        ({"endpoints": [{**NEAR, "layout": "{file}"}]}, "{obsid} and {file}"),
        ({"endpoints": [{**NEAR, "layout": "../{obsid}/{file}"}]}, "no relative name"),
        ({"endpoints": [{**NEAR, "concurrency": 64}], "parallel": 8}, "want 64 at a time"),
        ({"endpoints": [{**NEAR, "link": "auto"}]}, "link"),
        ({"endpoints": [{**NEAR, "name": "a b"}]}, "name"),
        (
            {
                "endpoints": [
                    {
                        "name": "far",
                        "kind": "s3",
                        "root": "s3://bucket/a",
                        "endpoint": "http://far.example.org",
                    }
                ]
            },
            "not encrypted",
        ),
        (
            {
                "endpoints": [
                    {
                        "name": "far",
                        "kind": "command",
                        "root": "/a",
                        "host": "far",
                        "commands": {
                            "transfer": ["bbcp", "{file}", "{host}:{dest}"],
                            "remote": ["ssh", "{host}", "{command}"],
                        },
                    }
                ]
            },
            "does not encrypt",
        ),
    ],
)
def test_what_cannot_be_is_refused(values: dict[str, Any], said: str) -> None:
    """D147: plain connections too, unless they are wanted."""
    with pytest.raises((msgspec.ValidationError, FormatError), match=said.replace("{", r"\{")):
        settings(**values)


def test_plain_connections_by_configuration() -> None:
    """D147."""
    plain = {"name": "far", "kind": "s3", "root": "s3://bucket/a", "endpoint": "http://far.example.org"}
    assert settings(endpoints=[{**plain, "insecure": True}]).endpoints[0].insecure


def test_file_line_and_key_are_named(tmp_path: Path) -> None:
    """F60."""
    path = tmp_path / "site.yaml"
    path.write_text(
        "archive: {root: /a}\nhandoff:\n  endpoints:\n    - {name: a, kind: directory, root: /a}\n"
        "    - name: b\n      kind: directory\n      root: nowhere\n"
    )
    with pytest.raises(ConfigError, match=r"line 5.*root|line 7.*root|endpoints\[1\]"):
        load([str(path)]).settings("handoff")
