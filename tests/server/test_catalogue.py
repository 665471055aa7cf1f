"""The catalogue follows the disk: files that come, grow, change, go, and come back."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from farcore.arch import Policy
from farcore.hosts import host
from farcore_server.catalogue import MAX_OPEN, Catalogue
from farcore_server.dump import Dump
from farcore_server.inspection import Rules
from farcore_server.opened import Opened
from tests.elfwriter import Dump as File
from tests.elfwriter import load
from tests.http1 import Connection
from tests.live import Serve

RULES = Rules(host("x86_64"), Policy())


def file(content: bytes = b"page", machine: int = 62) -> File:
    return File([load(content, paddr=0x1000)], machine=machine)


def catalogue(*paths: Path) -> Catalogue:
    made = Catalogue([str(path) for path in paths], RULES)
    made.scan()
    return made


def states(found: Catalogue) -> dict[str, str]:
    return {dump.name: dump.state for dump in found.dumps.values()}


def only(found: Catalogue) -> Dump:
    (dump,) = found.dumps.values()
    return dump


async def opened(found: Catalogue, dump: Dump) -> Opened:
    result = await found.open(dump.id)
    assert isinstance(result, Opened)
    return result


def bytes_of(found: Opened) -> bytes:
    return bytes(found.source.pread(0, found.source.size))


def test_a_scan_lists_what_is_or_should_be_a_dump_under_its_id(tmp_path: Path) -> None:
    file().write(tmp_path / "vmcore")
    file(machine=40).write(tmp_path / "foreign")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "vmcore-dmesg.txt").write_text("hello")
    (tmp_path / "vmcore-broken.txt").write_text("hello")
    found = catalogue(tmp_path)
    assert states(found) == {"vmcore": "ready", "foreign": "refused", "vmcore-broken.txt": "refused"}
    assert all(key == dump.id for key, dump in found.dumps.items())


def test_a_file_below_two_paths_is_one_dump_and_one_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "host").mkdir()
    path = file().write(tmp_path / "host" / "vmcore")
    found = catalogue(path, tmp_path, tmp_path / "host", tmp_path / "gone")
    assert states(found) == {"vmcore": "ready", "gone": "refused"}


def test_a_scan_notices_what_came_grew_changed_and_went(tmp_path: Path) -> None:
    path = tmp_path / "vmcore"
    whole = file(b"a" * 4096).tobytes()
    path.write_bytes(whole[:100])
    found = catalogue(tmp_path)
    seen = [states(found)]
    for content in (whole[:2000], whole, b"\0" * 100):
        path.write_bytes(content)
        found.scan()
        seen.append(states(found))
    (tmp_path / "new").write_bytes(whole)
    (tmp_path / "new").rename(path)
    found.scan()
    seen.append(states(found))
    path.unlink()
    found.scan()
    assert [*seen, states(found)] == [
        {"vmcore": "refused"},
        {"vmcore": "incomplete"},
        {"vmcore": "ready"},
        {"vmcore": "refused"},
        {"vmcore": "ready"},
        {},
    ]


def test_what_has_not_changed_is_not_inspected_again(tmp_path: Path) -> None:
    path = file().write(tmp_path / "vmcore")
    found = catalogue(tmp_path)
    first = only(found)
    found.scan()
    assert only(found) is first
    path.chmod(0o440)
    found.scan()
    assert only(found) is not first


def test_a_file_that_could_not_be_read_for_a_moment_is_looked_at_again(tmp_path: Path) -> None:
    path = file().write(tmp_path / "vmcore")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
    try:
        found = catalogue(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert only(found).reason == "it cannot be opened: Too many open files"
    found.scan()
    assert only(found).state == "ready"


def test_no_two_scans_run_at_once(tmp_path: Path) -> None:
    # The second one would take the first one's findings for changes, and the order in which they end would decide.
    file().write(tmp_path / "vmcore")
    found = catalogue(tmp_path)
    first = only(found)

    async def both() -> None:
        await asyncio.gather(*(asyncio.to_thread(found.scan) for _ in range(8)))

    asyncio.run(both())
    assert only(found) is first


async def test_a_dump_is_opened_once_and_stays_open(tmp_path: Path) -> None:
    path = file().write(tmp_path / "vmcore")
    found = catalogue(tmp_path)
    dump = only(found)
    at_once = await asyncio.gather(*(opened(found, dump) for _ in range(8)))
    assert len({id(each) for each in [*at_once, await opened(found, dump)]}) == 1
    assert bytes_of(at_once[0]) == path.read_bytes()


async def test_who_opens_a_changed_dump_gets_its_new_version_without_a_scan(tmp_path: Path) -> None:
    path = file(b"old").write(tmp_path / "vmcore")
    found = catalogue(tmp_path)
    old = await opened(found, only(found))
    path.unlink()
    file(b"new").write(path)
    new = await opened(found, only(found))
    assert (bytes_of(old)[-3:], bytes_of(new)[-3:]) == (b"old", b"new")
    assert (old.dump.id, old.dump.etag == new.dump.etag) == (new.dump.id, False)
    assert only(found) is new.dump
    assert (old.unchanged(), old.current(), new.current()) == (True, False, True)
    with path.open("r+b") as rewritten:
        rewritten.write(b"\x7f")
        os.utime(path, (1, 1))
    assert not new.unchanged()


async def test_who_opens_what_may_not_be_served_gets_the_dump_and_who_opens_what_is_gone_gets_nothing(tmp_path: Path) -> None:
    path = file(machine=40).write(tmp_path / "vmcore")
    found = catalogue(tmp_path)
    dump = only(found)
    answer = await found.open(dump.id)
    assert isinstance(answer, Dump)
    assert (answer.state, await found.open("vmcore-00000000")) == ("refused", None)
    path.unlink()
    assert await found.open(dump.id) is None
    assert found.dumps == {}


async def test_a_link_that_leads_nowhere_and_a_path_that_is_gone_stay_listed_when_they_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "vmcore").symlink_to("nothing")
    named = file().write(tmp_path / "named")
    found = catalogue(named, tmp_path)
    named.unlink()
    for dump in list(found.dumps.values()):
        answer = await found.open(dump.id)
        assert isinstance(answer, Dump)
        assert answer.reason in ("a link to nothing", "no such file")
    assert states(found) == {"vmcore": "refused", "named": "refused"}


async def test_a_ready_dump_that_becomes_refused_is_no_longer_handed_out(tmp_path: Path) -> None:
    path = file().write(tmp_path / "vmcore")
    found = catalogue(tmp_path)
    dump = only(found)
    await opened(found, dump)
    path.write_bytes(file(machine=40).tobytes() + b"longer")
    answer = await found.open(dump.id)
    assert isinstance(answer, Dump)
    assert answer.state == "refused"


async def test_a_link_that_is_turned_outwards_between_scans_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    inside, outside = file().write(tmp_path / "served" / "dump"), file(b"secret").write(tmp_path / "secret")
    link = tmp_path / "served" / "vmcore"
    link.symlink_to(inside)
    found = catalogue(tmp_path / "served")
    dump = next(each for each in found.dumps.values() if each.name == "vmcore")
    await opened(found, dump)
    link.unlink()
    link.symlink_to(outside)
    answer = await found.open(dump.id)
    assert isinstance(answer, Dump)
    assert "leads out of the served directory" in answer.reason


async def test_a_dump_whose_storage_fails_keeps_its_mark_however_many_are_read_after_it(tmp_path: Path) -> None:
    for number in range(MAX_OPEN + 2):
        file(b"%08d" % number).write(tmp_path / f"vmcore-{number:04}")
    found = catalogue(tmp_path)
    dumps = sorted(found.dumps.values(), key=lambda dump: dump.name)
    broken = await opened(found, dumps[0])
    broken.source.fails(4096)
    for dump in dumps[1:]:
        await opened(found, dump)
    assert [dump.name for dump in found.marked().values() if dump.state == "incomplete"] == ["vmcore-0000"]
    # Where all of them fail, there is room for another one still.
    others = [await opened(found, dump) for dump in dumps[3:]]
    for each in others:
        each.source.fails(4096)
    for dump in dumps[1:3]:
        assert bytes_of(await opened(found, dump))[-8:] == dump.name[-4:].rjust(8, "0").encode()
    assert broken.source.failed == {4096}


async def test_only_so_many_dumps_stay_open_and_one_in_use_stays_readable(tmp_path: Path) -> None:
    for number in range(MAX_OPEN + 1):
        file(b"%08d" % number).write(tmp_path / f"vmcore-{number:04}")
    found = catalogue(tmp_path)
    dumps = sorted(found.dumps.values(), key=lambda dump: dump.name)
    before = len(os.listdir("/proc/self/fd"))
    first = await opened(found, dumps[0])
    each = len(os.listdir("/proc/self/fd")) - before
    for dump in dumps[1:MAX_OPEN]:
        await opened(found, dump)
    assert len(os.listdir("/proc/self/fd")) - before == MAX_OPEN * each
    assert await opened(found, dumps[0]) is first
    # One more: the least recently used makes room, and that is the second.
    await opened(found, dumps[MAX_OPEN])
    assert len(os.listdir("/proc/self/fd")) - before == MAX_OPEN * each
    assert await opened(found, dumps[0]) is first
    assert bytes_of(first)[-8:] == b"%08d" % 0
    for dump in dumps[1:]:
        await opened(found, dump)
    assert await opened(found, dumps[0]) is not first
    assert bytes_of(first)[-8:] == b"%08d" % 0


class Stumbling(Catalogue):
    """Its second scan fails."""

    scans = 0

    def scan(self) -> None:
        self.scans += 1
        if self.scans == 2:
            raise MemoryError("as the test planned")
        super().scan()


async def test_changes_are_noticed_by_and_by_even_after_a_scan_that_failed(tmp_path: Path) -> None:
    found = Stumbling([str(tmp_path)], RULES)
    found.scan()
    watch = asyncio.create_task(found.watch(0.01))
    file().write(tmp_path / "vmcore")
    async with asyncio.timeout(10):
        while not found.dumps:  # noqa: ASYNC110 - it is another thread that is waited for
            await asyncio.sleep(0.01)
    watch.cancel()
    assert states(found) == {"vmcore": "ready"}
    assert found.scans > 2


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dump beside ten thousand small files."""
    folder = tmp_path_factory.mktemp("crowd")
    File([load(b"page", paddr=0x1000)], gap=4096).write(folder / "vmcore")
    for number in range(10_000):
        (folder / f"{number}").write_bytes(b"x")
    return folder


