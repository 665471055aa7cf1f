"""What tests of a live server share: the dumps that it lists, waiting for it to notice, and what it costs."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.http1 import Connection
from tests.live import Live

Said = dict[str, Any]

# The server searches every fifth of a second where tests say so; a busy machine takes its time.
NOTICED_WITHIN = 15.0
QUICK = ("--rescan", "0.2")


def listed(server: Connection) -> dict[str, Said]:
    """The Dumps of the catalogue by name."""
    return {dump["name"]: dump for dump in json.loads(server.get("/v1/dumps").body)["dumps"]}


def only(server: Connection) -> Said:
    """The one Dump there is, in full."""
    (dump,) = listed(server).values()
    said: Said = json.loads(server.get(dump["links"]["self"]).body)
    return said


def until(live: Live, holds: Callable[[dict[str, Said]], bool]) -> dict[str, Said]:
    """The catalogue as soon as it ``holds``."""
    give_up = time.monotonic() + NOTICED_WITHIN
    with Connection(live.url) as server:
        while not holds(found := listed(server)):
            assert time.monotonic() < give_up, {name: dump["state"] for name, dump in found.items()}
            time.sleep(0.05)
    return found


def slow(live: Live) -> Connection:
    """A connection whose kernel takes little in advance: what is not read stays with the server."""
    connection = Connection(live.url)
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
    return connection


def port(live: Live) -> int:
    """Where it listens."""
    found = urlsplit(live.url).port
    assert found is not None
    return found


def pids(live: Live) -> list[int]:
    """The processes that serve: its workers, or itself where it has none."""
    return live.workers or [live.process.pid]


def memory(live: Live, field: str = "VmHWM") -> int:
    """Bytes that its largest process has had in memory at most (VmHWM), or has now (VmRSS, RssAnon)."""
    return max(_kibibytes(pid, field) for pid in pids(live)) << 10


def maps(live: Live) -> str:
    """/proc/PID/maps of every process that serves."""
    return "".join(Path(f"/proc/{pid}/maps").read_text() for pid in pids(live))


def _kibibytes(pid: int, field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])
