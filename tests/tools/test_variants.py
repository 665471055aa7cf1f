"""A real kernel's dump in every stored form, through a live server: one vmcore whatever the form, and what tools print of it.

Forms with the same pages have the same vmcore, byte for byte; so crash, drgn and gdb need to be run on one of each filter.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from farcore.kdump import Kdump
from farcore.runs import Kind
from tests import kdumpwriter
from tests.http1 import Connection
from tests.live import Serve
from tests.realdumps import RealDumps
from tests.requires import requires
from tests.served import listed, until
from tests.tools.test_formats import make, opened

FARCORE = Path(sys.executable).with_name("farcore")
PAGE = 4096
# What makedumpfile is told, by the form's name; FILE stands for where it writes.
FILTERED = {
    "zlib": ["-c", "-d", "31", "FILE"],
    "lzo": ["-l", "-d", "31", "FILE"],
    "raw": ["-d", "31", "FILE"],
    "flat": ["-F", "-l", "-d", "31"],
    "set": ["--split", "-c", "-d", "31", "FILE", "FILE2", "FILE3"],
}
ELF = {"elf": ["-E", "-d", "31", "FILE"], "elf-flat": ["-F", "-E", "-d", "31"]}
WHOLE = {"whole": ["-l", "-d", "0", "FILE"]}
# Written by tests/kdumpwriter: Debian's makedumpfile has neither.
REWRITTEN = ("snappy", "zstd")

pytestmark = [requires("makedumpfile"), pytest.mark.timeout(240)]


@dataclass(frozen=True, slots=True)
class Real:
    """Where the stored forms lie, a few of their streamed vmcores, all digests by name; what each crash ``said`` of one."""

    folder: Path
    streamed: Path
    digests: dict[str, str]
    said: dict[str, list[str]] = field(default_factory=dict)

    def stored(self, name: str) -> Path:
        """The file, of a set the first."""
        return self.folder / f"{name}.kdump"

    def vmcore(self, name: str) -> Path:
        """What was streamed of it."""
        return self.streamed / name


def rewritten(path: Path, compress: str, extra: int = 0) -> bytes:
    """The kdump-compressed file with its pages compressed otherwise, and ``extra`` fragments of memory far above its own."""
    below = opened(path)
    kdump = Kdump.open([below])
    memory, header = kdump.memory(), kdump.header
    frames: dict[Kind, list[int]] = {kind: [] for kind in Kind}
    for run in memory.layout.runs.walk(0, memory.size):
        frames[run.kind] += range(run.start // PAGE, run.stop // PAGE)
    pages = {frame: bytes(memory.pread(frame * PAGE, PAGE)) for frame in frames[Kind.DATA]}
    far = 1 << 20
    assert far > max(pages)
    assert header.notes is not None
    assert header.vmcoreinfo is not None
    return kdumpwriter.Kdump(
        pages=pages | dict.fromkeys(range(far, far + 2 * extra, 2), b"far away".ljust(PAGE, b".")),
        excluded=frames[Kind.EXCLUDED],
        compress=compress,
        notes=bytes(below.pread(*header.notes)),
        vmcoreinfo=bytes(below.pread(*header.vmcoreinfo)),
        max_frame=None if extra else header.max_frame,
        sub={"phys_base": header.phys_base},
    ).tobytes()


@pytest.fixture(scope="module")
def real(real_dumps: RealDumps, serve_all_along: Serve, tmp_path_factory: pytest.TempPathFactory) -> Real:
    folder, streamed = tmp_path_factory.mktemp("real"), tmp_path_factory.mktemp("streamed")
    for name, arguments in {**FILTERED, **ELF, **WHOLE}.items():
        make(real_dumps("kdump"), folder / f"{name}.kdump", arguments)
    for name in REWRITTEN:
        (folder / f"{name}.kdump").write_bytes(rewritten(folder / "lzo.kdump", name))
    live = serve_all_along(folder, "--host-arch", "x86_64", "--rescan", "3600")
    digests = {}
    dumps = until(live, lambda found: all(dump["state"] == "ready" for dump in found.values()))
    with Connection(live.url, timeout=60) as server:
        for name, dump in dumps.items():
            content = server.get(dump["links"]["vmcore"]).body
            name = name.removesuffix(".kdump")
            digests[name] = hashlib.sha256(content).hexdigest()
            if name in ("lzo", "elf-flat", "whole"):
                (streamed / name).write_bytes(content)
    return Real(folder, streamed, digests)


def test_the_vmcore_is_the_same_whatever_form_its_pages_are_stored_in(real: Real) -> None:
    assert real.digests.keys() == {*FILTERED, *ELF, *WHOLE, *REWRITTEN}
    assert len({real.digests[name] for name in (*FILTERED, *REWRITTEN)}) == 1
    assert real.digests["elf"] == real.digests["elf-flat"]
    assert len(set(real.digests.values())) == 3


SESSION = "sys\nbt -a\nps\nlog\nkmem -i\nquit\n"


def crash(program: Path, vmlinux: Path, paths: Sequence[Path]) -> list[str]:
    """What a session prints, but for what names the file."""
    command = [str(program), "-s", str(vmlinux), *map(str, paths)]
    done = subprocess.run(command, input=SESSION, capture_output=True, text=True, timeout=110, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    names = [str(path) for path in paths]
    return [line for line in done.stdout.splitlines() if "DUMPFILE" not in line and not any(name in line for name in names)]


# crash reads flattened files and sets as well as they are stored.
@pytest.mark.parametrize(
    ("program", "name"), [("crash", "lzo"), ("crash-later", "lzo"), ("crash-later", "set"), ("crash-later", "flat")]
)
def test_crash_prints_the_same_of_the_streamed_vmcore_as_of_the_stored_dump(
    real_dumps: RealDumps, real: Real, program: str, name: str
) -> None:
    paths = [real.stored(name)]
    if name == "set":
        paths += [real.stored(name).with_suffix(".2"), real.stored(name).with_suffix(".3")]
    if program not in real.said:
        real.said[program] = crash(real_dumps(program), real_dumps("vmlinux"), [real.vmcore("lzo")])
    assert real.said[program] == crash(real_dumps(program), real_dumps("vmlinux"), paths)
    assert any("sysrq_handle_crash" in line for line in real.said[program])


@requires("fusermount3")
def test_a_dump_in_more_fragments_than_crash_takes_is_read_as_it_is_stored(
    real_dumps: RealDumps, real: Real, serve: Serve, tmp_path: Path
) -> None:
    path = tmp_path / "served" / "crowded.kdump"
    path.parent.mkdir()
    path.write_bytes(rewritten(real.stored("lzo"), "lzo", extra=70_000))
    live = serve(path, "--host-arch", "x86_64")
    with Connection(live.url, timeout=60) as server:
        dump = listed(server)["crowded.kdump"]
        described = json.loads(server.get(dump["links"]["self"]).body)
    assert len(described["segments"]) + described["segments_left_out"] > 70_000
    assert "they read it as it is stored" in dump["verdict"]["warnings"][-1]
    program = real_dumps("crash-later")
    done = subprocess.run(
        [FARCORE, "crash", f"{live.url}{dump['links']['self']}", real_dumps("vmlinux"), "--", "-s"],
        input=SESSION,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=110,
        env={**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"},
    )
    assert re.search(r"DUMPFILE: .*/stored", done.stdout), done.stdout + done.stderr
    local = crash(program, real_dumps("vmlinux"), [path])
    assert [line for line in done.stdout.splitlines() if "DUMPFILE" not in line] == local


TOUR = """
from drgn.helpers.linux import for_each_task, get_dmesg
print(prog["init_uts_ns"].name.release.string_().decode())
for task in for_each_task(prog):
    print(task.pid.value_(), task.comm.string_().decode())
