"""From a file to a Dump: ready, incomplete, refused or nobody's; files by tests/elfwriter.py, damaged on purpose."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from farcore.arch import Policy
from farcore.errors import FaultError, SourceChangedError
from farcore.hosts import host
from farcore_server.dump import Dump
from farcore_server.inspection import Rules, inspect
from farcore_server.search import Place
from tests.elfwriter import Dump as File
from tests.elfwriter import load, note
from tests.kdumpwriter import Kdump, flattened

RULES = Rules(host("x86_64"), Policy())
SOUND = File([note(("CORE", 1, bytes(336)), ("VMCOREINFO", 0, b"OSRELEASE=6.1.0\n")), load(b"A" * 100, paddr=0x1000)])


def look(path: Path, rules: Rules = RULES, *, named: bool = False) -> Dump | None:
    return inspect(Place(str(path), path.name, None if named else str(path.parent)), rules)[0]


def refusal(path: Path, rules: Rules = RULES) -> str:
    dump, files = inspect(Place(str(path), path.name, str(path.parent)), rules)
    assert dump is not None
    assert (dump.state, dump.elf, files, dump.verdict.policy.accepted) == ("refused", None, None, False)
    return dump.reason


def test_a_sound_dump_is_ready_and_its_source_has_its_bytes(tmp_path: Path) -> None:
    path = SOUND.write(tmp_path / "vmcore")
    dump, files = inspect(Place(str(path), "vmcore", str(tmp_path)), RULES)
    assert dump is not None
    assert files is not None
    assert (dump.state, dump.stored_format, dump.cpus, dump.warnings) == ("ready", "elf", 1, ())
    assert dump.vmcoreinfo is not None
    assert dump.vmcoreinfo.kernel_release == "6.1.0"
    assert dump.reason == "EM_X86_64 in ELF64 is native to x86_64"
    content = path.read_bytes()
    assert (files.file.size, bytes(files.file.pread(0, files.file.size)), files.file.maps) == (len(content), content, True)


def test_a_dump_that_ends_before_its_last_segment_is_incomplete_and_still_served(tmp_path: Path) -> None:
    path = tmp_path / "vmcore"
    path.write_bytes(SOUND.tobytes()[:-30])
    dump, files = inspect(Place(str(path), "vmcore", str(tmp_path)), RULES)
    assert dump is not None
    assert files is not None
    assert dump.state == "incomplete"
    assert any("30 bytes short" in warning for warning in dump.warnings)


def test_a_foreign_dump_is_refused_with_the_flag_that_takes_it_and_is_ready_with_that_flag(tmp_path: Path) -> None:
    path = File(SOUND.segments, machine=183).write(tmp_path / "vmcore")
    assert "serve it with --allow-arch aarch64" in refusal(path)
    taken = look(path, Rules(host("x86_64"), Policy("cross", frozenset({"aarch64"}))))
    assert taken is not None
    assert (taken.state, taken.elf is not None) == ("ready", True)


def test_the_policy_kernel_refuses_what_the_kernel_would(tmp_path: Path) -> None:
    path = File(SOUND.segments, header={"e_ehsize": 8}).write(tmp_path / "vmcore")
    assert "ehsize" in refusal(path, Rules(host("x86_64"), Policy("kernel")))
    taken = look(path)
    assert taken is not None
    assert taken.state == "ready"


REFUSED = {
    "no magic": (b"hello, world", "no dump format starts with 68 65 6c 6c 6f 2c 20 77; name the vmcore itself"),
    "zeros": (bytes(4096), "it starts with zeros: the dump was not written to its end"),
    "kdump": (b"KDUMP   ".ljust(4096, b"\1"), "no word size and byte order make sense of its header"),
    "diskdump": (b"DISKDUMP".ljust(4096, b"\1"), "no word size and byte order make sense of its header"),
    "flattened": (b"makedumpfile\0".ljust(4096, b"\1"), "version 72340172838076673 is not known"),
    "flattened nonsense": (flattened([(0, b"hello, world")]), "within the flattened stream, no dump format starts with 68 65"),
    "flattened in flattened": (flattened([(0, flattened([(0, b"x")]))]), "within the flattened stream, no dump format"),
    "a kdump of nobody": (Kdump(pages={}, machine="pdp11").tobytes(), "found pdp11; serve it with --allow-arch any"),
    "bitmaps beyond the file": (Kdump(pages={}, header={"bitmap_blocks": 1 << 30}).tobytes(), "its bitmaps end at byte"),
    "lime without memory": (b"EMiL\1\0\0\0", "the file ends within a range's header"),
    "one byte": (b"\x7f", "no dump format starts with 7f"),
    "magic alone": (b"\x7fELF", "ends within its ELF header, after 4 bytes"),
    "half a header": (SOUND.tobytes()[:40], "ends within its ELF header, after 40 bytes"),
    "no class": (SOUND.tobytes()[:4] + b"\3" + SOUND.tobytes()[5:], "class: expected ELFCLASS32 or ELFCLASS64, found 3"),
    "a program": (File(SOUND.segments, header={"e_type": 2}).tobytes(), "type: expected ET_CORE, found ET_EXEC"),
    "no program headers": (File(()).tobytes(), "phnum: expected 1 or more, found 0"),
    "odd phentsize": (File(SOUND.segments, header={"e_phentsize": 57}).tobytes(), "phentsize: expected 56, found 57"),
    "phnum beyond the file": (File(SOUND.segments, header={"e_phnum": 999}).tobytes(), "999 program headers at byte 64"),
    "phoff beyond the file": (File(SOUND.segments, header={"e_phoff": 1 << 40}).tobytes(), "do not fit a file of"),
    "phoff that wraps": (File(SOUND.segments, header={"e_phoff": (1 << 64) - 56}).tobytes(), "do not fit a file of"),
    "xnum without a section": (File(SOUND.segments, header={"e_phnum": 0xFFFF, "e_shoff": 1 << 50}).tobytes(), "PN_XNUM"),
    "xnum of four billion": (File(SOUND.segments, xnum=True, sh_info=0xFFFFFFFF).tobytes(), "4,294,967,295 program headers"),
    "p_offset that wraps": (File([load(offset=(1 << 64) - 8, filesz=16)], size=200).tobytes(), "wraps 2^64"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_dump_is_refused_in_a_sentence_that_names_the_reason(tmp_path: Path, what: str) -> None:
    content, said = REFUSED[what]
    (tmp_path / "vmcore").write_bytes(content)
    reason = refusal(tmp_path / "vmcore")
    assert said in reason
    assert reason.isprintable()
    assert len(reason) < 250


def test_a_file_without_magic_is_nobodys_unless_its_name_or_a_person_says_otherwise(tmp_path: Path) -> None:
    for name in ("notes.txt", "vmcore-notes.txt"):
        (tmp_path / name).write_bytes(b"hello, world")
    assert look(tmp_path / "notes.txt") is None
    assert look(tmp_path / "notes.txt", named=True) is not None
    assert look(tmp_path / "vmcore-notes.txt") is not None


def test_a_dump_is_found_by_its_magic_under_any_name(tmp_path: Path) -> None:
    found = look(SOUND.write(tmp_path / "memory of host 7"))
    assert found is not None
    assert found.state == "ready"


@pytest.mark.parametrize("name", ["pipe", "vmcore"])
def test_what_cannot_be_opened_is_listed_only_where_a_dump_is_expected(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    assert (look(tmp_path / name) is not None) == (name == "vmcore")


def test_what_was_not_opened_has_the_times_of_its_name_and_no_size_but_a_files(tmp_path: Path) -> None:
    (tmp_path / "vmcore-empty").touch()
    (tmp_path / "vmcore-out").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "vmcore-fifo")
    for path in tmp_path.iterdir():
        os.utime(path, (1e9, 1e9), follow_symlinks=False)
        dump = look(path)
        assert dump is not None
        assert (dump.identity.modified, dump.identity.size) == (1_000_000_000, 0)


# Prints, for each path, its state and the lengths of the maps that were made for it.
WATCHED = """
import json, sys
from farcore.arch import Policy
from farcore.hosts import host
from farcore_server.inspection import Rules, inspect
from farcore_server.search import Place
maps = []
sys.addaudithook(lambda event, arguments: maps.append(arguments[1]) if event == "mmap.__new__" else None)
said = []
for path in sys.argv[2:]:
    dump, files = inspect(Place(path, "vmcore", None), Rules(host("x86_64"), Policy(), int(sys.argv[1])))
    said.append([dump.state, list(maps)])
    maps.clear()
