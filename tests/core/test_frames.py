"""Frames against tests.pages_wire: what is written, what is read, and what no hostile answer achieves."""

from __future__ import annotations

import itertools
import os
import struct
import tracemalloc
from collections.abc import Iterable

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from farcore import frames
from farcore.errors import FrameError
from farcore.frames import MAX_RAW, MAX_RUNS, Decoder, Entry, Found, Piece
from farcore.runs import Kind
from tests import pages_wire
from tests.pages_wire import ABSENT, DATA, EXCLUDED, SAME, UNREADABLE, ZERO, Run

TEXT = b"one page is much like another, " * 100
RUNS: list[Run] = [(DATA, 3000), (ZERO, 4096), (EXCLUDED, 1), (ABSENT, 1 << 33), (UNREADABLE, 4096), (DATA, 100)]
TOTAL = sum(run[1] for run in RUNS) + 5
PACKED = zstd.compress(TEXT)


def sound(*, packed: bool) -> bytes:
    """An answer of two frames."""
    first = pages_wire.frame(0, RUNS, TEXT, stored=PACKED if packed else None)
    second = pages_wire.frame(TOTAL - 5, [(DATA, 5)], b"fives")
    return pages_wire.opening(TOTAL) + first + second + pages_wire.closing(TOTAL, 2)


def read(answer: bytes | Iterable[bytes], total: int = TOTAL, *, zstd: bool = True, largest: int = MAX_RAW) -> list[Piece]:
    """All pieces of an answer that must be whole."""
    decoder = Decoder(total, zstd=zstd, largest=largest)
    found = [piece for part in ([answer] if isinstance(answer, bytes) else answer) for piece in decoder.feed(part)]
    decoder.finish()
    return found


def summary(pieces: Iterable[Piece]) -> list[tuple[int, int, int, bytes]]:
    return [(at, length, kind, bytes(content)) for at, length, kind, content, _ in pieces]


EXPECTED = [
    (0, 3000, DATA, TEXT[:3000]),
    (3000, 4096, ZERO, b""),
    (7096, 1, EXCLUDED, b""),
    (7097, 1 << 33, ABSENT, b""),
    ((1 << 33) + 7097, 4096, UNREADABLE, b""),
    ((1 << 33) + 11193, 100, DATA, TEXT[3000:]),
    (TOTAL - 5, 5, DATA, b"fives"),
]


class TestWriting:
    @pytest.mark.parametrize("level", [None, -5, 1, 9])
    def test_an_answer_is_what_the_format_says(self, level: int | None) -> None:
        entries = [Entry(*run) for run in RUNS]
        parts = [frames.opening(TOTAL), *frames.frame(0, entries, TEXT, level)]
        parts += [*frames.frame(TOTAL - 5, [Entry(DATA, 5)], b"fives", level), frames.closing(TOTAL, 2)]
        first, second = pages_wire.frames(b"".join(parts))
        assert (first.at, first.runs, first.data) == (0, RUNS, TEXT)
        assert (second.at, second.runs, second.data) == (TOTAL - 5, [(DATA, 5)], b"fives")
        assert first.codec == (0 if level is None else 1)
        assert summary(read(b"".join(parts))) == EXPECTED

    def test_data_that_zstd_would_not_shrink_is_stored_plain(self) -> None:
        noise = os.urandom(5000)
        _, stored = frames.frame(0, [Entry(DATA, len(noise))], noise, 3)
        assert stored == noise

    def test_a_frame_of_holes_alone_has_no_data(self) -> None:
        head, stored = frames.frame(7, [Entry(ABSENT, 9)], b"", 1)
        assert (head, bytes(stored)) == (pages_wire.frame(7, [(ABSENT, 9)], b""), b"")

    def test_kinds_are_numbered_as_in_runs(self) -> None:
        assert {kind.name: kind.value for kind in Kind} == {kind.name: kind.value for kind in Found if kind < 4}


