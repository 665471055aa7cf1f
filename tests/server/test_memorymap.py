"""GET /map of a live server."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from urllib.parse import urlsplit

from tests.elfwriter import Dump, load, note
from tests.http1 import Connection
from tests.live import Serve
from tests.served import only

PAGE = 4096
STATUS = note(("CORE", 1, bytes(336)))
# 0x0 absent, 0x1000 data, 0x2000 zero, 0x4000 excluded, 0x5000 absent, 0x8000 zero and data
MEMORY = Dump(
    [STATUS, load(b"x" * PAGE + bytes(2 * PAGE), paddr=0x1000, memsz=4 * PAGE), load(bytes(PAGE) + b"y", paddr=0x8000)]
)
RUNS = [
    {"start": "0x0", "end": "0x1000", "kind": "absent"},
    {"start": "0x1000", "end": "0x2000", "kind": "data"},
    {"start": "0x2000", "end": "0x4000", "kind": "zero"},
    {"start": "0x4000", "end": "0x5000", "kind": "excluded"},
    {"start": "0x5000", "end": "0x8000", "kind": "absent"},
    {"start": "0x8000", "end": "0x9000", "kind": "zero"},
    {"start": "0x9000", "end": "0x9001", "kind": "data"},
]


def test_the_map_says_what_each_physical_range_holds(tmp_path: Path, serve: Serve) -> None:
    MEMORY.write(tmp_path / "vmcore")
    with Connection(serve(tmp_path / "vmcore", "--host-arch", "x86_64").url) as server:
        dump = only(server)
        answer = server.get(dump["links"]["map"])
        assert (answer.status, answer.get("Content-Type"), answer.get("ETag")) == (200, "application/json", dump["etag"])
        assert json.loads(answer.body) == {"runs": RUNS}
        assert server.get(dump["links"]["map"]).body == answer.body  # as it was kept
        assert server.head(dump["links"]["map"]).status == 200
        assert server.get(dump["links"]["map"], **{"If-None-Match": dump["etag"]}).status == 304
        assert server.get(dump["links"]["map"], **{"If-Match": '"another"'}).status == 412


def test_a_map_is_remembered_by_the_next_server_and_not_for_another_version(tmp_path: Path, serve: Serve) -> None:
    path = MEMORY.write(tmp_path / "vmcore")
    state = {"STATE_DIRECTORY": str(tmp_path / "state")}
    live = serve(path, "--host-arch", "x86_64", "--workers", "1", environment=state)
    with Connection(live.url) as server:
        link = only(server)["links"]["map"]
        server.get(link)
    (kept,) = (tmp_path / "state" / "maps").iterdir()
    before = kept.stat().st_mtime_ns
    with Connection(serve(path, "--host-arch", "x86_64", environment=state).url) as server:
        assert json.loads(server.get(link).body) == {"runs": RUNS}
        assert kept.stat().st_mtime_ns > before  # it was used
        Dump([STATUS, load(b"x", paddr=0)]).write(path)
        assert json.loads(server.get(link).body) == {"runs": [{"start": "0x0", "end": "0x1", "kind": "data"}]}


def test_the_map_of_a_huge_dump_begins_at_once_and_ends_with_its_client(tmp_path: Path, serve: Serve) -> None:
    # 64 GiB of zeros in a sparse file: half a minute of reading.
    Dump([STATUS, load(b"x" * PAGE), load(paddr=PAGE, filesz=64 << 30, offset=1 << 20)], size=(64 << 30) + (1 << 20)).write(
        tmp_path / "vmcore"
    )
    live = serve(tmp_path / "vmcore", "--host-arch", "x86_64", "--workers", "1")
    with Connection(live.url) as server:
        link = only(server)["links"]["map"]
    begun = time.monotonic()
    with Connection(live.url) as server:
        server.socket.sendall(f"GET {link} HTTP/1.1\r\nHost: {urlsplit(live.url).netloc}\r\n\r\n".encode())
        received = b""
        while b'"data"' not in received:
            received += server.socket.recv(4096)
    assert time.monotonic() - begun < 10
    (worker,) = live.workers or [live.process.pid]
    give_up = time.monotonic() + 10
    while time.monotonic() < give_up:
        before = ticks(worker)
        time.sleep(0.5)
        if ticks(worker) - before < os.sysconf("SC_CLK_TCK") * 0.2:
            break
    else:
        raise AssertionError("it goes on reading for a client who has gone")


def ticks(pid: int) -> int:
    """CPU time that the process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_a_map_is_cut_when_its_dump_changes(tmp_path: Path, serve: Serve) -> None:
    path = Dump([STATUS, load(filesz=8 << 30, offset=1 << 20)], size=(8 << 30) + (1 << 20)).write(tmp_path / "vmcore")
    live = serve(path, "--host-arch", "x86_64")
    with Connection(live.url) as server:
        link = only(server)["links"]["map"]
        server.socket.sendall(f"GET {link} HTTP/1.1\r\nHost: {urlsplit(live.url).netloc}\r\n\r\n".encode())
        received = server.socket.recv(4096)
        os.utime(path, (1, 1))
        try:
            while piece := server.socket.recv(4096):
                received += piece
        except ConnectionError:
            pass
    assert b"]" not in received.partition(b"[")[2]