print(json.dumps(said))
"""


def maps_made(*paths: str | Path, limit: int = 0) -> list[tuple[str, list[int]]]:
    command = [sys.executable, "-c", WATCHED, str(limit), *paths]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, pass_fds=[int(Path(p).name) for p in paths if "/fd/" in str(p)]
    )
    return [(state, lengths) for state, lengths in json.loads(done.stdout)]


def test_a_file_that_is_refused_is_never_mapped_not_even_to_look_at_it(tmp_path: Path) -> None:
    foreign = File(SOUND.segments, machine=183).write(tmp_path / "foreign")
    wrapped = tmp_path / "wrapped"
    wrapped.write_bytes(REFUSED["p_offset that wraps"][0])
    sound = SOUND.write(tmp_path / "sound")
    assert maps_made(foreign, wrapped, sound) == [("refused", []), ("refused", []), ("ready", [sound.stat().st_size])]


def test_a_file_of_procfs_and_one_past_the_limit_are_mapped_in_windows(tmp_path: Path) -> None:
    # A descriptor's name in /proc stands for /proc/vmcore: a map of that builds page tables for its whole length at once.
    sound = File(SOUND.segments, size=1 << 30).write(tmp_path / "vmcore")
    with sound.open("rb") as file:
        assert maps_made(f"/proc/self/fd/{file.fileno()}") == [("ready", [4 << 20])]
    assert maps_made(sound) == [("ready", [1 << 30])]
    assert maps_made(sound, limit=8 << 20) == [("ready", [2 << 20])]


def test_a_file_of_procfs_keeps_its_identity_when_its_times_change(tmp_path: Path) -> None:
    sound = SOUND.write(tmp_path / "vmcore")
    with sound.open("rb") as file:
        path = Path(f"/proc/self/fd/{file.fileno()}")
        before, plain = look(path, named=True), look(sound, named=True)
        os.utime(sound, (1, 1))
        after, changed = look(path, named=True), look(sound, named=True)
    assert before is not None and after is not None and plain is not None and changed is not None  # noqa: PT018
    assert (before.etag == after.etag, before.identity.modified) == (True, None)
    assert plain.etag != changed.etag


def test_a_lack_of_descriptors_is_a_refusal_and_not_an_error(tmp_path: Path) -> None:
    path = SOUND.write(tmp_path / "vmcore")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    first = os.dup(0)
    os.close(first)
    reasons, native = [""], "EM_X86_64 in ELF64 is native to x86_64"
    most = first
    try:
        # Descriptors that something else has open may come in between.
        while reasons[-1] != native and most < first + 100:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, limits[1]))
            dump, _ = inspect(Place(str(path), "vmcore", None), RULES)
            assert dump is not None
            reasons.append(dump.reason)
            most += 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert reasons[1] == "it cannot be opened: Too many open files"
    assert set(reasons[1:]) == {reasons[1], native}


def test_the_source_says_when_its_file_was_truncated(tmp_path: Path) -> None:
    path = SOUND.write(tmp_path / "vmcore")
    _, files = inspect(Place(str(path), "vmcore", None), RULES)
    assert files is not None
    os.truncate(path, 64)
    with pytest.raises(SourceChangedError):
        files.file.pread(0, 100)
    with pytest.raises(FaultError):
        files.file.pread(0, 1 << 20)
