"""farcored check as a shell sees it: what it prints, and its exit status."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.elfwriter import Dump as File
from tests.elfwriter import load, note
from tests.unprivileged import as_nobody, public_folder

TERMS = ["magic", "type", "arch", "class", "ident-version", "version", "ehsize", "phentsize", "phnum"]
FILE = File([note(("CORE", 1, bytes(336))), load(b"page", paddr=0x1000)])


def check(*arguments: str | Path | bytes) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).with_name("farcored"), "check", *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FARCORE_")} | {"LC_ALL": "C.UTF-8"}
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment, timeout=60)


def said(*arguments: str | Path | bytes) -> list[dict[str, Any]]:
    answer: list[dict[str, Any]] = json.loads(check("--json", *arguments).stdout)
    return answer


def rows(text: str) -> list[str]:
    return [line.split()[0] for line in text.splitlines() if re.match(r"  \S+ +(ok|FAILS|unread) ", line)]


def test_a_sound_dump_passes_every_term_and_is_served(tmp_path: Path) -> None:
    done = check("--host-arch", "x86_64", FILE.write(tmp_path / "vmcore"))
    assert (done.returncode, done.stderr) == (0, "")
    assert rows(done.stdout) == TERMS
    assert done.stdout.startswith(f"{tmp_path}/vmcore\n")
    assert "kernel: /proc/vmcore on x86_64: accepted (native)" in done.stdout
    assert "policy: served: EM_X86_64 in ELF64 is native to x86_64" in done.stdout
    assert "\x1b" not in done.stdout


def test_an_x86_64_dump_on_i386_is_taken_by_the_cross_test(tmp_path: Path) -> None:
    done = check("--host-arch", "i386", FILE.write(tmp_path / "vmcore"))
    assert (done.returncode, "on i386: accepted (cross)" in done.stdout) == (0, True)


def test_a_foreign_dump_fails_one_term_and_the_exit_status_says_so(tmp_path: Path) -> None:
    path = File(FILE.segments, machine=183).write(tmp_path / "vmcore")
    done = check("--host-arch", "x86_64", path)
    assert done.returncode == 1
    assert re.findall(r"^  (\S+) +FAILS", done.stdout, re.MULTILINE) == ["arch"]
    assert 'refused ("Core image elf header not sane")' in done.stdout
    assert "policy: refused: arch: expected EM_X86_64 in ELF64" in done.stdout
    assert check("--host-arch", "x86_64", "--allow-arch", "aarch64", path).returncode == 0


def test_the_policy_kernel_and_its_contradiction(tmp_path: Path) -> None:
    path = File(FILE.segments, header={"e_ehsize": 8}).write(tmp_path / "vmcore")
    assert check("--host-arch", "x86_64", path).returncode == 0
    assert check("--host-arch", "x86_64", "--policy", "kernel", path).returncode == 1
    done = check("--policy", "kernel", "--allow-arch", "any", path)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)


def test_json_has_one_object_a_path_with_the_keys_of_the_design(tmp_path: Path) -> None:
    sound = FILE.write(tmp_path / "a")
    (tmp_path / "b").write_bytes(b"nothing of the kind")
    served, refused = said("--host-arch", "x86_64", sound, tmp_path / "b")
    assert list(served) == list(refused) == ["path", "stored_format", "elf", "verdict", "error"]
    assert (served["path"], served["stored_format"], served["error"]) == (str(sound), "elf", None)
    assert served["elf"] == {"class": 64, "data": "LE", "machine": "EM_X86_64", "type": "ET_CORE", "phnum": 2}
    assert [term["name"] for term in served["verdict"]["kernel"]["terms"]] == TERMS
    assert (served["verdict"]["kernel"]["by"], served["verdict"]["policy"]["accepted"]) == ("native", True)
    assert (refused["stored_format"], refused["elf"], refused["verdict"]) == (None, None, None)
    assert refused["error"] == "no dump format starts with 6e 6f 74 68 69 6e 67 20; name the vmcore itself"


def test_a_directory_stands_for_the_dumps_in_it_and_an_empty_one_for_none(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "notes.txt").write_text("hello")
    assert said(tmp_path / "none") == []
    done = check(tmp_path / "none")
    assert (done.returncode, done.stdout) == (0, "no dumps there\n")
    for name in ("one", "two"):
        FILE.write(tmp_path / "none" / name)
    assert [each["path"] for each in said(tmp_path / "none")] == [f"{tmp_path}/none/one", f"{tmp_path}/none/two"]


def test_a_path_that_is_not_there_is_refused_and_no_path_at_all_is_a_usage_error(tmp_path: Path) -> None:
    done = check(tmp_path / "gone")
    assert (done.returncode, "policy: refused: no such file" in done.stdout) == (1, True)
    done = check()
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "name dump files or directories" in done.stderr


def test_a_name_with_control_characters_or_no_utf_8_is_shown_as_its_bytes(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/vmcore\x1b[2J\n\xff\xc3\xa9"
    Path(os.fsdecode(name)).write_bytes(FILE.tobytes())
    done = check("--host-arch", "x86_64", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == f"{tmp_path}/vmcore\\x1b[2J\\x0a\\xffé"
    assert said(name)[0]["path"] == f"{tmp_path}/vmcore\x1b[2J\n\ufffdé"


@pytest.mark.timeout(30)
def test_each_hostile_file_gets_a_sentence_and_the_sound_one_beside_them_is_served(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "vmcore-fifo")
    (tmp_path / "vmcore-empty").touch()
    (tmp_path / "vmcore-dangling").symlink_to("nothing")
    (tmp_path / "vmcore-circle").symlink_to("vmcore-circle")
    (tmp_path / "vmcore-device").symlink_to("/dev/zero")
    (tmp_path / "vmcore-out").symlink_to("/etc/passwd")
    (tmp_path / "vmcore-cut").write_bytes(FILE.tobytes()[:100])
    FILE.write(tmp_path / "vmcore-sound")
    errors = {Path(each["path"]).name: each["error"] for each in said("--host-arch", "x86_64", tmp_path)}
    assert errors.pop("vmcore-sound") is None
    assert len(errors) == 7
    assert all(error and "\n" not in error and len(error) < 200 for error in errors.values())
    assert check(tmp_path).returncode == 1


def test_what_may_not_be_read_is_said_for_a_file_and_for_a_directory() -> None:
    with public_folder() as folder:
        FILE.write(folder / "vmcore").chmod(0)
        (folder / "crash").mkdir(mode=0)
        program = "sys.exit(main(['check', '--json', *sys.argv[1:]]))"
        imports = "from farcore_server.main import main\nimport farcore_server.commands.check"
        done = as_nobody(imports, program, folder / "vmcore", folder / "crash")
        (folder / "crash").chmod(0o700)
    assert done.returncode == 1, done.stderr
    assert ["no permission" in each["error"] for each in json.loads(done.stdout)] == [True, True]
