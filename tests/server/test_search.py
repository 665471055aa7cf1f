"""Names and links that a search finds; the oracle is what the test made."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from farcore_server.search import Place, search


def names(path: Path) -> list[str]:
    return [place.name for place in search(str(path))]


def test_a_file_is_itself_whatever_it_is_called_and_may_be_a_link_to_anywhere(tmp_path: Path) -> None:
    (tmp_path / "memory.bin").touch()
    assert list(search(str(tmp_path / "memory.bin"))) == [Place(str(tmp_path / "memory.bin"), "memory.bin", None)]


def test_a_path_that_is_not_there_is_a_place_all_the_same(tmp_path: Path) -> None:
    assert list(search(str(tmp_path / "gone"))) == [Place(str(tmp_path / "gone"), "gone", None)]


def test_files_below_a_directory_are_named_by_their_path_below_it(tmp_path: Path) -> None:
    for name in ("b", "a", "2026-01-31-10:15/vmcore", "host/2026/vmcore.1"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert sorted(names(tmp_path)) == ["2026-01-31-10:15/vmcore", "a", "b", "host/2026/vmcore.1"]
    assert [name for name in names(tmp_path) if "/" not in name] == ["a", "b"]


def test_a_relative_path_gives_absolute_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vmcore").touch()
    monkeypatch.chdir(tmp_path)
    assert [place.path for place in search(".")] == [str(tmp_path / "vmcore")]


def test_the_root_of_a_linked_directory_is_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "vmcore").touch()
    (tmp_path / "link").symlink_to("real")
    assert list(search(str(tmp_path / "link"))) == [Place(str(tmp_path / "link/vmcore"), "vmcore", str(tmp_path / "real"))]


def test_linked_directories_are_not_entered_and_linked_files_are_listed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "vmcore").touch()
    served = tmp_path / "served"
    served.mkdir()
    (served / "up").symlink_to("..")
    (served / "self").symlink_to(".")
    (served / "out").symlink_to(tmp_path / "outside")
    (served / "vmcore").symlink_to(tmp_path / "outside" / "vmcore")
    (served / "dangling").symlink_to("nothing")
    (served / "circle").symlink_to("circle")
    assert sorted(names(served)) == ["circle", "dangling", "vmcore"]


def test_a_name_that_is_no_utf_8_is_found(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/vmcore-\xff\n"
    os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
    assert [os.fsencode(place.path) for place in search(str(tmp_path))] == [name]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vmcore", True),
        ("vmcore-dmesg.txt", False),
        ("vmcore.txt", True),
        ("vmcore.flat", True),
        ("host.elf", True),
        ("host.kdump", True),
        ("host.flat", True),
        ("Vmcore", False),
        ("old-vmcore", False),
        ("dump", False),
        ("elf", False),
    ],
)
def test_a_usual_name_is_expected_to_be_a_dump_and_another_only_when_it_was_named(
    tmp_path: Path, name: str, expected: bool
) -> None:
    (tmp_path / name).touch()
    assert [place.expected for place in search(str(tmp_path))] == [expected]
    assert [place.expected for place in search(str(tmp_path / name))] == [True]
