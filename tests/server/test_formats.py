"""Every stored form through a live server: one ELF vmcore, physical memory, pages; the oracle is what kdumpwriter wrote."""

from __future__ import annotations

import json
import os
import random
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from farcore import arch
from farcore.arch import Policy
from farcore.elf import Elf
from farcore.hosts import HOSTS, host
from farcore.source import BytesSource
from farcore.space import PhysicalSpace
from farcore.vmcore import LISTED
from farcore_server.catalogue import Catalogue
from farcore_server.inspection import Rules
from tests import pages_wire
from tests.elfwriter import Dump as File
from tests.elfwriter import load, note
from tests.http1 import Connection
from tests.kdumpwriter import Kdump, flattened, fragment, fragments
from tests.live import Live, Serve
from tests.served import QUICK, Said, listed, only, until
from tests.storage import disk

BLOCK = 4096
INFO = b"OSRELEASE=6.1.0-test\nCRASHTIME=1700000000\n"


def page(number: int) -> bytes:
    """A page like no other; every fifth is zeros."""
    return bytes(BLOCK) if number % 5 == 4 else random.Random(number).randbytes(2048) + bytes([number % 256]) * 2048


def notes(*found: tuple[str, int, bytes], order: str = "<") -> bytes:
    """ELF notes as a kernel lays them out."""
    out = b""
    for name, kind, desc in found:
        owner = name.encode() + b"\0"
        out += struct.pack(order + "3I", len(owner), len(desc), kind)
        out += owner.ljust(-(-len(owner) // 4) * 4, b"\0") + desc.ljust(-(-len(desc) // 4) * 4, b"\0")
    return out


PAGES = {frame: page(frame) for frame in [*range(90), *range(100, 140), 150]}
EXCLUDED = {*range(90, 100), 151, 152}
NOTES = notes(("CORE", 1, bytes(336)), ("VMCOREINFO", 0, INFO))
WHOLE = Kdump(pages=PAGES, excluded=EXCLUDED, max_frame=160, notes=NOTES, vmcoreinfo=INFO)
ELF = File([note(("CORE", 1, bytes(336)), ("VMCOREINFO", 0, INFO)), load(b"".join(PAGES.values()), paddr=0x100000)]).tobytes()
FOREIGN = Kdump(pages=PAGES, bits=64, data="BE", machine="s390x", vmcoreinfo=INFO)


def cut(content: bytes, size: int) -> list[tuple[int, bytes]]:
    """Records, the last one first."""
    return [(at, content[at : at + size]) for at in range(0, len(content), size)][::-1]


def variants() -> dict[str, bytes]:
    """The same memory in every stored form, by the name of its file."""
    found = {f"vmcore.{name}": replace(WHOLE, compress=name).tobytes() for name in ("zlib", "lzo", "snappy", "zstd", "raw")}
    found |= {f"vmcore.v{version}": replace(WHOLE, version=version).tobytes() for version in (1, 3, 5)}
    found["vmcore.flat"] = flattened(cut(WHOLE.tobytes(), 3000))
    found["vmcore.32"] = replace(WHOLE, bits=32, machine="i686").tobytes()
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("formats")
    for name, content in variants().items():
        (folder / name).write_bytes(content)
    for i, split in enumerate([(0, 60), (60, 110), (110, 160)], 1):
        (folder / f"set.{i}").write_bytes(replace(WHOLE, split=split).tobytes())
    (folder / "elf.flat").write_bytes(flattened(cut(ELF, 3000)))
    (folder / "vmcore.s390x").write_bytes(FOREIGN.tobytes())
    (folder / "vmcore-incomplete").write_bytes(ELF)
    ranges = [(0x100000, PAGES[0] + PAGES[1]), (0x40000000, PAGES[2])]
    lime = b"".join(struct.pack("<4sIQQ8x", b"EMiL", 1, at, at + len(held) - 1) + held for at, held in ranges)
    (folder / "ram.lime").write_bytes(lime)
    return folder


@pytest.fixture(scope="module")
def live(folder: Path, serve_all_along: Serve, tmp_path_factory: pytest.TempPathFactory) -> Live:
    raw = tmp_path_factory.mktemp("raw") / "ram.bin"
    raw.write_bytes(PAGES[0] + PAGES[1][:100])
    return serve_all_along(folder, f"{raw}@0x40000000", "--host-arch", "x86_64", "--allow-arch", "i386", "--rescan", "3600")


@pytest.fixture
def server(live: Live) -> Iterator[Connection]:
    with Connection(live.url) as connection:
        yield connection


@pytest.fixture
def dumps(server: Connection) -> dict[str, Said]:
    return listed(server)


def image(server: Connection, dump: Said) -> tuple[BytesSource, Elf]:
    """The whole /vmcore."""
    content = BytesSource(server.get(dump["links"]["vmcore"]).body)
    return content, Elf.open(content)


def ask(server: Connection, links: dict[str, str], items: list[pages_wire.Item]) -> list[pages_wire.Frame]:
    """The frames of the answer to a batch."""
    fields = {"Content-Type": pages_wire.MEDIA_TYPE}
    return pages_wire.frames(server.request("POST", f"{links['self']}/pages", fields, pages_wire.request(items)).body)


def state(found: dict[str, Said], name: str) -> str | None:
    """That of the dump, None where a worker does not know it yet."""
    return found[name]["state"] if name in found else None


COMPRESSED = [*variants(), "set.1"]


@pytest.mark.parametrize("name", COMPRESSED)
def test_every_form_is_one_elf_vmcore_with_the_pages_that_were_written(
    server: Connection, dumps: dict[str, Said], name: str
) -> None:
    dump = dumps[name]
    assert dump["state"] == "ready"
    content, elf = image(server, dump)
    assert content.size == dump["size"]
    assert dump["stored_format"] == ("flattened" if name.endswith(".flat") else "kdump-compressed")
    host = next(host for host in HOSTS if host.name == ("i386" if name == "vmcore.32" else "x86_64"))
    assert arch.check(bytes(content.pread(0, 64)), host, Policy("kernel")).policy.accepted
    runs = [(int(each["paddr"]) // BLOCK, int(each["memsz"]) // BLOCK) for each in elf.loads]
    assert runs == [(0, 90), (100, 40), (150, 1)]
    memory = PhysicalSpace(content, elf)
    for frame, expected in PAGES.items():
        assert memory.pread(frame * BLOCK, BLOCK) == expected
    assert not set(elf.loads["filesz"] != elf.loads["memsz"]) - {False}


@pytest.mark.parametrize("name", COMPRESSED)
def test_physical_memory_and_pages_of_every_form_never_make_zeros_of_what_was_left_out(
    server: Connection, dumps: dict[str, Said], name: str
) -> None:
    links = dumps[name]["links"]
    got = server.get(links["physical"], Range=f"bytes={85 * BLOCK + 7}-{90 * BLOCK - 1}")
    assert (got.status, got.body) == (206, b"".join(PAGES[frame] for frame in range(85, 90))[7:])
    hole = server.get(links["physical"], Range=f"bytes={85 * BLOCK}-{91 * BLOCK}")
    said = json.loads(hole.body)
    assert (hole.status, said["address"], said["kind"]) == (404, hex(90 * BLOCK), "excluded")
    filled = server.get(links["physical"] + "?fill=zero", Range=f"bytes={89 * BLOCK}-{91 * BLOCK - 1}")
    assert filled.body == PAGES[89] + bytes(BLOCK)
    stored = server.get(links["stored"]).body
    items = [("physical", 88 * BLOCK, 4 * BLOCK), ("stored", 3, 100), ("physical", 145 * BLOCK, 6 * BLOCK), ("vmcore", 0, 64)]
    frames = ask(server, links, items)
    kinds = [(pages_wire.KINDS[kind], length) for frame in frames for kind, length in frame.runs]
    data = b"".join(frame.data for frame in frames)
    vmcore = server.get(links["vmcore"], Range="bytes=0-63").body
    assert data == PAGES[88] + stored[3:103] + PAGES[150] + vmcore
    assert [kind for kind, _ in kinds] == ["data", "zero", "excluded", "data", "absent", "data"]


def test_ranges_of_a_composed_vmcore_are_slices_of_the_whole(server: Connection, dumps: dict[str, Said]) -> None:
    dump = dumps["vmcore.lzo"]
    whole, _ = image(server, dump)
    pick = random.Random(5)
    for _ in range(40):
        first = pick.randrange(whole.size)
        last = min(whole.size - 1, first + pick.choice([0, 7, 4096, 70_000]))
        got = server.get(dump["links"]["vmcore"], Range=f"bytes={first}-{last}")
        assert (got.status, got.body) == (206, bytes(whole.pread(first, last + 1 - first)))
    several = server.get(dump["links"]["vmcore"], Range="bytes=0-9,5000-5009,-3")
    assert several.status == 206
    assert (several.get("Content-Type") or "").startswith("multipart/byteranges")


def test_all_forms_but_raw_tell_their_kernel(dumps: dict[str, Said]) -> None:
    told = {name: (dumps[name]["kernel_release"], dumps[name]["crash_time"]) for name in COMPRESSED if name != "vmcore.v1"}
    assert set(told.values()) == {("6.1.0-test", "2023-11-14T22:13:20Z")}
    assert dumps["vmcore.v1"]["kernel_release"] is None


def test_stored_bytes_are_the_file_and_its_outermost_layer_is_named(
    server: Connection, dumps: dict[str, Said], folder: Path
) -> None:
    for name in ("vmcore.lzo", "vmcore.flat", "elf.flat", "set.1"):
        assert server.get(dumps[name]["links"]["stored"]).body == (folder / name).read_bytes()
    formats = {name: dump["stored_format"] for name, dump in dumps.items()}
    assert formats["elf.flat"] == formats["vmcore.flat"] == "flattened"
    assert formats["ram.bin"] == formats["ram.lime"] == "raw"


def test_a_set_is_one_dump_named_after_its_first_part_and_each_part_can_be_had(
    server: Connection, dumps: dict[str, Said], folder: Path
) -> None:
    assert [name for name in dumps if name.startswith("set")] == ["set.1"]
    links = dumps["set.1"]["links"]
    said = json.loads(server.get(links["self"]).body)["parts"]
    assert said == [{"name": f"set.{i}", "size": (folder / f"set.{i}").stat().st_size} for i in (1, 2, 3)]
    for i in (1, 2, 3):
        content = (folder / f"set.{i}").read_bytes()
        assert server.get(f"{links['stored']}?part={i}").body == content
        assert server.get(f"{links['stored']}?part={i}", Range="bytes=5000-9000").body == content[5000:9001]
    for asked in ("0", "4", "x", "-1"):
        assert server.get(f"{links['stored']}?part={asked}").status == 404
    assert server.get(dumps["vmcore.lzo"]["links"]["stored"] + "?part=2").status == 404


def test_an_elf_in_a_flattened_stream_is_served_as_the_elf_it_restores_to(server: Connection, dumps: dict[str, Said]) -> None:
    dump = dumps["elf.flat"]
    assert (dump["state"], dump["size"]) == ("ready", len(ELF))
    assert server.get(dump["links"]["vmcore"]).body == ELF
    got = server.get(dump["links"]["physical"], Range=f"bytes={0x100000 + 5000}-{0x100000 + 20000}")
    assert got.body == b"".join(PAGES.values())[5000:20001]


def test_a_dump_of_a_machine_that_is_not_taken_is_refused_by_its_name(server: Connection, dumps: dict[str, Said]) -> None:
    dump = dumps["vmcore.s390x"]
    assert dump["state"] == "refused"
    assert dump["verdict"]["policy"]["reason"].endswith("found s390x (EM_S390); serve it with --allow-arch s390x")
    full = json.loads(server.get(dump["links"]["self"]).body)
    terms = {term["name"]: term["ok"] for term in full["verdict"]["kernel"]["terms"]}
    assert terms == dict.fromkeys(arch.TERMS) | {"arch": False}
    assert server.get(f"{dump['links']['self']}/stored").status == 422


def test_raw_memory_is_placed_by_its_address_and_lime_by_its_own(server: Connection, dumps: dict[str, Said]) -> None:
    for name, at, expected in (
        ("ram.bin", 0x40000000, PAGES[0] + PAGES[1][:100]),
        ("ram.lime", 0x100000, PAGES[0] + PAGES[1]),
        ("ram.lime", 0x40000000, PAGES[2]),
    ):
        links = dumps[name]["links"]
        wanted = f"bytes={at}-{at + len(expected) - 1}"
        assert server.get(links["physical"], Range=wanted).body == expected
        content, elf = image(server, dumps[name])
        assert PhysicalSpace(content, elf).pread(at, len(expected)) == expected
    assert "taken for x86_64" in dumps["ram.bin"]["verdict"]["warnings"][0]


def test_a_dump_that_is_being_written_is_incomplete_and_each_size_is_another_version(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "vmcore-incomplete"
    path.write_bytes(ELF[:-8192])
    live = serve(tmp_path, *QUICK, "--host-arch", "x86_64")
    (first,) = until(live, lambda found: bool(found)).values()
    assert first["state"] == "incomplete"
    with path.open("ab") as file:
        file.write(ELF[-8192:])
    grown = until(live, lambda found: found["vmcore-incomplete"]["size"] == len(ELF))["vmcore-incomplete"]
    assert grown["state"] == "incomplete"
    assert grown["etag"] != first["etag"]
    os.rename(path, tmp_path / "vmcore")
    assert until(live, lambda found: "vmcore" in found)["vmcore"]["state"] == "ready"


def test_a_set_is_complete_as_soon_as_its_last_part_has_come(serve: Serve, tmp_path: Path) -> None:
    parts = [replace(WHOLE, split=split).tobytes() for split in ((0, 60), (60, 110), (110, 160))]
    (tmp_path / "vmcore.2").write_bytes(parts[1])
    live = serve(tmp_path, *QUICK, "--host-arch", "x86_64")
    (alone,) = until(live, lambda found: bool(found)).values()
    assert (alone["name"], alone["state"]) == ("vmcore.2", "incomplete")
    assert "parts of the set are missing, and 91 pages with them" in alone["verdict"]["warnings"][0]
    (tmp_path / "vmcore.1").write_bytes(parts[0])
    two = until(live, lambda found: list(found) == ["vmcore.1"])["vmcore.1"]
    assert two["state"] == "incomplete"
    (tmp_path / "vmcore.3").write_bytes(parts[2])
    whole = until(live, lambda found: state(found, "vmcore.1") == "ready")["vmcore.1"]
    assert whole["etag"] != two["etag"]
    with Connection(live.url) as server:
        wanted = f"bytes={59 * BLOCK}-{61 * BLOCK - 1}"
        assert server.get(whole["links"]["physical"], Range=wanted).body == PAGES[59] + PAGES[60]
        (tmp_path / "vmcore.3").unlink()
        gone = until(live, lambda found: state(found, "vmcore.1") == "incomplete")["vmcore.1"]
        assert gone["etag"] == two["etag"]


def test_a_damaged_page_cuts_a_stream_and_is_named_in_a_batch(serve: Serve, tmp_path: Path) -> None:
    at = len(WHOLE.tobytes()) - BLOCK
    (tmp_path / "vmcore").write_bytes(replace(WHOLE, descriptors={7: (at, 99, 2)}).tobytes())
    live = serve(tmp_path, "--host-arch", "x86_64")
    with Connection(live.url) as server:
        links = listed(server)["vmcore"]["links"]
        items = [("physical", 6 * BLOCK, 3 * BLOCK)]
        (frame,) = ask(server, links, items)
    assert frame.runs == [(pages_wire.DATA, BLOCK), (pages_wire.UNREADABLE, BLOCK), (pages_wire.DATA, BLOCK)]
    assert frame.data == PAGES[6] + PAGES[8]


def test_a_dump_in_very_many_fragments_is_served_whole_and_described_in_part(serve: Serve, tmp_path: Path) -> None:
    count = 70_000
    (tmp_path / "vmcore").write_bytes(fragments(count))
    live = serve(tmp_path, "--host-arch", "x86_64")
    with Connection(live.url, timeout=60) as server:
        dump = only(server)
        links = dump["links"]
        assert (dump["state"], dump["elf"]["phnum"]) == ("ready", 1 + count)
        assert (len(dump["segments"]), dump["segments_left_out"]) == (LISTED - 1, count - LISTED + 1)
        (warning,) = dump["verdict"]["warnings"]
        assert warning.startswith("the dump is in 70,000 fragments, more than crash and makedumpfile take in an ELF core: ")
        headers = server.get(links["vmcore"], Range="bytes=0-4199999").body
        elf = Elf.first(BytesSource(headers))
        assert (elf.count, len(Elf.open(BytesSource(headers)).loads)) == (1 + count, count)
        for number in (0, 1, 8, 4097, count - 1):
            at = number * 2 * BLOCK
            assert server.get(links["physical"], Range=f"bytes={at}-{at + BLOCK - 1}").body == fragment(number)
            assert server.get(links["physical"], Range=f"bytes={at + BLOCK}-{at + BLOCK}").status == 404
            offset = dump["size"] - (count - number) * BLOCK
            several = server.get(links["vmcore"], Range=f"bytes={offset}-{offset + 3 * BLOCK - 1}").body
            assert several == b"".join(fragment(i) for i in range(number, min(count, number + 3)))
        frames = ask(server, links, [("physical", 0, 9 * 2 * BLOCK)])
        assert b"".join(frame.data for frame in frames) == b"".join(fragment(i) for i in (*range(1, 8),))
        runs = json.loads(server.get(links["map"]).body)["runs"]
    kinds = [run["kind"] for run in runs]
    assert kinds[::2] == ["zero" if i % 1000 % 8 == 0 else "data" for i in range(count)]
    assert set(kinds[1::2]) == {"excluded"}


def test_a_dump_whose_disk_fails_is_listed_as_such_and_read_again_at_the_next_search(tmp_path: Path) -> None:
    below = tmp_path / "below"
    below.mkdir()
    # Not a usual name: for that alone nobody would list it.
    (below / "saved.bin").write_bytes(WHOLE.tobytes())
    with disk(below) as shown:
        catalogue = Catalogue([str(shown.folder)], Rules(host("x86_64"), Policy()))
        states = []
        for broken in (range(8192, 16384), range(4096, 8192), range(0)):  # the bitmaps, the sub header
            shown.broken = broken
            shown.forget()
            catalogue.scan()
            states.append([dump.state for dump in catalogue.dumps.values()])
        assert states == [["refused"], ["refused"], ["ready"]]
