"""Which vmlinux a dump is opened with, and which is refused; files are those of tests/elfwriter.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from farcore.vmcoreinfo import Vmcoreinfo
from farcore_client import vmlinux
from farcore_client.vmlinux import VmlinuxError
from tests.elfwriter import Dump, note

MINE, OTHER = "ab" * 20, "cd" * 20
RELEASE = "6.1.0-56-cloud-amd64"
KNOWN = Vmcoreinfo({"OSRELEASE": RELEASE, "BUILD-ID": MINE})


def written(path: Path, build_id: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return Dump([note(("Linux", 0x100, bytes(4)), ("GNU", 3, bytes.fromhex(build_id)))]).write(path)


def found(known: Vmcoreinfo | None, debug: Path, given: Path | None = None) -> Path:
    return vmlinux.find(known, given, debug=debug, environment={})


@pytest.mark.parametrize(
    "place",
    [
        f"boot/vmlinux-{RELEASE}",
        f"lib/modules/{RELEASE}/vmlinux",
        f"usr/lib/modules/{RELEASE}/vmlinux",
        f"boot/vmlinux-{RELEASE}.debug",
        f".build-id/{MINE[:2]}/{MINE[2:]}.debug",
    ],
)
def test_it_is_found_where_distributions_put_it(tmp_path: Path, place: str) -> None:
    path = written(tmp_path / place, MINE)
    assert found(KNOWN, tmp_path) == path


def test_one_of_the_same_release_but_another_build_is_passed_over(tmp_path: Path) -> None:
    other = written(tmp_path / f"boot/vmlinux-{RELEASE}", OTHER)
    with pytest.raises(VmlinuxError, match=f"{other} is of another build.*install its symbols"):
        found(KNOWN, tmp_path)
    right = written(tmp_path / f"lib/modules/{RELEASE}/vmlinux", MINE)
    assert found(KNOWN, tmp_path) == right


def test_a_given_one_of_another_kernel_is_refused_in_a_sentence_with_both(tmp_path: Path) -> None:
    other = written(tmp_path / "vmlinux", OTHER)
    with pytest.raises(VmlinuxError) as caught:
        found(KNOWN, tmp_path, other)
    assert MINE in str(caught.value)
    assert OTHER in str(caught.value)
    assert str(other) in str(caught.value)


def test_a_given_one_of_the_same_build_is_taken_wherever_it_is(tmp_path: Path) -> None:
    assert found(KNOWN, tmp_path, written(tmp_path / "x", MINE)) == tmp_path / "x"


def test_without_a_build_id_on_both_sides_a_given_one_is_taken_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path / "vmlinux", MINE)
    assert found(Vmcoreinfo({"OSRELEASE": RELEASE}), tmp_path, path) == path
    assert "check what the tool shows" in capsys.readouterr().err
    assert found(None, tmp_path, path) == path


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"not an ELF file at all, but long enough for one" * 3])
def test_what_is_no_vmlinux_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(content)
    with pytest.raises(VmlinuxError, match="is no vmlinux"):
        found(KNOWN, tmp_path, path)
    with pytest.raises(VmlinuxError, match="cannot be read"):
        found(KNOWN, tmp_path, tmp_path / "absent")


def test_a_dump_that_names_no_kernel_needs_a_given_one(tmp_path: Path) -> None:
    with pytest.raises(VmlinuxError, match="name the vmlinux"):
        found(None, tmp_path)


def test_the_sentence_of_a_missing_one_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(VmlinuxError) as caught:
        found(KNOWN, tmp_path)
    for word in (RELEASE, MINE, f"linux-image-{RELEASE}-dbg", "kernel-debuginfo", "DEBUGINFOD_URLS"):
        assert word in str(caught.value)
