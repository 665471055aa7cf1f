"""The kernel log as vmcore-dmesg, makedumpfile and drgn print it: real dumps, and every format there was."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from farcore import dmesg, notes
from farcore.elf import Elf
from farcore.file import FileSource
from farcore.space import PhysicalSpace
from tests import logwriter
from tests.http1 import Connection
from tests.live import Serve
from tests.logwriter import Line, Memory
from tests.realdumps import RealDumps
from tests.requires import requires
from tests.served import listed

# Wraps every ring and buffer, and has what must be escaped.
LINES = [Line(n * 1_234_567_891, b"message %d " % n + bytes(range(0x20, 0x20 + n * 3 % 90)) + b"\x1b\xff") for n in range(70)]
PLAIN = b"".join(b"<%d>[%5d.%06d] line %d\n" % (n % 8, n, n * 7919 % 10**6, n) for n in range(50))
DRGN = """
import sys
from drgn import Program
from drgn.helpers.linux.printk import get_printk_records
prog = Program()
prog.set_core_dump(sys.argv[1])
prog.load_debug_info([sys.argv[2]])
for one in get_printk_records(prog):
    print(one.timestamp, one.text.hex(), sep=",")
"""


def log(path: Path) -> dmesg.Log:
    """As farcore reads it."""
    source = FileSource(os.open(path, os.O_RDONLY), path.stat().st_size)
    elf = Elf.open(source)
    return dmesg.of(PhysicalSpace(source, elf), elf, notes.read(source, elf).notes)


def vmcore_dmesg(path: Path) -> list[bytes]:
    """The lines of vmcore-dmesg, which does not indent the further lines of a message.

    Nor does it know the empty record that sends a reader back to the start of log_buf: it shows that as a message.
    """
    done = subprocess.run(["vmcore-dmesg", path], capture_output=True, check=True)
    return [line for line in done.stdout.splitlines() if line != b"[    0.000000] "]


def unindented(text: str) -> list[bytes]:
    """farcore's lines as vmcore-dmesg has them."""
    return [(line if line.startswith("[") else line[15:]).encode() for line in text.splitlines()]


@requires("vmcore-dmesg", "makedumpfile")
def test_the_log_is_what_vmcore_dmesg_and_makedumpfile_print(sample: Callable[[str], Path], tmp_path: Path) -> None:
    for name in ("x86_64-panic.elf", "aarch64-panic.elf", "i386-panic.elf"):
        assert unindented(log(sample(name)).text()) == vmcore_dmesg(sample(name)), name
    path, told = sample("x86_64-panic.elf"), tmp_path / "dmesg"
    subprocess.run(["makedumpfile", "--dump-dmesg", path, told], check=True, capture_output=True)
    assert log(path).text().encode() == told.read_bytes()


@requires("vmcore-dmesg")
@pytest.mark.parametrize("word", [4, 8])
@pytest.mark.parametrize("make", [logwriter.ring, logwriter.records])
def test_messages_of_every_format_are_those_that_vmcore_dmesg_prints(
    tmp_path: Path, word: int, make: Callable[..., Memory]
) -> None:
    for count in (1, 5, 23, 70):
        path = make(LINES[:count], word=word).dump().write(tmp_path / "vmcore")
        assert log(path).text().encode().splitlines() == vmcore_dmesg(path), count


@requires("vmcore-dmesg")
@pytest.mark.parametrize("length", [17, 255, 256, 257, 900])
def test_plain_text_is_that_of_vmcore_dmesg_but_for_the_levels(tmp_path: Path, length: int) -> None:
    path = logwriter.plain(PLAIN[:length]).dump().write(tmp_path / "vmcore")
    told = [line[3:] if line[:1] == b"<" else line for line in vmcore_dmesg(path)]
    assert log(path).text().encode().splitlines() == told


@requires("drgn")
@pytest.mark.parametrize(
    ("dump", "vmlinux"), [("panic", "vmlinux"), ("kdump", "vmlinux"), ("kdump-aarch64", "vmlinux-aarch64")]
)
def test_the_records_are_those_that_drgn_finds_with_debuginfo(
    real_dumps: RealDumps, tmp_path: Path, dump: str, vmlinux: str
) -> None:
    script = tmp_path / "records.py"
    script.write_text(DRGN)
    python = real_dumps("drgn").with_name("python3")
    done = subprocess.run([python, script, real_dumps(dump), real_dumps(vmlinux)], capture_output=True, check=True, text=True)
    ours = [f"{record.nanoseconds},{record.text.hex()}" for record in log(real_dumps(dump)).records]
    assert ours == done.stdout.split()


@requires("makedumpfile")
def test_the_log_and_the_map_are_the_same_in_every_stored_form(
    sample: Callable[[str], Path], tmp_path: Path, serve: Serve
) -> None:
    core, told = sample("x86_64-panic.elf"), tmp_path / "told"
    subprocess.run(["makedumpfile", "--dump-dmesg", core, told], check=True, capture_output=True)
    (tmp_path / "dumps").mkdir()
    forms = {"zlib": ["-c", "-d", "0"], "lzo": ["-l", "-d", "0"], "filtered": ["-c", "-d", "31"], "elf": ["-E", "-d", "31"]}
    for name, options in forms.items():
        subprocess.run(["makedumpfile", *options, core, tmp_path / "dumps" / name], check=True, capture_output=True)
    with (tmp_path / "dumps" / "flat").open("wb") as file:
        subprocess.run(["makedumpfile", "-F", "-c", "-d", "31", core], check=True, stdout=file, stderr=subprocess.DEVNULL)
    maps = {}
    with Connection(serve(tmp_path / "dumps", "--host-arch", "x86_64").url) as server:
        for name, dump in listed(server).items():
            assert server.get(dump["links"]["dmesg"]).body == told.read_bytes(), name
            maps[name] = json.loads(server.get(dump["links"]["map"]).body)["runs"]
    assert set(maps) == {*forms, "flat"}
    assert maps["zlib"] == maps["lzo"]
    assert maps["filtered"] == maps["flat"]
    assert "excluded" in {run["kind"] for run in maps["filtered"]}
    # makedumpfile -E leaves a page in here and there that -c leaves out.
    assert 0 <= held(maps["elf"], "data") - held(maps["filtered"], "data") < 16 * 4096


def held(runs: list[dict[str, str]], kind: str) -> int:
    """Bytes of a kind."""
    return sum(int(run["end"], 16) - int(run["start"], 16) for run in runs if run["kind"] == kind)
