"""drgn on a dump that a farcored serves: it must see what it sees in the local file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from farcore_client.credentials import Credentials
from farcore_client.drgn import program
from farcore_client.remote import connect
from tests.client.remote.conftest import dump_url
from tests.elfwriter import Dump, load, note
from tests.live import Live, Serve
from tests.realdumps import SYMBOLS, RealDumps
from tests.requires import requires
from tests.tools.test_readelf import readelf_rows

pytestmark = requires("drgn")

FARCORE = Path(sys.executable).with_name("farcore")
SCRIPTS = Path(__file__).parents[1] / "vm" / "scripts"
SAMPLE = "x86_64-panic.elf"
SLABS = """
from drgn.helpers.linux.slab import for_each_slab_cache, slab_cache_usage
for cache in for_each_slab_cache(prog):
    print("slab", cache.name.string_().decode(), slab_cache_usage(cache))
"""


@pytest.fixture(scope="module")
def served(serve_all_along: Serve, sample: Callable[[str], Path]) -> Live:
    """A server of the sample."""
    return serve_all_along(sample(SAMPLE), "--host-arch", "x86_64")


def run(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, timeout=100, stdin=subprocess.DEVNULL)


def test_a_program_has_the_memory_and_the_registers_of_the_local_one(served: Live, sample: Callable[[str], Path]) -> None:
    import drgn

    local = drgn.Program()
    local.set_core_dump(sample(SAMPLE))
    with connect(dump_url(served.url, SAMPLE), Credentials()) as dump:
        remote = program(dump)
        assert (remote.platform, remote.flags) == (local.platform, local.flags)
        for kind, _, _, vaddr, paddr, filesz, _, _ in readelf_rows(sample(SAMPLE)):
            if kind == 1:
                for at in {0, filesz // 2, filesz - 8}:
                    assert remote.read(paddr + at, 8, physical=True) == local.read(paddr + at, 8, physical=True)
                    assert remote.read(vaddr + at, 8) == local.read(vaddr + at, 8)
        # Through the page tables: kernel stacks are in vmalloc space.
        stacks = [cpu.registers["rsp"] for cpu in dump.target().cpus if cpu]
        assert len(stacks) == 2
        assert all(remote.read(stack, 64) == local.read(stack, 64) for stack in stacks)


def test_what_the_dump_lacks_is_the_same_fault_at_the_same_address(served: Live, sample: Callable[[str], Path]) -> None:
    import drgn

    local = drgn.Program()
    local.set_core_dump(sample(SAMPLE))
    end = max(row[4] + row[5] for row in readelf_rows(sample(SAMPLE)))
    with connect(dump_url(served.url, SAMPLE), Credentials()) as dump:
        remote = program(dump)
        for address, physical in ((0, True), (end, True), (end - 4, True), (0x1000, False), (0xFFFF000000001000, False)):
            faults = []
            for each in (local, remote):
                with pytest.raises(drgn.FaultError) as caught:
                    each.read(address, 8, physical)
                faults.append((str(caught.value), caught.value.address))
            assert faults[0] == faults[1]


def test_a_page_that_the_writer_left_out_is_a_fault_and_not_zeros(serve: Serve, tmp_path: Path) -> None:
    import drgn

    known = note(("CORE", 1, bytes(336)), ("VMCOREINFO", 0, b"OSRELEASE=6.1.0\nPAGESIZE=4096\nSYMBOL(swapper_pg_dir)=1\n"))
    vaddr = 0xFFFF888000001000
    path = Dump([known, load(b"x" * 4096, paddr=0x1000, vaddr=vaddr, memsz=0x2000)]).write(tmp_path / "filtered.elf")
    live = serve(path, "--host-arch", "x86_64")
    with connect(dump_url(live.url, path.name), Credentials()) as dump:
        remote = program(dump)
        assert remote.read(vaddr + 0xFF8, 8) == b"x" * 8
        for address, physical in ((0x1FFC, True), (vaddr + 0xFFC, False)):
            with pytest.raises(drgn.FaultError, match="excluded") as caught:
                remote.read(address, 8, physical)
            assert caught.value.address == address + 4


def test_drgns_own_words_follow_two_dashes_and_its_status_is_the_commands(served: Live, tmp_path: Path) -> None:
    url = str(dump_url(served.url, SAMPLE))
    script = tmp_path / "script.py"
    script.write_text("import sys\nprint(sys.argv, prog.flags)\nsys.exit(int(sys.argv[2]))\n")
    done = run(FARCORE, "drgn", url, "--", "-q", script, "--", "7")
    assert (done.returncode, done.stdout) == (7, f"{[str(script), '--', '7']} ProgramFlags.IS_LINUX_KERNEL\n")
    assert done.stderr.startswith("farcore: no vmlinux of kernel 6.1.0")
    done = run(FARCORE, "drgn", url, "--", "-q", "-e", "1 / 0")
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("ZeroDivisionError: division by zero")
    assert run(FARCORE, "drgn", url, "--", "--no-such-option").returncode == 2


def test_where_there_is_no_drgn_a_sentence_says_what_to_install() -> None:
    # What find_spec finds of a module that is None is nothing, as where it is not installed.
    without = "import sys; sys.modules['drgn'] = None; from farcore_client.main import main; sys.exit(main(sys.argv[1:]))"
    done = run(sys.executable, "-c", without, "drgn", "http://127.0.0.1:1/v1/dumps/x-1a2b3c4d")
    assert done.returncode == 1
    assert done.stderr.startswith("farcore: there is no drgn for this Python: ")
    assert "python3-drgn" in done.stderr


@pytest.mark.parametrize("name", [*SYMBOLS])
def test_tasks_stacks_log_and_slabs_are_those_of_the_local_file(
    name: str, real_dumps: RealDumps, serve: Serve, tmp_path: Path
) -> None:
    path, vmlinux = real_dumps(name), real_dumps(SYMBOLS[name])
    script = tmp_path / "script.py"
    script.write_text((SCRIPTS / "tour.py").read_text() + SLABS)
    live = serve(path, "--allow-arch", "any")
    local = run(Path(sys.executable).with_name("drgn"), "-q", "-c", path, "-s", vmlinux, script)
    found = run(FARCORE, "drgn", str(dump_url(live.url, path.name)), "-s", vmlinux, "--", "-q", script)
    assert (local.returncode, local.stderr) == (0, "")
    assert local.stdout.count("\n#0  ") > 40 < local.stdout.count("\nslab ")
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout == local.stdout
