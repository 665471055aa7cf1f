"""farcore ls, against a real server and an odd one."""

from __future__ import annotations

import json

import click
import pytest

from farcore_client.commands import echo_json
from tests.client.conftest import SMALL, Farcore, Served
from tests.client.hostile import JSON, answer, hostile
from tests.http1 import Connection


def listed(*dumps: object) -> dict[str, bytes]:
    return {"GET /v1/dumps": answer(json.dumps({"dumps": dumps}).encode(), Content_Type=JSON)}


def test_every_dump_has_a_line_with_what_one_asks_first(farcore: Farcore, served: Served) -> None:
    done = farcore("ls", served.url)
    assert (done.status, done.stderr) == (0, "")
    head, cut, foreign, small = done.text.splitlines()
    assert head.split() == ["NAME", "SIZE", "ARCH", "KERNEL", "CRASHED", "STATE", "BUILD-ID", "URL", "REASON"]
    size = f"{len(SMALL.tobytes()) / 1024:.1f} KiB"
    crashed = "2023-11-14T22:13:20Z"  # date -u -d @1700000000
    assert small.split() == [
        "small.elf",
        *size.split(),
        "EM_X86_64",
        "ELF64",
        "6.1.0-test",
        crashed,
        "ready",
        "-",
        small.split()[-1],
    ]
    assert foreign.split()[3:5] + foreign.split()[5:9] == ["EM_S390", "ELF64", "BE", "-", "-", "refused"]
    assert "arch: expected EM_X86_64 in ELF64, found EM_S390" in foreign
    assert cut.split()[:3] == ["cut.elf", "2.0", "KiB"]
    assert "incomplete" in cut
    assert "\x1b" not in done.text


def test_the_urls_are_those_that_info_takes(farcore: Farcore, served: Served) -> None:
    urls = [word for line in farcore("ls", served.url).text.splitlines() for word in line.split() if word.startswith("http")]
    assert len(urls) == 3
    names = [farcore("info", url).text.split()[0] for url in urls]
    assert names == ["cut.elf", "foreign.elf", "small.elf"]


def test_columns_stand_in_line(farcore: Farcore, served: Served) -> None:
    head, *lines = farcore("ls", served.url).text.splitlines()
    for title, right in (("SIZE", True), ("ARCH", False), ("KERNEL", False), ("STATE", False), ("URL", False)):
        at = head.index(title) + (len(title) - 1 if right else 0)
        beside = at + 1 if right else at - 1
        assert all(line[at] != " " and line[beside] == " " for line in lines), title


def test_json_is_the_servers_own_list(farcore: Farcore, served: Served) -> None:
    with Connection(served.url) as server:
        said = json.loads(server.get("/v1/dumps").body)["dumps"]
    done = farcore("ls", "--json", served.url)
    assert (done.status, json.loads(done.stdout)) == (0, said)


def test_an_empty_server_is_no_error(farcore: Farcore) -> None:
    with hostile(listed()) as server:
        done = farcore("ls", server.url)
        assert (done.status, done.text) == (0, f"{server.url} has no dumps yet\n")
    with hostile(listed()) as server:
        assert farcore("ls", "--json", server.url).stdout == b"[]\n"


def test_a_name_cannot_command_the_terminal(farcore: Farcore) -> None:
    name = "\x1b[2J\x9b31m[bold]vm\ncore[/bold] :bomb: \u202egpj\ud800"
    with hostile(listed({"id": "\x1bid", "name": name, "state": "refused", "kernel_release": "6\t1", "size": 1})) as server:
        plain, as_json = farcore("ls", server.url), farcore("ls", "--json", server.url)
    assert "\\x1b[2J\\x9b31m[bold]vm\\ncore[/bold] :bomb: \\u202egpj\\ud800" in plain.text
    assert "6\\t1" in plain.text
    assert len(plain.text.splitlines()) == 2
    for done in (plain, as_json):
        assert not set(done.text) & set("\x1b\x9b\t\u202e")
    assert json.loads(as_json.stdout)[0]["name"] == name


def test_a_dump_that_says_nothing_of_itself_is_still_a_line(farcore: Farcore) -> None:
    with hostile(listed({}, {"name": 1, "size": "big", "elf": [], "state": {}, "stored_format": "flattened"})) as server:
        lines = farcore("ls", server.url).text.splitlines()
    assert [line.split()[:6] for line in lines[1:]] == [["-"] * 6, ["-", "-", "flattened", "-", "-", "-"]]


def test_wide_characters_keep_the_columns_in_line(farcore: Farcore) -> None:
    with hostile(listed({"name": "核心", "state": "ready"}, {"name": "abcd", "state": "ready"})) as server:
        _, wide, narrow = farcore("ls", server.url).text.splitlines()
    assert wide.index("http") == narrow.index("http") - 2


def test_one_endless_name_makes_no_other_line_longer(farcore: Farcore) -> None:
    with hostile(listed({"name": "x" * 100_000}, {"name": "short"})) as server:
        _, endless, short = farcore("ls", server.url).text.splitlines()
    assert "x" * 100_000 in endless
    assert len(short) < 400


@pytest.mark.parametrize("body", [b"{}", b'{"dumps": {}}', b'{"dumps": [1]}', b"[]", b"<html>", b"", b"[" * 100_000, b"\xff"])
def test_what_is_no_list_of_dumps_is_a_sentence(farcore: Farcore, body: bytes) -> None:
    with hostile({"GET /v1/dumps": answer(body, Content_Type=JSON)}) as server:
        done = farcore("ls", server.url)
    assert (done.status, done.stdout) == (1, b"")
    assert done.stderr.startswith(f"farcore: {server.url}")
    assert len(done.stderr.splitlines()) == 1


def test_json_that_is_nested_without_end_is_a_sentence(farcore: Farcore) -> None:
    with hostile(listed() | {"GET /v1/dumps": answer(b'{"dumps": [' + b"[" * 100_000)}) as server:
        assert "is not the JSON of a farcored" in farcore("ls", "--json", server.url).stderr
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(click.ClickException, match="nested too deeply"):
        echo_json(nested)
