from __future__ import annotations

import subprocess
import sys

import pytest

from farcore.elf import Bits, Data
from farcore.errors import SettingsError
from farcore.hosts import HOSTS, KERNEL_CROSS, host, host_of, machine_name, this_host


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("i386", "i386"),
        ("i486", "i386"),
        ("i586", "i386"),
        ("i686", "i386"),
        ("amd64", "x86_64"),
        ("armv5tel", "arm"),
        ("armv7l", "arm"),
        ("armv8l", "arm"),
        ("armv7b", "armeb"),
        ("arm64", "aarch64"),
        ("ppc64el", "ppc64le"),
        ("loong64", "loongarch64"),
        ("sh4a", "sh4"),
        ("hppa", "parisc"),
    ],
)
def test_every_word_of_uname_for_one_kernel_is_one_host(alias: str, name: str) -> None:
    assert host(alias).name == name
    assert host(alias) is host(name)


def test_no_name_stands_for_two_hosts() -> None:
    names = [name for each in HOSTS for name in (each.name, *each.aliases)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("typed", "meant"), [("x86-64", "x86_64"), ("PPC64EL", "ppc64el"), ("s390X", "s390x"), ("armv7", "armv7l")]
)
def test_a_misspelt_name_is_answered_with_the_nearest(typed: str, meant: str) -> None:
    with pytest.raises(SettingsError, match=f"did you mean .*{meant}"):
        host(typed)


@pytest.mark.parametrize("typed", ["", "vax", "q" * 100_000])
def test_a_name_near_to_none_is_answered_with_all(typed: str) -> None:
    with pytest.raises(SettingsError, match=r"known are i386, x86_64, .*parisc64"):
        host(typed)


def test_this_host_is_what_uname_says() -> None:
    machine = subprocess.run(["uname", "-m"], capture_output=True, text=True, check=True).stdout.strip()
    here = this_host()
    assert machine in (here.name, *here.aliases)
    assert here.data == {"little": "LE", "big": "BE"}[sys.byteorder]


@pytest.mark.parametrize(
    ("machine", "byteorder", "name", "data"),
    [
        ("mips", "big", "mips", "BE"),
        ("mips", "little", "mipsel", "LE"),
        ("mips64", "little", "mips64el", "LE"),
        ("ppc64", "big", "ppc64", "BE"),
        ("armv7l", "little", "arm", "LE"),
        ("sh4", "big", "sh4", "BE"),
    ],
)
def test_the_byte_order_decides_where_uname_does_not(machine: str, byteorder: str, name: str, data: str) -> None:
    here = this_host(machine, byteorder)
    assert (here.name, here.data) == (name, data)


def test_an_unknown_machine_is_told_to_choose() -> None:
    with pytest.raises(SettingsError, match=r"'alpha'.*--host-arch"):
        this_host("alpha", "little")


# Numbers by hand from include/uapi/linux/elf-em.h.
@pytest.mark.parametrize(
    ("machine", "name"),
    [
        (3, "EM_386"),
        (6, "EM_486"),
        (8, "EM_MIPS"),
        (15, "EM_PARISC"),
        (20, "EM_PPC"),
        (21, "EM_PPC64"),
        (22, "EM_S390"),
        (40, "EM_ARM"),
        (42, "EM_SH"),
        (43, "EM_SPARCV9"),
        (50, "EM_IA_64"),
        (62, "EM_X86_64"),
        (183, "EM_AARCH64"),
        (243, "EM_RISCV"),
        (258, "EM_LOONGARCH"),
        (0x9026, "EM_ALPHA"),
        (0xA390, "EM_S390_OLD"),
        (0x1234, "machine 0x1234"),
    ],
)
def test_machines_have_the_kernels_names(machine: int, name: str) -> None:
    assert machine_name(machine) == name


def test_the_cross_table_has_one_entry() -> None:
    assert dict(KERNEL_CROSS) == {"i386": {62}}


@pytest.mark.parametrize(
    ("machine", "bits", "data", "name"),
    [
        (62, 64, "LE", "x86_64"),
        (3, 64, "LE", "i386"),
        (21, 64, "LE", "ppc64le"),
        (21, 64, "BE", "ppc64"),
        (22, 64, "BE", "s390x"),
        (22, 32, "BE", "s390"),
        (183, 64, "BE", "aarch64_be"),
        (8, 32, "LE", "mipsel"),
        (8, 64, "BE", "mips64"),
        (243, 32, "LE", "riscv32"),
    ],
)
def test_a_machine_leads_to_the_host_it_is_native_to(machine: int, bits: Bits, data: Data, name: str) -> None:
    found = host_of(machine, bits, data)
    assert found is not None
    assert found.name == name


def test_a_machine_that_no_host_takes_leads_nowhere() -> None:
    assert host_of(0x1234, 64, "LE") is None
    assert host_of(40, 64, "LE") is None