class TestReading:
    @pytest.mark.parametrize("packed", [False, True])
    @given(st.data())
    def test_an_answer_is_read_however_it_is_cut(self, packed: bool, data: st.DataObject) -> None:
        answer = sound(packed=packed)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(answer)))))
        parts = [answer[low:high] for low, high in itertools.pairwise([0, *cuts, len(answer)])]
        assert summary(read(parts)) == EXPECTED

    def test_an_answer_is_read_byte_by_byte(self) -> None:
        assert summary(read(bytes([byte]) for byte in sound(packed=True))) == EXPECTED

    def test_an_answer_to_no_items_is_an_opening_and_an_end(self) -> None:
        assert read(pages_wire.opening(0) + pages_wire.closing(0, 0), 0) == []

    def test_no_piece_of_a_frame_is_handed_out_before_all_of_it_is_there(self) -> None:
        first = pages_wire.opening(5000) + pages_wire.frame(0, [(ZERO, 1900), (DATA, 3100)], TEXT)
        decoder = Decoder(5000, zstd=False)
        assert list(decoder.feed(first[:-1])) == []
        assert len(list(decoder.feed(first[-1:]))) == 2

    def test_what_was_read_cannot_be_written_to(self) -> None:
        for packed in (False, True):
            assert all(piece.content.readonly for piece in read(sound(packed=packed)))

    @pytest.mark.parametrize("packed", [False, True])
    def test_an_answer_that_was_cut_anywhere_is_not_complete(self, packed: bool) -> None:
        answer = sound(packed=packed)
        for length in range(len(answer)):
            decoder = Decoder(TOTAL, zstd=True)
            found = summary(decoder.feed(answer[:length]))
            assert found == EXPECTED[: len(found)]
            with pytest.raises(FrameError, match="cut after"):
                decoder.finish()

    def test_every_bit_that_changed_on_the_way_is_noticed(self) -> None:
        answer = sound(packed=False)
        for bit in range(len(answer) * 8):
            damaged = bytearray(answer)
            damaged[bit // 8] ^= 1 << bit % 8
            with pytest.raises(FrameError):
                read(bytes(damaged))

    def test_a_bit_that_changed_in_compressed_data_is_noticed_or_changes_nothing(self) -> None:
        answer = sound(packed=True)
        start = answer.index(PACKED)
        noticed = 0
        for bit in range(start * 8, (start + len(PACKED)) * 8):
            damaged = bytearray(answer)
            damaged[bit // 8] ^= 1 << bit % 8
            try:
                assert summary(read(bytes(damaged))) == EXPECTED
            except FrameError:
                noticed += 1
        assert noticed > len(PACKED) * 4


def after(frame: bytes, total: int = 5000) -> bytes:
    """An answer about ``total`` bytes that starts with this frame."""
    return pages_wire.opening(total) + frame


FIVE = pages_wire.frame(0, [(DATA, 5)], b"fives")
# zstd's own checksum stands behind all of the data.
SUMMED: dict[int, int] = {zstd.CompressionParameter.checksum_flag: 1}
HOSTILE = {
    "another magic": ("not an answer of version 1", b"FCPQ" + pages_wire.opening(5000)[4:]),
    "another version": ("not an answer of version 1", b"FCPA\x02" + pages_wire.opening(5000)[5:]),
    "bytes left free": ("not an answer of version 1", b"FCPA\x01\1" + pages_wire.opening(5000)[6:]),
    "another total": ("5,001 bytes; 5,000 were asked for", pages_wire.opening(5001)),
    "an unknown type": ("type 3", after(pages_wire.frame(0, [(DATA, 5)], b"fives", wrong={"type": 3}))),
    "an unknown codec": ("codec 2", after(pages_wire.frame(0, [(DATA, 5)], b"fives", wrong={"codec": 2}))),
    "free bytes in a frame": ("was due", after(pages_wire.frame(0, [(DATA, 5)], b"fives", wrong={"free": 1}))),
    "no runs": ("out of bounds", after(pages_wire.frame(0, [], b""))),
    "too many runs": ("out of bounds", after(pages_wire.frame(0, [(ABSENT, 1)] * (MAX_RUNS + 1), b""))),
    "a claim of too many runs": (
        "out of bounds",
        after(pages_wire.frame(0, [(DATA, 5)], b"fives", wrong={"runs": 0xFFFFFFFF})),
    ),
    "a claim of too much data": (
        "out of bounds",
        after(pages_wire.frame(0, [(DATA, 5)], b"fives", wrong={"raw": MAX_RAW + 1, "stored": MAX_RAW + 1})),
    ),
    "more stored than data": ("out of bounds", after(pages_wire.frame(0, [(DATA, 5)], b"fives", wrong={"stored": 0xFFFFFFFF}))),
    "less stored than data": ("out of bounds", after(pages_wire.frame(0, [(DATA, 5)], b"fives", wrong={"stored": 4}))),
    "compressed to no less": ("out of bounds", after(pages_wire.frame(0, [(DATA, 5)], b"fives", stored=b"12345"))),
    "a frame that comes too early": ("was due", after(pages_wire.frame(1, [(DATA, 5)], b"fives"))),
    "a frame that comes again": ("was due", after(FIVE + FIVE)),
    "a kind there is not": ("kind or a length", after(pages_wire.frame(0, [(5, 5)], b""))),
    "a run of no bytes": ("kind or a length", after(pages_wire.frame(0, [(ABSENT, 0), (DATA, 5)], b"fives"))),
    "runs past the end": ("does not fit", after(pages_wire.frame(0, [(ABSENT, 4996), (DATA, 5)], b"fives"))),
    "a run past the end": ("kind or a length", after(pages_wire.frame(0, [(ABSENT, (1 << 60) - 1)], b""))),
    "runs that wrap": ("kind or a length", after(pages_wire.frame(0, [(ABSENT, (1 << 60) - 1)] * 17, b""))),
    "less data than its runs": ("does not fit", after(pages_wire.frame(0, [(DATA, 6)], b"fives"))),
    "more data than its runs": ("does not fit", after(pages_wire.frame(0, [(DATA, 4)], b"fives"))),
    "a wrong checksum": ("checksum", after(FIVE[:24] + bytes(8) + FIVE[32:])),
    "no zstd": ("cannot be decompressed", after(pages_wire.frame(0, [(DATA, len(TEXT))], TEXT, stored=b"not at all"))),
    "zstd that was cut": ("does not decompress", after(pages_wire.frame(0, [(DATA, len(TEXT))], TEXT, stored=PACKED[:-1]))),
    "zstd without its end": (
        "does not decompress",
        after(pages_wire.frame(0, [(DATA, len(TEXT))], TEXT, zstd.compress(TEXT, options=SUMMED)[:-1])),
    ),
    "zstd and more": ("does not decompress", after(pages_wire.frame(0, [(DATA, len(TEXT))], TEXT, stored=PACKED + b"x"))),
    "two frames of zstd": (
        "does not decompress",
        after(pages_wire.frame(0, [(DATA, len(TEXT))], TEXT, stored=PACKED + PACKED)),
    ),
    "zstd of less": ("does not decompress", after(pages_wire.frame(0, [(DATA, len(TEXT) + 1)], TEXT + b"x", stored=PACKED))),
    "zstd of more": ("does not decompress", after(pages_wire.frame(0, [(DATA, len(TEXT) - 1)], TEXT[:-1], stored=PACKED))),
    "an early end": ("ends after 5 of 5,000", after(FIVE + pages_wire.closing(5, 1))),
    "an end that skips": ("was due", after(FIVE + pages_wire.closing(5000, 1))),
    "an end of another total": ("was due", after(pages_wire.frame(0, [(ABSENT, 5000)], b"") + pages_wire.closing(5001, 1))),
    "an end of other frames": ("ends after", after(pages_wire.frame(0, [(ABSENT, 5000)], b"") + pages_wire.closing(5000, 2))),
    "an end with data": (
        "ends after",
        after(FIVE + pages_wire.frame(5, [], b"", wrong={"type": 2, "runs": 1, "raw": 5, "stored": 5}), 5),
    ),
    "an end with a codec": (
        "ends after",
        after(FIVE + pages_wire.frame(5, [], b"", wrong={"type": 2, "runs": 1, "codec": 1}), 5),
    ),
    "an end with a wrong checksum": ("checksum", after(FIVE + pages_wire.closing(5, 1)[:24] + bytes(8), 5)),
    "bytes behind the end": ("behind its end", after(FIVE + pages_wire.closing(5, 1) + b"\0", 5)),
}


FAR = 1 << 60
REPEATS: dict[str, tuple[str, list[Run]]] = {
    "bytes that come later": ("not come yet", [(DATA, 5), (SAME, 3, 6)]),
    "bytes that end in themselves": ("not come yet", [(DATA, 5), (SAME, 3, 3)]),
    "bytes past the end": ("not come yet", [(DATA, 5), (SAME, 3, FAR)]),
    "a sum that wraps": ("not come yet", [(DATA, 5), (SAME, 3, (1 << 64) - 1)]),
    "bytes before the first": ("not come yet", [(SAME, 3, 0), (DATA, 5)]),
    "no bytes": ("kind or a length", [(DATA, 5), (SAME, 0, 0)]),
    "too many bytes": ("does not fit", [(DATA, 5), (SAME, 5, 0), (ABSENT, 4991)]),
    "nothing behind it": ("ends within an entry", [(DATA, 5), (SAME, 3)]),
    "another kind": ("kind or a length", [(DATA, 5), (6, 3)]),
}


class TestRepeats:
    RUNS: tuple[Run, ...] = ((DATA, 5), (ZERO, 2), (SAME, 4, 1), (SAME, 7, 0))

    def test_what_came_before_is_named_by_where_it_stood(self) -> None:
        entries = [Entry(kind, length, *source) for kind, length, *source in self.RUNS]
        answer = frames.opening(18) + b"".join(frames.frame(0, entries, b"fives")) + frames.closing(18, 1)
        assert answer == pages_wire.opening(18) + pages_wire.frame(0, self.RUNS, b"fives") + pages_wire.closing(18, 1)
        decoder = Decoder(18, zstd=False, repeats=True)
        assert [(at, length, kind, source) for at, length, kind, _, source in decoder.feed(answer)] == [
            (0, 5, DATA, 0),
            (5, 2, ZERO, 0),
            (7, 4, SAME, 1),
            (11, 7, SAME, 0),
        ]
        decoder.finish()

    def test_it_is_refused_where_it_was_not_asked_for(self) -> None:
        with pytest.raises(FrameError, match="kind or a length"):
            list(Decoder(5000, zstd=False).feed(after(pages_wire.frame(0, self.RUNS, b"fives"))))

    @pytest.mark.parametrize("what", REPEATS)
    def test_an_entry_that_names_what_did_not_come_is_refused(self, what: str) -> None:
        says, runs = REPEATS[what]
        with pytest.raises(FrameError, match=says):
            list(Decoder(5000, zstd=False, repeats=True).feed(after(pages_wire.frame(0, runs, b"fives"))))


class TestHostility:
    @pytest.mark.parametrize("what", HOSTILE)
    def test_an_answer_that_breaks_a_rule_is_refused_at_that_place(self, what: str) -> None:
        says, answer = HOSTILE[what]
        (total,) = struct.unpack_from("<Q", answer, 8)
        decoder = Decoder(min(total, 5000), zstd=True)
        with pytest.raises(FrameError, match=says):
            list(decoder.feed(answer))

    def test_zstd_that_was_not_asked_for_is_refused(self) -> None:
        assert summary(read(sound(packed=True), zstd=True)) == EXPECTED
        with pytest.raises(FrameError, match="not asked for"):
            read(sound(packed=True), zstd=False)

    def test_a_frame_as_large_as_the_reader_takes_is_read_and_one_byte_more_is_not(self) -> None:
        def answer(length: int) -> bytes:
            frame = pages_wire.frame(0, [(DATA, length)], bytes(length))
            return pages_wire.opening(length) + frame + pages_wire.closing(length, 1)

        for largest in (10, MAX_RAW):
            assert len(read(answer(largest), largest, largest=largest)) == 1
            with pytest.raises(FrameError, match="out of bounds"):
                read(answer(largest + 1), largest + 1, largest=largest)

    def test_a_table_as_long_as_may_be_is_read(self) -> None:
        runs = [(ABSENT + n % 2, 1) for n in range(MAX_RUNS)]
        answer = pages_wire.opening(MAX_RUNS) + pages_wire.frame(0, runs, b"") + pages_wire.closing(MAX_RUNS, 1)
        assert len(read(answer, MAX_RUNS)) == MAX_RUNS

    def test_zstd_with_a_window_of_gigabytes_is_refused(self) -> None:
        options: dict[int, int] = {zstd.CompressionParameter.window_log: 27}
        compressor = zstd.ZstdCompressor(options=options)
        # Without the size in its header, the frame's window is what it claims.
        stored = compressor.compress(TEXT, zstd.ZstdCompressor.FLUSH_BLOCK) + compressor.flush()
        with pytest.raises(FrameError, match="cannot be decompressed"):
            read(after(pages_wire.frame(0, [(DATA, len(TEXT))], TEXT, stored=stored)), 5000)

    def test_many_small_frames_that_grow_large_are_held_one_at_a_time(self) -> None:
        page = bytes(MAX_RAW)
        stored = zstd.compress(page)
        count = 200
        total = count * MAX_RAW
        parts = [pages_wire.frame(n * MAX_RAW, [(DATA, MAX_RAW)], page, stored=stored) for n in range(count)]
        answer = pages_wire.opening(total) + b"".join(parts) + pages_wire.closing(total, count)
        decoder = Decoder(total, zstd=True)
        tracemalloc.start()
        try:
            found = sum(piece.length for piece in decoder.feed(answer))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        decoder.finish()
        assert found == total
        assert peak < 5 * MAX_RAW

    def test_a_zstd_bomb_costs_no_more_than_the_frame_that_it_claims_to_be(self) -> None:
        options: dict[int, int] = {zstd.CompressionParameter.window_log: 17}
        stored = zstd.compress(bytes(64 << 20), options=options)
        answer = after(pages_wire.frame(0, [(DATA, 1 << 16)], bytes(1 << 16), stored=stored), 1 << 16)
        tracemalloc.start()
        try:
            with pytest.raises(FrameError, match="does not decompress"):
                read(answer, 1 << 16)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 1 << 20

    @given(st.binary(max_size=300), st.sampled_from((b"", pages_wire.opening(5), after(FIVE, 5))))
    def test_any_bytes_are_pieces_in_order_or_a_frame_error(self, raw: bytes, start: bytes) -> None:
        decoder, at = Decoder(5, zstd=True), 0
        try:
            for piece in decoder.feed(start + raw):
                assert piece.at == at
                at += piece.length
        except FrameError:
            pass
        assert at <= 5
