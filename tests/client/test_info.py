"""farcore info, against a real server and an odd one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import elfwriter
from tests.client.conftest import VMCOREINFO, Farcore, Served
from tests.client.hostile import JSON, answer, hostile
from tests.http1 import Connection
from tests.live import Serve


def dump_url(farcore: Farcore, url: str, name: str) -> str:
    dumps = json.loads(farcore("ls", "--json", url).stdout)
    return url + next(str(one["links"]["self"]) for one in dumps if one["name"] == name)


def entries(text: str) -> dict[str, list[str]]:
    """The screen below its title, by the word at the left."""
    found: dict[str, list[str]] = {}
    word = ""
    for line in text.splitlines()[2:]:
        word = line[2:14].strip() or word
        found.setdefault(word, []).append(line[16:])
    return found


def test_a_dump_is_one_screen(farcore: Farcore, served: Served) -> None:
    url = dump_url(farcore, served.url, "small.elf")
    done = farcore("info", url)
    title, second, *_ = done.text.splitlines()
    assert (done.status, done.stderr, title, second) == (0, "", "small.elf  ready", f"  {url}")
    said = entries(done.text)
    size = (served.folder / "small.elf").stat().st_size
    assert said["size"] == [f"{size / 1024:.1f} KiB ({size:,} bytes), stored as elf"]
    assert said["ELF"] == ["ET_CORE of EM_X86_64, 64-bit LE, 3 program headers, registers of 2 CPUs"]
    assert said["kernel"] == ["6.1.0-test"]
    assert said["crashed"] == ["2023-11-14T22:13:20Z"]
    assert said["kernel check"] == ["/proc/vmcore on x86_64 accepts it (native)"]
    assert said["this server"] == ["serves it: EM_X86_64 in ELF64 is native to x86_64"]
    assert "\x1b" not in done.text


def test_segments_notes_and_vmcoreinfo_are_shown(farcore: Farcore, served: Served) -> None:
    said = entries(farcore("info", dump_url(farcore, served.url, "small.elf")).text)
    offset = (served.folder / "small.elf").read_bytes().index(bytes(range(256)) * 16)
    _, low, high = (line.split() for line in said["segments"])
    assert low == ["0x1000", "0xffff888000001000", f"{offset:,}", "4,096", "8,192"]
    assert high == ["0x4000", "0xffff888000004000", f"{offset + 4096:,}", "4,096", "4,096"]
    assert [line.split(" ", 2)[0::2] for line in said["notes"]] == [
        ["2", "CORE NT_PRSTATUS"],
        ["1", "VMCOREINFO Linux vmcoreinfo"],
    ]
    lines = VMCOREINFO.decode().splitlines()
    assert said["vmcoreinfo"][:-1] == [lines[4], lines[3], lines[1]]
    assert said["vmcoreinfo"][-1] == "and 2 lines more; --json has them"


def test_a_refused_dump_shows_the_terms_that_failed_and_both_verdicts(farcore: Farcore, served: Served) -> None:
    said = entries(farcore("info", dump_url(farcore, served.url, "foreign.elf")).text)
    assert said["kernel check"][0] == "/proc/vmcore on x86_64 refuses it"
    assert "  arch: expected EM_X86_64 in ELF64, found machine 0x1600 in ELF64" in said["kernel check"]
    assert said["this server"][0].startswith("refuses it: arch: expected EM_X86_64 in ELF64, found EM_S390 in ELF64")
    assert "segments" not in said


def test_an_incomplete_dump_says_so(farcore: Farcore, served: Served) -> None:
    done = farcore("info", dump_url(farcore, served.url, "cut.elf"))
    assert done.text.splitlines()[0] == "cut.elf  incomplete"
    assert "an incomplete dump" in " ".join(entries(done.text)["warnings"])


def test_json_is_the_dump_itself(farcore: Farcore, served: Served) -> None:
    url = dump_url(farcore, served.url, "small.elf")
    with Connection(served.url) as server:
        said = json.loads(server.get(url.removeprefix(served.url)).body)
    done = farcore("info", "--json", url)
    assert (done.status, json.loads(done.stdout)) == (0, said)


def test_of_many_segments_the_first_are_shown_and_all_are_counted(farcore: Farcore, serve: Serve, tmp_path: Path) -> None:
    pages = [elfwriter.load(bytes(16), paddr=0x1000 * i) for i in range(1009)]
    elfwriter.Dump(pages).write(tmp_path / "many.elf")
    live = serve(tmp_path, "--host-arch", "x86_64")
    said = entries(farcore("info", dump_url(farcore, live.url, "many.elf")).text)
    assert [line.split()[0] for line in said["segments"][1:9]] == [f"{0x1000 * i:#x}" for i in range(8)]
    assert said["segments"][9:] == ["and 1,001 segments more; --json has them"]


def test_an_unknown_id_is_a_sentence_with_the_way_to_the_list(farcore: Farcore, served: Served) -> None:
    done = farcore("info", f"{served.url}/v1/dumps/nobody-00000000")
    assert (done.status, done.stdout) == (1, b"")
    assert (
        done.stderr == f"farcore: the server has no dump with this id: `farcore ls {served.url}` shows those that there are\n"
    )


def test_what_a_dump_says_cannot_command_the_terminal(farcore: Farcore) -> None:
    evil = "\x1b]0;x\x07[blink]\u202e\n"
    said = {
        "name": evil,
        "state": evil,
        "etag": evil,
        "kernel_release": evil,
        "elf": {"machine": evil, "class": evil, "data": evil, "type": evil},
        "verdict": {
            "host_arch": evil,
            "kernel": {"accepted": False, "by": evil, "terms": [{"name": evil, "ok": False, "expected": evil, "found": evil}]},
            "policy": {"accepted": True, "reason": evil},
            "warnings": [evil],
        },
        "segments": [{"physical_address": evil, "flags": evil}],
        "notes": [{"name": evil, "type": evil}],
        "vmcoreinfo": {evil: evil, "PAGESIZE": evil},
        "crash_time": evil,
    }
    with hostile({"GET /v1/dumps/x": answer(json.dumps(said).encode(), Content_Type=JSON)}) as server:
        done = farcore("info", f"{server.url}/v1/dumps/x")
        as_json = farcore("info", "--json", f"{server.url}/v1/dumps/x")
    assert done.status == 0
    assert done.text.count("\\x1b]0;x\\x07[blink]\\u202e\\n") >= 14
    for text in (done.text, as_json.text):
        assert not set(text) & set("\x1b\x07\u202e")
    assert json.loads(as_json.stdout) == said


@pytest.mark.parametrize("said", [{}, {"segments": [{}], "notes": [1, {}], "vmcoreinfo": [], "verdict": {"warnings": "none"}}])
def test_a_dump_that_says_nothing_of_itself_is_still_shown(farcore: Farcore, said: object) -> None:
    with hostile({"GET /v1/dumps/x": answer(json.dumps(said).encode(), Content_Type=JSON)}) as server:
        done = farcore("info", f"{server.url}/v1/dumps/x")
    assert (done.status, done.text.split()[0]) == (0, "x")


def test_the_map_is_a_summary_and_the_first_runs(farcore: Farcore, served: Served) -> None:
    url = next(word for word in farcore("ls", served.url).text.split() if "small-elf" in word)
    done = farcore("info", "--map", url)
    assert (done.status, done.stderr) == (0, "")
    words = done.text.partition("\n  map ")[2].partition("\n  vmcoreinfo")[0].split("\n")
    assert [line.split() for line in words[:3]] == [
        ["data", "8.0", "KiB", "66.7", "%"],
        ["excluded", "4.0", "KiB", "33.3", "%"],
        ["absent", "8.0", "KiB"],
    ]
    assert words[3].split() == ["runs", "FROM", "TO", "HOLDS", "SIZE"]
    assert words[4].split() == ["0x0", "0x1000", "absent", "4.0", "KiB"]
    assert len(words) == 9


def test_json_has_the_map_where_it_was_asked_for(farcore: Farcore, served: Served) -> None:
    url = next(word for word in farcore("ls", served.url).text.split() if "small-elf" in word)
    said = json.loads(farcore("info", "--map", "--json", url).text)
    assert [run["kind"] for run in said["map"]["runs"]] == ["absent", "data", "excluded", "absent", "data"]
    assert said["map"]["runs"][-1] == {"start": "0x4000", "end": "0x5000", "kind": "data"}
    assert "map" not in json.loads(farcore("info", "--json", url).text)
