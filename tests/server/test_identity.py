"""Identity and ETag: by hand-made stat results, and by real files that are changed behind its back."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest

from farcore_server.identity import Identity

NS = 1_700_000_000_123_456_789
FACTS = {"st_dev": 5, "st_ino": 77, "st_size": 4096, "st_mtime_ns": NS}
BOOT = "3f6b2b0e-56d5-4e33-9dd4-6d0c5b3f6a11"


def stat_of(**changed: int) -> os.stat_result:
    """What stat(2) shows of FACTS, but for what is changed."""
    facts = {**FACTS, **changed}
    seconds = facts["st_mtime_ns"] // 10**9
    shown = (0o100400, facts["st_ino"], facts["st_dev"], 1, 0, 0, facts["st_size"], 1, seconds, 3)
    return os.stat_result(shown, {"st_mtime_ns": facts["st_mtime_ns"]})


PLAIN = Identity.of(stat_of())
IN_PROC = PLAIN._replace(mtime_ns=0, boot_id=BOOT)


def test_a_version_is_its_device_inode_size_and_mtime() -> None:
    assert Identity(5, 77, 4096, NS) == PLAIN
    assert PLAIN.boot_id is None


@pytest.mark.parametrize("field", FACTS)
@pytest.mark.parametrize("change", [-1, +1])
def test_another_device_inode_size_or_nanosecond_is_another_version(field: str, change: int) -> None:
    assert PLAIN.holds(stat_of())
    assert not PLAIN.holds(stat_of(**{field: FACTS[field] + change}))


@pytest.mark.parametrize("field", FACTS)
def test_proc_vmcores_mtime_alone_says_nothing(field: str) -> None:
    assert IN_PROC.holds(stat_of())
    assert IN_PROC.holds(stat_of(**{field: FACTS[field] + 1})) == (field == "st_mtime_ns")


def test_of_a_file_in_proc_the_boot_is_the_version() -> None:
    version = Path("/proc/version")
    found = Identity.of(version.stat(), in_proc=True)
    assert found.boot_id is not None
    assert str(UUID(found.boot_id)) == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert found.modified is None
    assert found.holds(version.stat())


CHANGES: dict[str, Callable[[Path], object]] = {
    "appended": lambda path: os.truncate(path, 101),
    "truncated": lambda path: os.truncate(path, 99),
    "touched": lambda path: os.utime(path, ns=(0, path.stat().st_mtime_ns + 1)),
    "replaced": lambda path: _replacement(path).replace(path),
}
HARMLESS: dict[str, Callable[[Path], object]] = {
    "read": Path.read_bytes,
    "made unreadable": lambda path: path.chmod(0),
    "linked": lambda path: path.with_name("second").hardlink_to(path),
}


def _replacement(path: Path) -> Path:
    """Another file, of the same size and mtime."""
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(0, path.stat().st_mtime_ns))
    return other


@pytest.mark.parametrize("what", [*CHANGES, *HARMLESS])
def test_a_file_is_another_version_once_it_was_changed(tmp_path: Path, what: str) -> None:
    path = tmp_path / "vmcore"
    path.write_bytes(bytes(100))
    before = Identity.of(path.stat())
    {**CHANGES, **HARMLESS}[what](path)
    after = Identity.of(path.stat())
    assert before.holds(path.stat()) == (what in HARMLESS)
    assert (before.etag("elf") == after.etag("elf")) == (what in HARMLESS)


def test_an_etag_is_strong_and_has_its_quotes() -> None:
    assert re.fullmatch(r'"[0-9a-f]{32}"', PLAIN.etag("elf"))
    assert re.fullmatch(r'"[0-9a-f]{32}"', IN_PROC.etag(None))


def test_an_etag_is_another_for_each_version_and_each_stored_format() -> None:
    versions = [PLAIN._replace(inode=78), PLAIN._replace(size=4097), PLAIN._replace(mtime_ns=NS + 1), PLAIN, IN_PROC]
    versions += [IN_PROC._replace(size=4097), IN_PROC._replace(boot_id=BOOT.replace("3", "4"))]
    tags = {version.etag(stored_format) for version in versions for stored_format in ("elf", "flattened", "raw", None)}
    assert len(tags) == len(versions) * 4


def test_an_etag_is_the_same_on_a_replica_and_after_a_remount() -> None:
    assert PLAIN.etag("elf") == PLAIN._replace(device=99).etag("elf")


def test_proc_vmcores_etag_lasts_as_long_as_its_boot() -> None:
    assert IN_PROC.etag("elf") == IN_PROC._replace(inode=1, mtime_ns=NS, device=2).etag("elf")


def test_an_etag_is_the_same_in_every_release_until_the_images_layout_changes() -> None:
    # printf "((77, 4096, 1700000000123456789), 'elf', 2)" | sha256sum; the last number is image.VERSION.
    assert PLAIN.etag("elf") == '"cd008c0dd287795203b9de5686d7174e"'


@pytest.mark.parametrize(("mtime_ns", "seconds"), [(NS, NS // 10**9), (0, 0), (999_999_999, 0), (-1, -1)])
def test_last_modified_is_in_whole_seconds(mtime_ns: int, seconds: int) -> None:
    assert PLAIN._replace(mtime_ns=mtime_ns).modified == seconds
