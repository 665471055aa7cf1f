"""farcore read: exactly the bytes that were asked for, or an error; the oracle is a slice of the file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import elfwriter
from tests.client.conftest import HIGH, LOW, Farcore, Served
from tests.client.hostile import ETAG, PROBLEM, Hostile, answer, hostile
from tests.client.test_info import dump_url
from tests.live import Serve

SCRIPT = Path(sys.executable).with_name("farcore")
VMCORE = "/v1/dumps/x/vmcore"


@pytest.fixture
def small(farcore: Farcore, served: Served) -> str:
    return dump_url(farcore, served.url, "small.elf")


def partial(body: bytes, start: int = 0, size: int = 1000, **fields: str) -> bytes:
    given = {"Content_Range": f"bytes {start}-{start + len(body) - 1}/{size}", "ETag": ETAG, **fields}
    return answer(body, "206 Partial Content", **given)


def odd(ranged: bytes | None, head: bytes | None = None) -> dict[str, bytes | None]:
    whole = answer(ETag=ETAG, Content_Length="1000")
    return {f"HEAD {VMCORE}": head or whole, f"GET {VMCORE}": ranged}


@pytest.mark.parametrize(("offset", "length"), [("0", "64"), ("0x3", "5"), ("1000", "0x100"), ("1", "1")])
def test_bytes_by_offset_are_a_slice_of_the_file(
    farcore: Farcore, served: Served, small: str, offset: str, length: str
) -> None:
    start, count = int(offset, 0), int(length, 0)
    done = farcore("read", small, "--offset", offset, "--length", length)
    assert (done.status, done.stderr) == (0, "")
    assert done.stdout == (served.folder / "small.elf").read_bytes()[start : start + count]


def test_the_whole_file_is_the_file(farcore: Farcore, served: Served, small: str) -> None:
    content = (served.folder / "small.elf").read_bytes()
    assert farcore("read", small, "--offset", "0", "--length", str(len(content))).stdout == content


@pytest.mark.parametrize(
    ("address", "length", "expected"),
    [("0x1000", "0x1000", LOW), ("0x1FFF", "1", LOW[-1:]), ("16389", "7", HIGH[5:12]), ("0x4000", "4096", HIGH)],
)
def test_bytes_by_physical_address_are_the_memory(
    farcore: Farcore, small: str, address: str, length: str, expected: bytes
) -> None:
    done = farcore("read", small, "--physical", address, "--length", length)
    assert (done.status, done.stdout, done.stderr) == (0, expected, "")


@pytest.mark.parametrize(
    ("address", "length", "sentence"),
    [
        (
            "0x0",
            "1",
            "physical address 0x0 is absent (the dump describes nothing there): `farcore info {url}` shows what there is",
        ),
        ("0x3000", "1", "physical address 0x3000 is absent (the dump describes nothing there): `farcore info {url}` shows"),
        ("0x1ff8", "9", "physical address 0x2000 is excluded (the dump's writer left it out): --length 0x8 stops before it"),
        ("0x4000", "0x1001", "physical address 0x5000 is absent (the dump describes nothing there): --length 0x1000 stops"),
        ("0xffffffffffffffff", "1", "physical address 0xffffffffffffffff is absent"),
    ],
)
def test_a_hole_is_an_error_with_its_address_and_kind_and_no_byte(
    farcore: Farcore, small: str, address: str, length: str, sentence: str
) -> None:
    done = farcore("read", small, "--physical", address, "--length", length)
    assert (done.status, done.stdout) == (1, b"")
    assert done.stderr.startswith(f"farcore: {sentence.format(url=small)}")


def test_what_lies_past_the_end_is_an_error_that_says_where_the_end_is(farcore: Farcore, served: Served, small: str) -> None:
    size = (served.folder / "small.elf").stat().st_size
    done = farcore("read", small, "--offset", str(size - 3), "--length", "4")
    assert (done.status, done.stdout) == (1, b"")
    assert done.stderr == f"farcore: the vmcore ends before byte {size:,}: --length 0x3 stops before it\n"
    assert farcore("read", small, "--offset", str(size - 3), "--length", "3").status == 0


def test_memory_at_the_top_of_64_bits_is_read(farcore: Farcore, serve: Serve, tmp_path: Path) -> None:
    top = (1 << 64) - 0x2000
    elfwriter.Dump([elfwriter.load(LOW, paddr=top)]).write(tmp_path / "top.elf")
    url = dump_url(farcore, serve(tmp_path, "--host-arch", "x86_64").url, "top.elf")
    assert farcore("read", url, "--physical", hex(top + 1), "--length", "0xfff").stdout == LOW[1:]


def test_a_refused_dump_gives_its_reason_and_no_byte(farcore: Farcore, served: Served) -> None:
    done = farcore("read", dump_url(farcore, served.url, "foreign.elf"), "--offset", "0", "--length", "4")
    assert (done.status, done.stdout) == (1, b"")
    assert done.stderr.startswith("farcore: the server refused this dump: arch: expected EM_X86_64 in ELF64, found EM_S390")


def test_an_output_file_has_the_bytes_and_is_never_replaced(farcore: Farcore, small: str, tmp_path: Path) -> None:
    path = tmp_path / "page"
    ask = ("read", small, "--physical", "0x1000", "--length", "4096", "-o", path)
    done = farcore(*ask)
    assert (done.status, done.stdout, done.stderr, path.read_bytes()) == (0, b"", "", LOW)
    path.write_bytes(b"precious")
    done = farcore(*ask)
    assert (done.status, path.read_bytes()) == (1, b"precious")
    assert done.stderr == f"farcore: {path} is there already and is never replaced: remove it, or give another name\n"


def test_an_error_leaves_no_output_file(farcore: Farcore, small: str, tmp_path: Path) -> None:
    path = tmp_path / "page"
    assert farcore("read", small, "--physical", "0x3000", "--length", "1", "-o", path).status == 1
    assert not path.exists()


def test_a_dash_is_stdout(farcore: Farcore, small: str) -> None:
    assert farcore("read", small, "--physical", "0x1000", "--length", "4", "-o", "-").stdout == LOW[:4]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--length", "1"], "Give either --physical ADDR or --offset N"),
        (["--offset", "0", "--physical", "0", "--length", "1"], "Give either"),
        (["--offset", "0"], "Missing option '--length'"),
        (["--offset", "0", "--length", "0"], "Give a --length of 1 or more"),
        (["--offset", "ffff", "--length", "1"], "'ffff' is not a number such as 4096 or 0x1000"),
        (["--offset", "-1", "--length", "1"], "'-1' is not a number"),
        (["--offset", "1_0", "--length", "1"], "'1_0' is not a number"),
        (["--offset", "٣", "--length", "1"], "'٣' is not a number"),
        (["--offset", "0x", "--length", "1"], "'0x' is not a number"),
        (["--offset", "0x10000000000000000", "--length", "1"], "0x10000000000000000 is not below 2^64"),
    ],
)
def test_wrong_numbers_are_usage(farcore: Farcore, arguments: list[str], said: str) -> None:
    done = farcore("read", "http://127.0.0.1:1/v1/dumps/x", *arguments)
    assert (done.status, done.stdout) == (2, b"")
    assert said in done.stderr
    assert "`farcore read --help`" in done.stderr


def ask(farcore: Farcore, server: Hostile, *more: str | Path) -> tuple[int, bytes, str]:
    done = farcore("read", f"{server.url}/v1/dumps/x", "--offset", "100", "--length", "50", *more)
    return done.status, done.stdout, done.stderr


def test_one_range_of_one_version_is_asked_for(farcore: Farcore) -> None:
    with hostile(odd(partial(b"b" * 50, 100))) as server:
        assert ask(farcore, server) == (0, b"b" * 50, "")
    assert server.requests() == [f"HEAD {VMCORE}", f"GET {VMCORE}"]
    fields = {name.lower(): value for name, value in (line.split(": ", 1) for line in server.asked[1].split("\r\n")[1:-2])}
    assert (fields["range"], fields["if-match"], fields["accept-encoding"]) == ("bytes=100-149", ETAG, "identity")


def test_a_short_body_is_an_error_that_counts_what_came(farcore: Farcore, tmp_path: Path) -> None:
    with hostile(odd(partial(b"b" * 20, 100, Content_Range="bytes 100-149/1000", Content_Length="50"))) as server:
        status, came, said = ask(farcore, server)
        assert (status, came) == (1, b"b" * 20)
        assert said == "farcore: only 20 of 50 bytes came: the connection was cut; ask again\n"
        assert ask(farcore, server, "-o", tmp_path / "new")[0] == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("rest", [b"0\r\n\r\n", b"zz\r\n", b"1e\r\nb", b""])
def test_a_chunked_body_that_ends_early_or_breaks_is_an_error(farcore: Farcore, rest: bytes) -> None:
    body = b"14\r\n" + b"b" * 20 + b"\r\n" + rest
    with hostile(odd(partial(body, Content_Range="bytes 100-149/1000", Transfer_Encoding="chunked"))) as server:
        status, came, said = ask(farcore, server)
    assert (status, set(came) <= set(b"b")) == (1, True)
    assert said.startswith(f"farcore: only {len(came)} of 50 bytes came") or (not came and "is not HTTP" in said)


def test_a_body_without_a_length_is_counted(farcore: Farcore) -> None:
    head = f"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 100-149/1000\r\nETag: {ETAG}\r\n\r\n".encode()
    for length, status in ((49, 1), (50, 0), (51, 1)):
        with hostile(odd(head + b"b" * length)) as server:
            assert ask(farcore, server)[0] == status, length


@pytest.mark.parametrize(
    ("ranged", "said"),
    [
        (answer(b"b" * 1000, ETag=ETAG), "answered 200 to a range"),
        (partial(b"b" * 49, 100), "Content-Range is 'bytes 100-148/1000'"),
        (partial(b"b" * 50, 99), "Content-Range is 'bytes 99-148/1000'"),
        (partial(b"b" * 50, 100, 1001), "Content-Range is 'bytes 100-149/1001'"),
        (partial(b"b" * 50, 100, Content_Range="\x9b2J"), "Content-Range is"),
        (partial(b"b" * 50, 100, Content_Encoding="gzip"), "Content-Encoding is 'gzip'"),
        (partial(b"b" * 51, 100, Content_Range="bytes 100-149/1000"), "Content-Length is '51'"),
        (partial(b"b" * 50, 100, Content_Type="multipart/byteranges; boundary=x", Content_Range=""), "Content-Range is ''"),
        (partial(b"b" * 50, 100, ETag='"v2"'), "the dump's file has changed"),
        (answer(b"{}", "412 Precondition Failed", Content_Type=PROBLEM), "the dump's file has changed"),
        (answer(b"<html>", "404 Not Found"), "404 Not Found without farcored's words"),
        (answer(b"", "302 Found", Location="http://elsewhere/\x9b2J"), "sends you on to http://elsewhere/"),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", "is not HTTP"),
        (b"", "hung up without an answer"),
        (b"HTTP/1.1 206 Partial Content\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", "is not HTTP"),
    ],
)
def test_a_wrong_answer_is_a_sentence_and_no_byte_of_it_is_written(farcore: Farcore, ranged: bytes, said: str) -> None:
    with hostile(odd(ranged)) as server:
        status, came, sentence = ask(farcore, server)
    assert (status, came) == (1, b"")
    assert said in sentence
    assert len(sentence.splitlines()) == 1
    assert sentence.rstrip("\n").isprintable()


@pytest.mark.parametrize(
    "head",
    [
        answer(Content_Length="1000"),
        answer(ETag='W/"v1"', Content_Length="1000"),
        answer(ETag=ETAG, Transfer_Encoding="chunked"),
    ],
)
def test_a_server_that_names_no_version_is_not_read_from(farcore: Farcore, head: bytes) -> None:
    with hostile(odd(partial(b"b" * 50, 100), head)) as server:
        status, came, said = ask(farcore, server)
    assert (status, came, server.requests()) == (1, b"", [f"HEAD {VMCORE}"])
    assert "no length or no strong ETag" in said


def test_when_head_is_refused_the_words_come_by_get(farcore: Farcore) -> None:
    problem = json.dumps({"type": "/problems/refused", "detail": "Truncated."}).encode()
    refused = answer(b"", "422 Unprocessable Content")
    with hostile(odd(answer(problem, "422 Unprocessable Content", Content_Type=PROBLEM), refused)) as server:
        assert "refused this dump: Truncated (" in ask(farcore, server)[2]
    with hostile(odd(partial(b"b"), answer(b"", "501 Not Implemented"))) as server:
        assert "has no answer to HEAD" in ask(farcore, server)[2]


@pytest.fixture(scope="module")
def large(serve_all_along: Serve, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A dump of 512 MiB, nearly all of it a hole in its file: its server's URL, and its path."""
    folder = tmp_path_factory.mktemp("large")
    path = elfwriter.Dump([elfwriter.load(b"start", paddr=0, filesz=512 << 20)], size=(512 << 20) + 120).write(
        folder / "large.elf"
    )
    return serve_all_along(folder, "--host-arch", "x86_64").url, path