# Notes every directory and file below WATCHED that Python reads, from the start of the interpreter on.
SITECUSTOMIZE = """
import os, sys
watched, log = os.environ["WATCHED"], os.open(os.environ["SEEN"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def note(event, arguments):
    if event in ("os.scandir", "os.listdir", "open") and str(arguments[0]).startswith(watched):
        os.write(log, f"{event}\\n".encode())

sys.addaudithook(note)
"""


def settled(log: Path) -> Counter[str]:
    """The counts once they have not grown for half a second: the first searches are over."""
    seen = [Counter(log.read_text().split())]
    while len(seen) < 6 or seen[-6] != seen[-1]:
        time.sleep(0.1)
        seen.append(Counter(log.read_text().split()))
    return seen[-1]


def test_ten_thousand_files_beside_a_dump_cost_a_request_nothing(tmp_path: Path, crowd: Path, serve: Serve) -> None:
    (tmp_path / "sitecustomize.py").write_text(SITECUSTOMIZE)
    environment = {"PYTHONPATH": str(tmp_path), "WATCHED": str(crowd), "SEEN": str(tmp_path / "seen")}
    live = serve(crowd, "--rescan", "3600", environment=environment)
    with Connection(live.url) as server:
        (dump,) = json.loads(server.get("/v1/dumps").body)["dumps"]
        server.get(dump["links"]["vmcore"], Range="bytes=0-3")
        before = settled(tmp_path / "seen")
        assert before["os.scandir"] >= 1
        assert before["open"] > 10_000
        for _ in range(20):
            for link in ("self", "vmcore", "stored", "physical"):
                assert server.get(dump["links"][link], Range="bytes=4096-4099").status == (200 if link == "self" else 206)
            assert server.get("/v1/dumps").status == 200
        assert Counter((tmp_path / "seen").read_text().split()) == before


SCANNED = """
import sys
import time
from collections import Counter
from farcore.arch import Policy
from farcore.hosts import host
from farcore_server.catalogue import Catalogue
from farcore_server.inspection import Rules
seen = Counter()
catalogue = Catalogue([sys.argv[1]], Rules(host("x86_64"), Policy()))
sys.addaudithook(lambda event, _: seen.update([event]) if event in ("os.scandir", "open") else None)
for _ in range(2):
    catalogue.scan()
    print(seen["os.scandir"], min(seen["open"], 10_000), len(catalogue.dumps))
    seen.clear()
"""


def test_a_second_scan_of_ten_thousand_files_opens_none_of_them(crowd: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SCANNED, crowd], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["1 10000 1", "1 0 1"], done.stderr
