"""The pages: what a dump says of itself appears as text and as nothing else."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest

from farcore.arch import Policy
from farcore.hosts import host
from farcore_server import describe
from farcore_server.inspection import Rules, inspect
from farcore_server.page import page, readable
from farcore_server.search import Place
from tests.elfwriter import Dump as File
from tests.elfwriter import load, note

EVIL = "<script>alert(1)</script>\"'&{{7*7}}"
FILE = File([note(("VMCOREINFO", 0, f"OSRELEASE=6.1\nX={EVIL}\n".encode()), (EVIL, 1, b"")), load(b"x", paddr=0xABC000)])


class Reader(HTMLParser):
    """The tags, the attributes' values and the text of a page, entities resolved."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.values: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.values += [value or "" for _, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def described(path: Path, name: str) -> describe.Json:
    dump, _ = inspect(Place(str(path), name, None), Rules(host("x86_64"), Policy()))
    assert dump is not None
    return describe.full(dump)


def dump_page(path: Path, name: str, more: int = 0) -> str:
    return page("dump.html", dump=described(path, name), origin=f"http://{EVIL}", more=more).text or ""


def test_nothing_that_a_dump_or_a_request_says_becomes_markup(tmp_path: Path) -> None:
    path = FILE.write(tmp_path / "vmcore")
    for html in (dump_page(path, EVIL), page("catalogue.html", dumps=[described(path, EVIL)]).text or ""):
        read = Reader(html)
        assert "script" not in read.tags
        assert EVIL in read.text
        assert all("<" not in value and "7*7" not in value for value in read.values)


def test_a_page_runs_nothing_loads_nothing_and_is_framed_by_nobody(tmp_path: Path) -> None:
    response = page("catalogue.html", dumps=[])
    policy = dict(each.strip().split(" ", 1) for each in response.headers["Content-Security-Policy"].split(";"))
    assert (policy["default-src"], policy["frame-ancestors"], policy["base-uri"]) == ("'none'", "'none'", "'none'")
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Referrer-Policy"] == "no-referrer"
    read = Reader(dump_page(FILE.write(tmp_path / "vmcore"), "vmcore"))
    assert {"script", "img", "link", "iframe", "object", "form"}.isdisjoint(read.tags)
    assert not [value for value in read.values if value.startswith(("http:", "https:", "//"))]


def test_the_page_of_a_dump_shows_its_memory_its_verdict_and_how_to_read_it(tmp_path: Path) -> None:
    text = Reader(dump_page(FILE.write(tmp_path / "vmcore"), "vmcore", more=3)).text
    for said in ("0xabc000", "EM_X86_64, 64-bit LE", "accepted, native", "curl -r 0-63", "OSRELEASE=6.1", "and 3 more"):
        assert said in text


def test_a_refused_dump_has_its_reason_and_no_way_to_read_it(tmp_path: Path) -> None:
    path = File(FILE.segments, machine=40).write(tmp_path / "vmcore")
    for html in (dump_page(path, "vmcore"), page("catalogue.html", dumps=[described(path, "vmcore")]).text or ""):
        read = Reader(html)
        assert "serve it with --allow-arch" in read.text
        assert "curl" not in read.text
        assert not [value for value in read.values if value.endswith("/vmcore")]


def test_an_empty_catalogue_says_so() -> None:
    assert "No dump lies below the served paths yet." in (page("catalogue.html", dumps=[]).text or "")


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1.0 KiB"),
        (244_318_208, "233.0 MiB"),
        (4 << 40, "4.0 TiB"),
        ("0x20000000000000", "8.0 PiB"),
        ("0xffffffffffffffff", "16.0 EiB"),
    ],
)
def test_a_size_is_readable(size: int | str, text: str) -> None:
    assert readable(size) == text
