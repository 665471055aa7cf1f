"""Kdump: every shape of a kdump-compressed file against the pages it was written from."""

from __future__ import annotations

import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farcore.diskdump import Diskdump
from farcore.errors import BadDumpError, FaultError
from farcore.flattened import Flattened
from farcore.kdump import Kdump
from farcore.pagecache import PageCache
from farcore.pagemap import PageMap
from farcore.runs import Kind
from farcore.source import BytesSource, Source, Window
from farcore.space import Space
from tests import kdumpwriter
from tests.faulty import Faulty
from tests.source_contract import SourceContract

BLOCK = 4096


def page(number: int, size: int = BLOCK) -> bytes:
    """A page like no other, that compresses; every fifth is zeros."""
    return (
        bytes(size)
        if number % 5 == 4
        else (f"page {number}. ".encode() * size)[: size // 2] + random.Random(number).randbytes(size // 2)
    )


def opened(*files: kdumpwriter.Kdump, cache: int = 1 << 20) -> Kdump:
    """The dump in these files."""
    return Kdump.open([BytesSource(file.tobytes()) for file in files], cache=PageCache(cache))


def memory(*files: kdumpwriter.Kdump) -> Space:
    """Its physical memory."""
    return opened(*files).memory()


def fault(source: Source, address: int, length: int = 1) -> tuple[str, int]:
    """The kind and the address of the fault that a read ends in."""
    with pytest.raises(FaultError) as caught:
        source.pread(address, length)
    assert caught.value.space == "physical"
    return caught.value.kind, caught.value.address


def paged(content: bytes, apart: int) -> kdumpwriter.Kdump:
    """A dump whose pages have these bytes, in every ``apart``th frame."""
    pages = {apart * at // BLOCK: content[at : at + BLOCK].ljust(BLOCK, b"\0") for at in range(0, len(content), BLOCK)}
    return kdumpwriter.Kdump(pages=pages)


class TestMemory(SourceContract):
    def make(self, content: bytes) -> Source:
        return Window(memory(paged(content, 1)), 0, len(content))


class TestPages(SourceContract):
    def make(self, content: bytes) -> Source:
        return Window(opened(paged(content, 3)), 0, len(content))


SHAPES = [(64, "LE", "x86_64"), (64, "BE", "s390x"), (32, "LE", "i686"), (32, "LE", "mipsel"), (32, "BE", "ppc")]


@pytest.mark.parametrize("version", range(7))
@pytest.mark.parametrize(("bits", "data", "machine"), SHAPES)
def test_every_version_word_size_and_byte_order_is_read(version: int, bits: int, data: str, machine: str) -> None:
    pages = {frame: page(frame) for frame in (0, 1, 2, 9, 4097)}
    written = kdumpwriter.Kdump(
        pages=pages,
        excluded={3},
        version=version,
        bits=bits,
        data=data,
        machine=machine,
        vmcoreinfo=b"OSRELEASE=1\n",
        notes=b"notes",
        eraseinfo=b"erased",
        sub={"phys_base": 0x1000000},
    )
    below = BytesSource(written.tobytes())
    header = Diskdump.read(below)
    assert (header.version, header.bits, header.data, header.machine) == (version, bits, data, machine)
    assert header.phys_base == 0x1000000
    found = [bytes(below.pread(*extent)) if extent else None for extent in (header.vmcoreinfo, header.notes, header.eraseinfo)]
    since = ((3, b"OSRELEASE=1\n"), (4, b"notes"), (5, b"erased"))
    assert found == [content if version >= first else None for first, content in since]
    kdump = Kdump.open([below]).memory()
    assert all(kdump.pread(frame * BLOCK, BLOCK) == content for frame, content in pages.items())
    assert fault(kdump, 3 * BLOCK) == ("excluded", 3 * BLOCK)
    assert fault(kdump, 4 * BLOCK) == ("absent", 4 * BLOCK)


@pytest.mark.parametrize("compress", kdumpwriter.COMPRESS)
@pytest.mark.parametrize("block", [512, 4096, 65536])
def test_every_codec_and_block_size_is_read(compress: str, block: int) -> None:
    pages = {frame: page(frame, block) for frame in range(40) if frame % 7}
    kdump = memory(kdumpwriter.Kdump(pages=pages, compress=compress, block=block))
    for first in (1, 8, 15):
        run = b"".join(pages[first + i] for i in range(6))
        assert kdump.pread(first * block, 6 * block) == run
        assert kdump.pread(first * block + 100, 5 * block) == run[100 : 5 * block + 100]


def test_arm_counts_its_frames_from_the_start_of_its_memory() -> None:
    kdump = memory(kdumpwriter.Kdump(pages={1: page(1)}, bits=32, machine="armv7l", sub={"phys_base": 0x60000000}))
    assert kdump.pread(0x60001000, BLOCK) == page(1)
    assert fault(kdump, 0x1000) == ("absent", 0x1000)


frames = st.dictionaries(st.integers(0, 200), st.sampled_from(["data", "excluded"]), max_size=60)


@settings(max_examples=60, deadline=None)
@given(frames, st.integers(0, 200 * BLOCK), st.integers(0, 30 * BLOCK), st.integers(0, 200))
def test_a_read_gives_the_pages_or_the_first_fault(kinds: dict[int, str], start: int, length: int, cut: int) -> None:
    pages = {frame: page(frame) for frame, kind in kinds.items() if kind == "data"}
    excluded = {frame for frame in kinds if frame not in pages}
    whole = kdumpwriter.Kdump(pages=pages, excluded=excluded, max_frame=201)
    kdumps = [memory(whole), memory(replace(whole, split=(cut, 201)), replace(whole, split=(0, cut)))]
    touched = range(start // BLOCK, -(-(start + length) // BLOCK)) if length else range(0)
    wanted = next((frame for frame in touched if frame not in pages), None)
    for kdump in kdumps:
        if start + length > kdump.size:
            continue
        if wanted is not None:
            kind = "excluded" if wanted in excluded else "absent"
            assert fault(kdump, start, length) == (kind, max(start, wanted * BLOCK))
        else:
            content = b"".join(pages[frame] for frame in touched)
            assert kdump.pread(start, length) == content[start % BLOCK :][:length]


def test_a_set_without_one_of_its_parts_is_incomplete_and_its_pages_are_absent() -> None:
    pages = {frame: page(frame) for frame in range(30)}
    parts = [kdumpwriter.Kdump(pages=pages, split=(at, at + 10)) for at in (0, 10, 20)]
    index, kdump = opened(parts[2], parts[0]).index, memory(parts[2], parts[0])
    assert index.problems == ("parts of the set are missing, and 10 pages with them: put all parts into one directory",)
    assert kdump.pread(25 * BLOCK, BLOCK) == pages[25]
    assert fault(kdump, 9 * BLOCK, 2 * BLOCK) == ("absent", 10 * BLOCK)
    with pytest.raises(BadDumpError, match="same page frames"):
        opened(parts[0], parts[0])
    with pytest.raises(BadDumpError, match="not parts of one dump"):
        opened(parts[0], kdumpwriter.Kdump(pages=pages, split=(10, 20), max_frame=40))


@pytest.mark.parametrize("short", [1, 4000, 30_000, 60_000])
def test_of_a_file_that_was_cut_off_the_rest_is_served_and_what_is_lost_is_absent(short: int) -> None:
    pages = {frame: page(frame) for frame in range(40)}
    content = kdumpwriter.Kdump(pages=pages, compress="raw").tobytes()
    found = Kdump.open([BytesSource(content[:-short])])
    kdump = found.memory()
    data = [frame for frame in range(40) if frame % 5 != 4]
    lost = data[-((short + BLOCK - 1) // BLOCK) :]
    kept = [run for run in found.pages.runs.walk(0, 40 * BLOCK) if run.kind is Kind.DATA]
    assert sum(run.stop - run.start for run in kept) == (40 - len(lost)) * BLOCK
    assert [f"{len(lost)} of 40 pages" in problem for problem in found.index.problems] == [True]
    for frame, content in pages.items():
        if frame in lost:
            assert fault(kdump, frame * BLOCK) == ("absent", frame * BLOCK)
        else:
            assert kdump.pread(frame * BLOCK, BLOCK) == content


def test_a_page_that_does_not_decompress_is_unreadable_and_the_others_are_not() -> None:
    pages = {frame: page(frame) for frame in range(8)}
    sound = kdumpwriter.Kdump(pages=pages).tobytes()
    stored = len(sound) - BLOCK
    damage = {
        1: (stored, 100, 1),  # not zlib
        2: (stored - 1, 4097, 0),  # longer than a block
        3: (stored, 4095, 0),  # shorter, though not compressed
        5: (stored, 100, 3),  # compressed in two ways
        6: (len(sound) + 1, 100, 1),  # past the end
    }
    kdump = memory(kdumpwriter.Kdump(pages=pages, descriptors=damage))
    for frame in (0, 4, 7):
        assert kdump.pread(frame * BLOCK, BLOCK) == pages[frame]
    found = {frame: fault(kdump, frame * BLOCK, BLOCK) for frame in damage}
    assert found == {frame: ("absent" if frame == 6 else "unreadable", frame * BLOCK) for frame in damage}


@pytest.mark.parametrize("compress", ["zlib", "lzo", "snappy", "zstd"])
def test_a_page_that_would_grow_beyond_its_block_is_unreadable(compress: str) -> None:
    flag, pack = kdumpwriter.COMPRESS[compress]
    bomb = pack(bytes(512 << 10))[:BLOCK]
    pages = {0: page(0), 1: page(1)}
    at = len(kdumpwriter.Kdump(pages=pages, compress="raw").tobytes()) - BLOCK
    written = kdumpwriter.Kdump(pages=pages, compress="raw", descriptors={1: (at, len(bomb), flag)}).tobytes()
    kdump = Kdump.open([BytesSource(written[:at] + bomb.ljust(BLOCK, b"\0"))]).memory()
    assert fault(kdump, BLOCK) == ("unreadable", BLOCK)
    assert kdump.pread(0, BLOCK) == page(0)


@pytest.mark.parametrize(
    ("header", "sub", "said"),
    [
        ({"bitmap_blocks": 1 << 20}, {}, "bitmaps end at byte"),
        ({"sub_hdr_size": 1 << 20}, {}, "bitmaps end at byte"),
        ({"block_size": 4095}, {}, "damaged"),
        ({"block_size": 1 << 20}, {}, "damaged"),
        ({"bitmap_blocks": 0}, {}, "damaged"),
        ({}, {"max_mapnr_64": 1 << 40}, "do not fit its bitmaps"),
        ({}, {"split": 1, "start_pfn_64": 9, "end_pfn_64": 3}, "part of a set"),
    ],
)
def test_headers_that_lie_are_refused_in_one_sentence(header: dict[str, int], sub: dict[str, int], said: str) -> None:
    with pytest.raises(BadDumpError, match=said) as caught:
        opened(kdumpwriter.Kdump(pages={0: page(0)}, header=header, sub=sub))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(("fragments", "fits"), [(20, True), (21, False)])
def test_a_dump_in_more_fragments_than_may_be_kept_is_refused(fragments: int, fits: bool) -> None:
    below = BytesSource(kdumpwriter.Kdump(pages={2 * i: page(i) for i in range(fragments)}).tobytes())
    if fits:
        # The last frame has none behind it.
        assert len(PageMap.read(Diskdump.read(below), below, most=39).runs) == fragments
    else:
        with pytest.raises(BadDumpError, match="more than 39 fragments, too many to keep"):
            PageMap.read(Diskdump.read(below), below, most=39)


@pytest.mark.parametrize("size", [0, 8, 500, 4096, 4100, 8192, 12288])
def test_a_file_that_ends_before_its_bitmaps_is_refused(size: int) -> None:
    with pytest.raises(BadDumpError):
        opened(kdumpwriter.Kdump(pages={0: page(0)}, size=size))


def test_what_is_read_again_comes_from_the_cache_which_keeps_its_bound() -> None:
    pages = {frame: page(frame) for frame in range(20)}
    below = Faulty(BytesSource(kdumpwriter.Kdump(pages=pages).tobytes()))
    cache = PageCache(5 * BLOCK + 24 * 170)  # descriptors are kept as well
    kdump = Kdump.open([below], cache=cache)
    stored = kdump.header.descriptors_at + 24 * 20

    def reads(frame: int) -> int:
        below.asked.clear()
        assert kdump.pread(frame * BLOCK, BLOCK) == pages[frame]
        return sum(offset >= stored for offset, _ in below.asked)

    assert [reads(frame) for frame in (0, 1, 2, 3, 5, 5, 3, 6, 3, 0, 6)] == [1, 1, 1, 1, 1, 0, 0, 1, 0, 1, 0]
    assert cache.held == cache.limit


@pytest.mark.parametrize("together", [1, 6])
def test_the_bytes_that_all_pages_of_zeros_share_are_read_once_and_no_such_page_takes_room(together: int) -> None:
    """One page at a time, and six, of which one is not zero; in each of the two parts of a set."""
    zeros = {frame: bytes(BLOCK) for frame in range(200) if frame % 6}
    pages = {frame: page(frame) for frame in range(0, 200, 6)} | zeros
    parts = [Faulty(BytesSource(kdumpwriter.Kdump(pages=pages, split=split).tobytes())) for split in ((0, 100), (100, 200))]
    cache = PageCache(1 << 20)
    dump = Kdump.open(parts, cache=cache).memory()
    frames = range(1, 200 - together) if together > 1 else sorted(zeros)
    for frame in frames:
        wanted = b"".join(pages[frame + i] for i in range(together))
        assert dump.pread(frame * BLOCK, len(wanted)) == wanted
    if together == 1:
        assert cache.held < 4 * BLOCK
    for part in parts:
        at = Diskdump.read(part).descriptors_at + 24 * sum(part is not parts[1] if f < 100 else part is parts[1] for f in pages)
        assert sum(offset == at and length >= BLOCK for offset, length in part.asked) <= 1


def test_the_storage_failing_is_a_fault_at_the_physical_address() -> None:
    below = BytesSource(kdumpwriter.Kdump(pages={frame: page(frame) for frame in range(8)}).tobytes())
    kdump = Kdump.open([below])
    failing = Kdump.open([Faulty(below, at={kdump.header.descriptors_at + 24 * 2: "unreadable"})], index=kdump.index).memory()
    assert failing.pread(BLOCK, BLOCK) == page(1)
    assert fault(failing, 2 * BLOCK) == ("unreadable", 2 * BLOCK)


def test_a_kept_index_reads_the_same_without_the_bitmaps() -> None:
    pages = {frame: page(frame) for frame in range(0, 60, 2)}
    content = kdumpwriter.Kdump(pages=pages).tobytes()
    first = Kdump.open([BytesSource(content)])
    header = first.header
    blind = bytearray(content)
    blind[header.ram_at or 0 : header.descriptors_at] = bytes(header.descriptors_at - (header.ram_at or 0))
    again = Kdump.open([BytesSource(bytes(blind))], index=first.index).memory()
    assert all(again.pread(frame * BLOCK, BLOCK) == content for frame, content in pages.items())


def test_a_flattened_kdump_is_read_through_both_layers() -> None:
    pages = {frame: page(frame) for frame in range(16)}
    content = kdumpwriter.Kdump(pages=pages).tobytes()
    cuts = [content[at : at + 5000] for at in range(0, len(content), 5000)]
    stream = BytesSource(kdumpwriter.flattened([(i * 5000, cut) for i, cut in reversed(list(enumerate(cuts)))]))
    kdump = Kdump.open([Flattened.index(stream).over(stream)]).memory()
    assert kdump.pread(0, 16 * BLOCK) == b"".join(pages.values())


def test_a_codec_that_is_not_there_is_named(tmp_path: Path) -> None:
    file = tmp_path / "vmcore"
    file.write_bytes(kdumpwriter.Kdump(pages={0: page(0)}, compress="lzo").tobytes())
    script = """
import pathlib, sys
sys.modules["lzallright"] = None
from farcore.kdump import Kdump
from farcore.source import BytesSource
Kdump.open([BytesSource(pathlib.Path(sys.argv[1]).read_bytes())]).pread(0, 4096)
"""
    done = subprocess.run([sys.executable, "-c", script, str(file)], capture_output=True, text=True)
    assert "compressed with LZO, which needs the Python package lzallright: pip install lzallright" in done.stderr