def test_a_large_read_takes_little_memory(farcore: Farcore, large: tuple[str, Path]) -> None:
    url = dump_url(farcore, large[0], "large.elf")

    # 128 MiB for all that a process allocates.
    command = f"ulimit -d 131072; {SCRIPT} read {url} --offset 0 --length {512 << 20} | cmp - {large[1]} -n {512 << 20}"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_reader_that_leaves_is_no_complaint(farcore: Farcore, large: tuple[str, Path]) -> None:
    url = dump_url(farcore, large[0], "large.elf")
    command = f'{SCRIPT} read {url} --offset 0 --length {512 << 20} | head -c 8; echo " ${{PIPESTATUS[0]}}"'
    done = subprocess.run(["bash", "-c", command], capture_output=True, timeout=60)
    assert (done.stdout, done.stderr) == (b"\x7fELF\x02\x01\x01\0 141\n", b"")


def test_a_full_disk_is_a_sentence(farcore: Farcore, large: tuple[str, Path]) -> None:
    url = dump_url(farcore, large[0], "large.elf")
    with open("/dev/full", "wb") as full:
        command: list[str | Path] = [SCRIPT, "read", url, "--offset", "0", "--length", "100000"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, "farcore: the output cannot be written: No space left on device\n")


def test_a_terminal_gets_no_bytes_unless_it_is_named(farcore: Farcore, small: str) -> None:
    command: list[str | Path] = [SCRIPT, "read", small, "--physical", "0x1041", "--length", "4"]
    for more, status, shown in ((["-o", "-"], 0, b"ABCD"), ([], 2, b"")):
        master, terminal = os.openpty()
        done = subprocess.run([*command, *more], stdout=terminal, stderr=subprocess.PIPE, text=True, timeout=60)
        os.write(terminal, b"|")
        came = b""
        while not came.endswith(b"|"):
            came += os.read(master, 100)
        assert (done.returncode, came) == (status, shown + b"|")
        assert ("garble the terminal" in done.stderr) == (status == 2)
        os.close(master)
        os.close(terminal)