print(prog.crashed_thread().stack_trace())
print(get_dmesg(prog).decode())
"""


@pytest.mark.parametrize("name", ["lzo", "whole"])
def test_drgn_prints_the_same_of_the_streamed_vmcore_as_of_the_dump_it_was_made_from(
    real_dumps: RealDumps, real: Real, tmp_path: Path, name: str
) -> None:
    tour = tmp_path / "tour.py"
    tour.write_text(TOUR)
    said = [
        subprocess.run(
            [real_dumps("drgn"), "-q", "-c", path, "-s", real_dumps("vmlinux"), tour],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for path in (real.vmcore(name), real_dumps("kdump"))
    ]
    assert said[0] == said[1]
    assert "sysrq_handle_crash" in said[0]


ASKED = ["p linux_banner", "info threads", "thread apply all bt 4", "p init_uts_ns", "p init_task.comm", "p saved_command_line"]
ASKED += ["p *init_task.files", "x/8gx $sp", "p jiffies_64", "x/20i $pc"]


def gdb(vmlinux: Path, core: Path) -> str:
    """What it prints of a core, with the symbols where KASLR has put them."""
    offset = re.search(rb"KERNELOFFSET=([0-9a-f]+)", core.open("rb").read(1 << 20))
    assert offset is not None
    commands = [f"symbol-file -o 0x{offset[1].decode()} {vmlinux}", f"core-file {core}", *ASKED]
    options = [word for command in commands for word in ("-ex", command)]
    done = subprocess.run(["gdb", "-nx", "-batch", *options], capture_output=True, text=True, timeout=110)
    # Of makedumpfile's ELF it makes each thread twice, and numbers those that it shows from 3 on.
    return re.sub(r"^\[New .*\n|(?<=Thread )\d+|(?<=thread is )\d+|(?<=^[* ] )\d+", "", done.stdout, flags=re.MULTILINE)


# gdb opens ELF alone: so makedumpfile's own, with the same pages left out, and the dump that all were made from.
@requires("gdb")
@pytest.mark.parametrize("name", ["lzo", "whole"])
def test_gdb_prints_the_same_of_the_streamed_vmcore_as_of_an_elf_with_the_same_pages(
    real_dumps: RealDumps, real: Real, name: str
) -> None:
    original = real_dumps("kdump") if name == "whole" else real.stored("elf")
    said = gdb(real_dumps("vmlinux"), real.vmcore(name))
    assert said == gdb(real_dumps("vmlinux"), original)
    assert re.search(r'\$1 = .*"Linux version 6\.1', said), said
    assert "crash_setup_regs" in said
