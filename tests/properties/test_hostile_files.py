"""Files made to hurt: each is one sentence, in bounded time and memory, and the server goes on with the others."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.elfwriter import Dump as File
from tests.elfwriter import Segment, load, note
from tests.http1 import Connection
from tests.live import Live, Serve
from tests.served import QUICK, Said, maps, memory, only, until

SOUND = File([note(("CORE", 1, bytes(336)), ("VMCOREINFO", 0, b"OSRELEASE=6.1\n")), load(b"sound" * 100, paddr=0x1000)])
HEADER = SOUND.tobytes()


HUGE_DESC = b"\5\0\0\0\xff\xff\xff\xff\1\0\0\0CORE\0\0\0\0"


def written(file: File) -> Callable[[Path], object]:
    return file.write


def bytes_of(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def link(target: str) -> Callable[[Path], object]:
    return lambda path: path.symlink_to(target)


def zeros(path: Path) -> None:
    """64 MiB of notes that are all zero, behind a header that promises them."""
    File([Segment(type=4, offset=4096, filesz=64 << 20)], size=(64 << 20) + 4096).write(path)


def tiny_notes(path: Path) -> None:
    """64 MiB of the shortest notes there are."""
    one = b"\1\0\0\0\0\0\0\0\0\0\0\0A\0\0\0"
    File([Segment(type=4, content=one * (4 << 20))]).write(path)


# What is refused, and a word of the reason.
REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "vmcore-one-byte": (bytes_of(b"\x7f"), "no dump format starts with"),
    "vmcore-magic": (bytes_of(HEADER[:4]), "ends within its ELF header"),
    "vmcore-half-a-header": (bytes_of(HEADER[:50]), "ends within its ELF header"),
    "vmcore-header-alone": (bytes_of(HEADER[:64]), "do not fit a file of 64 bytes"),
    "vmcore-half-a-program-header": (bytes_of(HEADER[:150]), "do not fit a file of 150 bytes"),
    "vmcore-phnum": (written(File(SOUND.segments, header={"e_phnum": 0xFFFE})), "65,534 program headers"),
    "vmcore-phentsize": (written(File(SOUND.segments, header={"e_phentsize": 0xFFFF})), "phentsize"),
    "vmcore-phoff": (written(File(SOUND.segments, header={"e_phoff": (1 << 64) - 1})), "do not fit"),
    "vmcore-xnum": (written(File(SOUND.segments, xnum=True, sh_info=0xFFFFFFFF)), "4,294,967,295 program headers"),
    "vmcore-shoff": (written(File(SOUND.segments, header={"e_phnum": 0xFFFF, "e_shoff": (1 << 64) - 8})), "PN_XNUM"),
    "vmcore-wraps": (written(File([load(offset=(1 << 64) - 4096, filesz=8192)])), "wraps 2^64"),
    "vmcore-zeros": (lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 1 << 40), "it starts with zeros"),
    "vmcore-empty": (Path.touch, "the file is empty"),
    "vmcore-fifo": (os.mkfifo, "a FIFO"),
    "vmcore-device": (link("/dev/zero"), "a character device"),
    "vmcore-terminal": (link("/dev/tty"), "a character device"),
    "vmcore-out": (link("/etc/passwd"), "leads out of the served directory"),
    "vmcore-up": (link("../../../../../../../etc/passwd"), "leads out of the served directory"),
    "vmcore-dangling": (link("nothing"), "a link to nothing"),
    "vmcore-circle": (link("vmcore-circle"), "Too many levels of symbolic links"),
}
# What is served, with a warning that has these words.
WARNED: dict[str, tuple[Callable[[Path], object], str]] = {
    "vmcore-beyond": (written(File([load(offset=1 << 60, filesz=1 << 50)])), "an incomplete dump"),
    "vmcore-notes-of-zeros": (zeros, "there are no notes"),
    "vmcore-tiny-notes": (tiny_notes, "there are more than 65,536 notes"),
    "vmcore-huge-desc": (
        written(File([Segment(type=4, content=HUGE_DESC)])),
        "a desc of 4,294,967,295) runs past its PT_NOTE",
    ),
    "vmcore-huge-desc-of-holes": (
        written(File([Segment(type=4, content=HUGE_DESC, filesz=1 << 33)], size=1 << 34)),
        "there is no PT_LOAD",
    ),
    "vmcore-no-memory": (written(File([note(("CORE", 1, b""))])), "there is no PT_LOAD"),
    "vmcore-paddr-wraps": (written(File([load(b"x", paddr=(1 << 64) - 1, memsz=1 << 63)])), "wraps 2^64"),
}
# Names for what is sound.
NAMES = {b"vmcore-\xff\xfe.elf": "vmcore-\ufffd\ufffd.elf", b"vmcore-\x1b[2J\r\n": "vmcore-\ufffd[2J\ufffd\ufffd"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    SOUND.write(folder / "vmcore")
    return folder


@pytest.fixture(scope="module")
def live(folder: Path, serve_all_along: Serve) -> Live:
    return serve_all_along(folder, "--host-arch", "x86_64", *QUICK)


@pytest.fixture(scope="module")
def parade(folder: Path, live: Live) -> dict[str, Said]:
    """All of them put beside the sound one while the server runs; the catalogue that comes of it, and what it cost."""
    with Connection(live.url) as server:
        assert server.get(only(server)["links"]["self"], Accept="text/html").status == 200
    before, begun = memory(live), time.monotonic()
    for name, (make, _) in {**REFUSED, **WARNED}.items():
        make(folder / name)
    for raw in NAMES:
        Path(os.fsdecode(os.fsencode(folder) + b"/" + raw)).write_bytes(HEADER)
    there = 1 + len(REFUSED) + len(WARNED) + len(NAMES)
    found = until(live, lambda seen: len(seen) == there)
    assert time.monotonic() - begun < 20
    # The 65,536 notes of one of them are most of it; the files have 129 MiB, and a tebibyte of holes.
    assert memory(live) - before < 48 << 20
    return found


@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_file_is_refused_in_one_sentence_and_never_mapped(parade: dict[str, Said], live: Live, name: str) -> None:
    said = parade[name]
    reason = said["verdict"]["policy"]["reason"]
    assert said["state"] == "refused"
    assert REFUSED[name][1] in reason
    assert reason.isprintable()
    assert len(reason) < 200
    with Connection(live.url) as server:
        for resource in ("vmcore", "stored", "memory/physical"):
            assert server.get(f"{said['links']['self']}/{resource}", Range="bytes=0-9").status == 422
        assert server.get(said["links"]["self"]).status == 200
        assert server.get(said["links"]["self"], Accept="text/html").status == 200
    assert f"/{name}" not in maps(live)


@pytest.mark.parametrize("name", WARNED)
def test_a_hostile_file_that_can_be_read_is_served_as_it_is_with_a_warning(
    parade: dict[str, Said], folder: Path, live: Live, name: str
) -> None:
    said = parade[name]
    assert said["state"] in ("ready", "incomplete")
    assert any(WARNED[name][1] in warning for warning in said["verdict"]["warnings"]), said["verdict"]["warnings"]
    with Connection(live.url) as server:
        begun = time.monotonic()
        answer = server.get(said["links"]["vmcore"], Range="bytes=0-99")
        assert (answer.status, answer.body) == (206, (folder / name).open("rb").read(100))
        assert server.get(said["links"]["physical"], Range="bytes=0-9").status in (206, 404, 416)
        assert server.get(f"{said['links']['vmcore']}?normalised", Range="bytes=0-3").body == b"\x7fELF"
        described = json.loads(server.get(said["links"]["self"]).body)
        assert len(described["notes"]) <= 65536
        assert server.get(said["links"]["self"], Accept="text/html").status == 200
        assert time.monotonic() - begun < 10


@pytest.mark.parametrize("raw", NAMES)
def test_a_name_that_no_terminal_should_see_is_replaced_and_its_dump_served(
    parade: dict[str, Said], live: Live, raw: bytes
) -> None:
    said = parade[NAMES[raw]]
    with Connection(live.url) as server:
        assert server.get(said["links"]["vmcore"]).body == HEADER


def test_the_sound_dump_beside_them_is_served_all_the_while(parade: dict[str, Said], live: Live) -> None:
    assert len(parade) > 20
    with Connection(live.url) as server:
        assert server.get(parade["vmcore"]["links"]["vmcore"]).body == HEADER
    # Each worker searches for itself, and one that began before the last file came is a search behind.
    assert until(live, lambda seen: seen.keys() == parade.keys())
    assert "Traceback" not in live.stderr
    assert live.process.poll() is None


@pytest.fixture(scope="module")
def changing(tmp_path_factory: pytest.TempPathFactory, serve_all_along: Serve) -> Iterator[tuple[Path, Connection, str, Live]]:
    path = SOUND.write(tmp_path_factory.mktemp("changing") / "vmcore")
    live = serve_all_along(path, "--allow-arch", "any")
    with Connection(live.url) as server:
        yield path, server, only(server)["links"]["self"], live


def damaged() -> st.SearchStrategy[bytes]:
    """A sound file in any class and byte order with some of its bytes replaced, cut anywhere; or just bytes."""
    sound = st.builds(
        lambda bits, data, xnum: bytearray(File(SOUND.segments, bits, data, xnum=xnum).tobytes()),
        st.sampled_from((32, 64)),
        st.sampled_from(("LE", "BE")),
        st.sampled_from((None, True)),
    )
    changes = st.lists(
        st.tuples(st.integers(0, 260), st.sampled_from([b"\0", b"\xff", b"\xff" * 8, b"\x80", b"\0" * 8, b"\1"])), max_size=4
    )
    return st.builds(_damage, sound, changes, st.none() | st.integers(1, 900)) | st.binary(min_size=1, max_size=300)


def _damage(content: bytearray, changes: list[tuple[int, bytes]], cut: int | None) -> bytes:
    for at, new in changes:
        content[at : at + len(new)] = new
    return bytes(content[:cut])


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=damaged())
def test_a_damaged_file_is_either_refused_or_served_byte_for_byte(
    changing: tuple[Path, Connection, str, Live], content: bytes
) -> None:
    path, server, dump, live = changing
    fresh = path.with_name("fresh")
    fresh.write_bytes(content)
    fresh.rename(path)
    answer = server.get(f"{dump}/vmcore")
    said = json.loads(server.get(dump).body)
    if said["state"] == "refused":
        assert answer.status == 422
        assert json.loads(answer.body)["detail"] == said["verdict"]["policy"]["reason"]
    else:
        assert (answer.status, answer.body) == (200, content)
        assert server.head(f"{dump}/memory/physical").status == 200
        assert server.get(f"{dump}/vmcore?normalised", Range="bytes=0-9").status in (206, 422)
    for accept in ("text/html", "application/json"):
        assert server.get(dump, Accept=accept).status == 200
    assert "Traceback" not in live.stderr
