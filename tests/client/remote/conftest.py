"""What the tests of RemoteDump share: a live server over a folder of small dumps, and a way to open one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from farcore_client.credentials import Credentials
from farcore_client.dumpurl import DumpUrl
from farcore_client.remote import RemoteDump, connect
from tests.http1 import Connection
from tests.live import Live

Connect = Callable[..., RemoteDump]


def dump_url(server_url: str, name: str) -> DumpUrl:
    """The URL of the dump of that name, as the server lists it."""
    with Connection(server_url) as server:
        dumps = json.loads(server.get("/v1/dumps").body)["dumps"]
    (link,) = [dump["links"]["self"] for dump in dumps if dump["name"] == name]
    return DumpUrl.parse(server_url + link)


@pytest.fixture
def opened() -> Iterator[Connect]:
    """``connect(live, name)``, closed when the test ends."""
    with ExitStack() as closing:

        def start(live: Live, name: str, **options: Any) -> RemoteDump:
            return closing.enter_context(connect(dump_url(live.url, name), Credentials(), **options))

        yield start
