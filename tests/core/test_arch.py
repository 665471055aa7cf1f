from __future__ import annotations

import re
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcore.arch import ANY, TERMS, Policy, Term, Verdict, check, check_uname
from farcore.elf import Bits
from farcore.errors import SettingsError
from farcore.hosts import EM_S390, EM_X86_64, HOSTS, Host, host

KERNEL, CROSS = Policy("kernel"), Policy()

# By hand from elf_check_arch and vmcore_elf{32,64}_check_arch of Linux 6.1: host, its byte order, and the numbers of the
# machines that each path takes.
TAKES = """
i386         LE  3 6        3 6
x86_64       LE  62         62
arm          LE  40         -
armeb        BE  40         -
aarch64      LE  183        183
aarch64_be   BE  183        183
riscv32      LE  243        -
riscv64      LE  -          243
s390         BE  22 41872   -
s390x        BE  -          22 41872
ppc          BE  20         20
ppc64        BE  21         21
ppc64le      LE  21         21
mips         BE  8          8
mipsel       LE  8          8
mips64       BE  8          8
mips64el     LE  8          8
loongarch32  LE  258        258
loongarch64  LE  258        258
ia64         LE  50         50
sh4          LE  42         42
sparc64      BE  43         43
parisc       BE  15         -
parisc64     BE  -          15
"""
MACHINES = [*range(300), 0x1234, 0x3E00, 0x9026, 0xA390, 0xFFFF]

# The first 64 bytes of real dumps: QEMU 7.2's dump-guest-memory, and the /proc/vmcore of a Linux 6.1 i386 crash kernel.
REAL = {
    "x86_64": (
        "7f454c4602010100000000000000000004003e00010000000000000000000000"
        "c000000000000000400000000000000000000000080038000300400002000100"
    ),
    "x86_64, in real mode": (
        "7f454c4602010100000000000000000004000300010000000000000000000000"
        "c000000000000000400000000000000000000000080038000600400002000100"
    ),
    "arm": (
        "7f454c4601010100000000000000000004002800010000000000000084000000"
        "3400000000000000080020000200280002000100000000000000000000000000"
    ),
    "aarch64": (
        "7f454c460201010000000000000000000400b700010000000000000000000000"
        "c000000000000000400000000000000000000000080038000200400002000100"
    ),
    "riscv32": (
        "7f454c460101010000000000000000000400f300010000000000000084000000"
        "3400000000000000080020000300280002000100000000000000000000000000"
    ),
    "s390x": (
        "7f454c4602020100000000000000000000040016000000010000000000000000"
        "00000000000000c0000000000000004000000000000800380002004000020001"
    ),
    "ppc": (
        "7f454c4601020100000000000000000000040014000000010000000000000084"
        "0000003400000000000800200003002800020001000000000000000000000000"
    ),
    "/proc/vmcore": (
        "7f454c4601010100000000000000000004000300010000000000000034000000"
        "0000000000000000340020000400000000000000040000000010000000000000"
    ),
}


def rules() -> dict[str, tuple[str, dict[int, set[int]]]]:
    table = {}
    for line in TAKES.split("\n")[1:-1]:
        name, data, *paths = re.split(r"  +", line)
        elf32, elf64 = ({int(word) for word in path.split() if word != "-"} for path in paths)
        table[name] = (data, {32: elf32, 64: elf64})
    return table


def header(bits: int = 64, data: str = "LE", /, **fields: int) -> bytes:
    """A sound header of EM_X86_64, or what ``fields`` make of it."""
    ident = {"magic": 0x7F454C46, "class": bits // 32, "data_byte": 1 if data == "LE" else 2, "ident": 1}
    rest = {"type": 4, "machine": 62, "version": 1, "entry": 0, "phoff": bits, "shoff": 0, "flags": 0}
    rest |= {"ehsize": 64 if bits == 64 else 52, "phentsize": 56 if bits == 64 else 32, "phnum": 3}
    assert fields.keys() <= ident.keys() | rest.keys()
    ident |= {name: value for name, value in fields.items() if name in ident}
    rest |= {name: value for name, value in fields.items() if name in rest}
    layout = ("<" if data == "LE" else ">") + ("HHIQQQIHHHHHH" if bits == 64 else "HHIIIIIHHHHHH")
    return struct.pack(">IBBB9x", *ident.values()) + struct.pack(layout, *rest.values(), 0, 0, 0)


def by_name(verdict: Verdict) -> dict[str, Term]:
    return {term.name: term for term in verdict.kernel.terms}


def failing(verdict: Verdict) -> set[str]:
    return {term.name for term in verdict.kernel.terms if not term.ok}


def on(name: str, raw: bytes, policy: Policy = CROSS) -> Verdict:
    return check(raw, host(name), policy)


def advised(reason: str) -> Policy:
    """The policy that a reason tells to serve with."""
    assert "serve it with" in reason, reason
    words = reason.split("serve it with", 1)[1].replace(",", "").split()
    return Policy("cross", frozenset([words[words.index("--allow-arch") + 1]] if "--allow-arch" in words else ()))


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("name", rules())
def test_each_host_takes_exactly_its_machines_in_each_class(name: str, bits: int) -> None:
    data, takes = rules()[name]
    for machine in MACHINES:
        verdict = on(name, header(bits, data, machine=machine), KERNEL)
        crosses = (name, bits, machine) == ("i386", 64, 62)
        assert verdict.kernel.accepted == (machine in takes[bits] or crosses), machine
        assert verdict.kernel.by == ("native" if machine in takes[bits] else "cross" if crosses else None)
        assert failing(verdict) <= {"arch"}
        assert verdict.host_arch == name


def test_the_table_knows_every_host() -> None:
    assert [each.name for each in HOSTS] == list(rules())


def test_i386_takes_x86_64_on_the_elf64_path_only() -> None:
    assert on("i386", header(64)).kernel.by == "cross"
    elf32 = on("i386", header(32))
    assert failing(elf32) == {"arch"}
    assert (elf32.kernel.by, elf32.policy.accepted) == (None, False)


def test_i386_before_2007_refused_x86_64() -> None:
    verdict = check(header(64), host("i386"), CROSS, cross={})
    assert failing(verdict) == {"arch"}
    assert not verdict.policy.accepted


def test_x86_64_refuses_i386_in_either_class() -> None:
    for bits in (32, 64):
        verdict = on("x86_64", header(bits, machine=3))
        assert failing(verdict) == {"arch"}
        assert not verdict.policy.accepted
        assert verdict.policy.reason == (
            f"arch: expected EM_X86_64 in ELF{bits}, found EM_386 in ELF{bits}; serve it with --allow-arch i386"
        )


def test_a_class_without_a_path_fails_arch_and_nothing_else() -> None:
    verdict = on("arm", header(64, machine=40))
    assert failing(verdict) == {"arch"}
    assert by_name(verdict)["arch"] == Term("arch", False, "EM_ARM in ELF32", "EM_ARM in ELF64")


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize(("name", "data", "machine"), [("x86_64", "LE", 62), ("ppc64", "BE", 21)])
@pytest.mark.parametrize(
    ("term", "wrong", "found"),
    [
        ("magic", {"magic": 0x7F454C47}, "7f 45 4c 47"),
        ("type", {"type": 2}, "ET_EXEC"),
        ("type", {"type": 5}, "0x5"),
        ("arch", {"machine": 0x1234}, "machine 0x1234 in ELF"),
        ("ident-version", {"ident": 0}, "0"),
        ("version", {"version": 2}, "2"),
        ("ehsize", {"ehsize": 63}, "63"),
        ("phentsize", {"phentsize": 57}, "57"),
        ("phnum", {"phnum": 0}, "0"),
    ],
)
def test_one_wrong_field_fails_its_term_alone(
    term: str, wrong: dict[str, int], found: str, name: str, data: str, machine: int, bits: int
) -> None:
    sound = on(name, header(bits, data, machine=machine), KERNEL)
    assert sound.kernel.accepted
    assert sound.policy.accepted
    assert failing(sound) == set()
    verdict = on(name, header(bits, data, **({"machine": machine} | wrong)), KERNEL)
    assert [each.name for each in verdict.kernel.terms] == list(TERMS)
    assert failing(verdict) == {term}
    assert not verdict.policy.accepted
    assert verdict.policy.reason.startswith(f"{term}: expected ")
    assert (by_name(verdict)[term].found or "").startswith(found)
    assert f"found {found}" in verdict.policy.reason


@pytest.mark.parametrize("kind", [0, 3, 255])
def test_without_a_class_the_terms_that_need_one_stay_open(kind: int) -> None:
    verdict = on("x86_64", header(**{"class": kind}))
    terms = by_name(verdict)
    assert {name for name, term in terms.items() if term.ok is False} == {"class"}
    assert {name for name, term in terms.items() if term.ok is None} == {"arch", "ehsize", "phentsize", "phnum"}
    assert terms["class"].found == str(kind)
    assert verdict.policy.reason.startswith("class: ")


def test_a_header_cut_anywhere_leaves_open_what_it_lacks() -> None:
    needs = {"magic": 1, "type": 18, "arch": 20, "class": 5, "ident-version": 7, "version": 24}
    needs |= {"ehsize": 54, "phentsize": 56, "phnum": 58}
    for length in range(64):
        verdict = on("x86_64", header()[:length])
        terms = by_name(verdict)
        assert {name for name, term in terms.items() if term.ok is None} == {
            name for name, end in needs.items() if length < end
        }
        assert all(term.found is None for term in terms.values() if term.ok is None)
        assert verdict.kernel.accepted == verdict.policy.accepted == (length >= 58)
        if 4 <= length < 58:
            assert f"after {length} bytes" in verdict.policy.reason


def test_a_cut_header_of_a_foreign_machine_is_told_that_it_is_cut() -> None:
    reason = on("x86_64", header(machine=183)[:22]).policy.reason
    assert reason.startswith("version: ")
    assert "--allow-arch" not in reason


def test_a_damaged_header_of_a_foreign_machine_is_told_that_it_is_damaged() -> None:
    reason = on("x86_64", header(machine=183, phentsize=0)).policy.reason
    assert reason.startswith("phentsize: expected 56, found 0")
    assert "--allow-arch" not in reason


@given(st.binary(max_size=80) | st.binary(max_size=80).map(lambda rest: (b"\x7fELF" + rest)[:64]), st.sampled_from(HOSTS))
def test_any_bytes_have_nine_terms_and_a_reason(raw: bytes, here: Host) -> None:
    for policy in (KERNEL, CROSS, Policy("cross", frozenset({"any"}))):
        verdict = check(raw, here, policy)
        assert [term.name for term in verdict.kernel.terms] == list(TERMS)
        assert verdict.kernel.accepted == all(term.ok for term in verdict.kernel.terms)
        assert verdict.policy.reason
        assert all(text.isprintable() for text in (verdict.policy.reason, *verdict.warnings))


def test_the_kernel_verdict_looks_at_neither_phoff_nor_flags_nor_ei_data() -> None:
    for data in (0, 1, 2, 255):
        verdict = on("x86_64", header(data_byte=data, phoff=1 << 40, flags=0xDEADBEEF, entry=7), KERNEL)
        assert verdict.kernel.accepted
        assert verdict.policy.accepted


def test_one_program_header_is_enough() -> None:
    assert on("x86_64", header(phnum=1), KERNEL).kernel.accepted


def test_pn_xnum_is_a_number_like_any_other() -> None:
    verdict = on("x86_64", header(phnum=0xFFFF), KERNEL)
    assert by_name(verdict)["phnum"] == Term("phnum", True, "1 or more", "65535")
    assert verdict.kernel.accepted


@pytest.mark.parametrize("flags", [0, 1, 2, 3])
def test_e_flags_on_ppc64_are_told_and_never_a_reason(flags: int) -> None:
    for policy in (KERNEL, CROSS):
        verdict = on("ppc64le", header(machine=21, flags=flags), policy)
        assert by_name(verdict)["arch"] == Term("arch", True, "EM_PPC64 in ELF64", f"EM_PPC64 in ELF64, e_flags {flags:#x}")
        assert verdict.policy.accepted


def test_a_file_of_the_other_byte_order_fails_on_what_the_host_reads() -> None:
    verdict = on("x86_64", header(64, "BE", machine=22))
    terms = by_name(verdict)
    assert failing(verdict) == {"type", "arch", "version", "ehsize", "phentsize"}
    assert terms["type"].found == "0x400 (ET_CORE in the other byte order)"
    assert terms["arch"].found == "machine 0x1600 in ELF64"
    assert terms["version"].found == str(1 << 24)
    assert terms["phnum"].found == str(0x300)
    assert failing(on("s390x", header(machine=22))) == failing(verdict)


def test_the_policy_cross_reads_a_file_in_its_own_byte_order() -> None:
    big = header(64, "BE", machine=22)
    assert on("s390x", big).kernel.accepted
    assert on("x86_64", big).policy.reason == (
        "arch: expected EM_X86_64 in ELF64, found EM_S390 in ELF64; serve it with --allow-arch s390x"
    )
    verdict = on("x86_64", big, Policy("cross", frozenset({"s390x"})))
    assert (verdict.kernel.accepted, verdict.policy.accepted) == (False, True)
    assert verdict.policy.reason == "EM_S390 in ELF64 is allowed by --allow-arch s390x"
    other = on("ppc64", header(machine=21))
    assert (other.kernel.accepted, other.policy.accepted) == (False, True)


@pytest.mark.parametrize(("bits", "size"), [(32, 52), (64, 64)])
def test_qemus_e_ehsize_is_a_refusal_to_the_kernel_and_a_warning_to_cross(bits: int, size: int) -> None:
    raw = header(bits, machine=183, ehsize=8)
    kernel = on("aarch64", raw, KERNEL)
    assert failing(kernel) == {"ehsize"}
    assert kernel.policy.reason == f"ehsize: expected {size}, found 8; serve it with --policy cross"
    assert kernel.warnings == ()
    cross = on("aarch64", raw)
    assert cross.policy.accepted
    assert [text for text in cross.warnings if f"e_ehsize is 8 (as QEMU 7.2 writes), not {size}" in text] == [*cross.warnings]
    assert len(cross.warnings) == 1
    assert on("aarch64", header(bits, machine=183)).warnings == ()


def test_e_ehsize_is_a_warning_beside_a_foreign_arch() -> None:
    verdict = on("x86_64", header(machine=183, ehsize=8))
    assert verdict.policy.reason.startswith("arch: ")
    assert len(verdict.warnings) == 1


def test_e_ehsize_is_not_forgiven_where_the_header_is_in_doubt() -> None:
    for wrong in ({"phentsize": 57}, {"phnum": 0}, {"version": 0}, {"type": 1}):
        verdict = on("x86_64", header(ehsize=8, **wrong))
        assert not verdict.policy.accepted
        assert verdict.warnings == ()
        assert not verdict.policy.reason.startswith("ehsize")


@pytest.mark.parametrize(("byte", "warns"), [(0, True), (1, False), (2, False), (3, True)])
def test_a_byte_order_that_is_neither_is_a_warning(byte: int, warns: bool) -> None:
    verdict = on("x86_64", header(64, "BE" if byte == 2 else "LE", data_byte=byte))
    assert verdict.policy.accepted
    assert [text.startswith(f"EI_DATA is {byte}") for text in verdict.warnings] == [True] * warns


@pytest.mark.parametrize(
    ("name", "raw", "reason"),
    [
        ("x86_64", header(), "EM_X86_64 in ELF64 is native to x86_64"),
        ("i386", header(), "EM_X86_64 in ELF64 is what i386 takes besides its own (the kernel's cross test)"),
    ],
)
def test_an_accepted_dump_is_told_by_what(name: str, raw: bytes, reason: str) -> None:
    for policy in (KERNEL, CROSS, Policy("cross", frozenset({"x86_64", "any"}))):
        assert on(name, raw, policy).policy.reason == reason


def test_allow_arch_takes_what_that_arch_takes_natively_and_no_more() -> None:
    allowed = Policy("cross", frozenset({"i686", "arm"}))
    for bits, machine, accepted in ((32, 3, True), (64, 6, True), (32, 40, True), (64, 40, False), (64, 62, False)):
        assert on("s390x", header(bits, machine=machine), allowed).policy.accepted == accepted


def test_of_two_allowed_archs_that_take_it_the_first_by_name_is_told() -> None:
    for allow in (["mips", "mips64", "any"], ["any", "mips64", "mips"]):
        reason = on("x86_64", header(machine=8), Policy("cross", frozenset(allow))).policy.reason
        assert reason == "EM_MIPS in ELF64 is allowed by --allow-arch mips"


def test_allow_arch_any_takes_every_machine_but_no_damaged_header() -> None:
    anything = Policy("cross", frozenset({"any"}))
    verdict = on("x86_64", header(machine=0x1234), anything)
    assert verdict.policy.reason == "machine 0x1234 in ELF64 is allowed by --allow-arch any"
    assert not verdict.kernel.accepted
    for wrong in ({"type": 2}, {"phnum": 0}, {"phentsize": 0}, {"version": 9}):
        assert not on("x86_64", header(machine=0x1234, **wrong), anything).policy.accepted


def test_allow_arch_does_not_change_the_kernel_verdict() -> None:
    for allow in (frozenset[str](), frozenset({"any"}), frozenset({"aarch64", "s390x"})):
        assert on("x86_64", header(machine=183), Policy("cross", allow)).kernel == on("x86_64", header(machine=183)).kernel


@pytest.mark.parametrize("arch", ["any", "s390x"])
def test_the_policy_kernel_with_an_allowed_arch_is_a_usage_error(arch: str) -> None:
    with pytest.raises(SettingsError, match="leave out --allow-arch, or choose --policy cross"):
        Policy("kernel", frozenset({arch}))


def test_an_unknown_policy_or_arch_is_a_usage_error() -> None:
    with pytest.raises(SettingsError, match="it is kernel or cross"):
        Policy("strict")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="did you mean s390 or s390x"):
        Policy("cross", frozenset({"s390y"}))


@pytest.mark.parametrize("policy", [KERNEL, CROSS], ids=["kernel", "cross"])
@pytest.mark.parametrize("here", ["i386", "s390x", "arm"])
def test_who_follows_the_advice_is_served(here: str, policy: Policy) -> None:
    followed = 0
    for data, takes in rules().values():
        for bits, machines in takes.items():
            for machine in [*machines, 0x1234]:
                for ehsize in (8, 52 if bits == 32 else 64):
                    raw = header(bits, data, machine=machine, ehsize=ehsize)
                    refused = on(here, raw, policy)
                    if not refused.policy.accepted:
                        assert on(here, raw, advised(refused.policy.reason)).policy.accepted, refused.policy.reason
                        followed += 1
    assert followed > 100


def test_a_program_is_told_to_be_none() -> None:
    assert on("x86_64", header(type=2)).policy.reason == (
        "type: expected ET_CORE, found ET_EXEC; this is not a core: name the vmcore, not a program or vmlinux"
    )


def test_a_file_that_is_no_elf_is_told_so() -> None:
    assert "this is not an ELF file" in on("x86_64", b"makedumpfile\0\0\0\0" * 4).policy.reason
    assert "after 0 bytes" in on("x86_64", b"").policy.reason


@pytest.mark.parametrize(
    ("dump", "here", "fails", "accepted"),
    [
        ("x86_64", "x86_64", {"ehsize"}, True),
        ("x86_64", "i386", {"ehsize"}, True),
        ("x86_64", "aarch64", {"arch", "ehsize"}, False),
        ("x86_64, in real mode", "x86_64", {"arch", "ehsize"}, False),
        ("x86_64, in real mode", "i386", {"ehsize"}, True),
        ("arm", "arm", {"ehsize"}, True),
        ("aarch64", "aarch64", {"ehsize"}, True),
        ("riscv32", "riscv32", {"ehsize"}, True),
        ("riscv32", "riscv64", {"arch", "ehsize"}, False),
        ("s390x", "s390x", {"ehsize"}, True),
        ("s390x", "x86_64", {"type", "arch", "version", "ehsize", "phentsize"}, False),
        ("ppc", "ppc", {"ehsize"}, True),
        ("ppc", "ppc64", {"arch", "ehsize"}, False),
        ("/proc/vmcore", "i386", set(), True),
        ("/proc/vmcore", "x86_64", {"arch"}, False),
    ],
)
def test_real_dumps_meet_the_hosts_they_belong_to(dump: str, here: str, fails: set[str], accepted: bool) -> None:
    verdict = on(here, bytes.fromhex(REAL[dump]))
    assert failing(verdict) == fails
    assert verdict.policy.accepted == accepted


@pytest.mark.parametrize(
    ("name", "machine", "bits", "on", "policy", "by", "accepted", "said"),
    [
        ("x86_64", EM_X86_64, 64, "x86_64", Policy(), "native", True, "x86_64 (EM_X86_64) is native to x86_64"),
        ("x86_64", EM_X86_64, 64, "i386", Policy("kernel"), "cross", True, "besides its own (the kernel's cross test)"),
        ("x86_64", EM_X86_64, 64, "aarch64", Policy(), None, False, "serve it with --allow-arch x86_64"),
        ("x86_64", EM_X86_64, 64, "aarch64", Policy("kernel"), None, False, "serve it with --policy cross --allow-arch x86_64"),
        ("s390x", EM_S390, 64, "x86_64", Policy("cross", frozenset({"s390x"})), None, True, "allowed by --allow-arch s390x"),
        ("pdp11", None, 32, "x86_64", Policy(), None, False, "found pdp11; serve it with --allow-arch any"),
        ("", None, 64, "x86_64", Policy("cross", frozenset({ANY})), None, True, "no name is allowed by --allow-arch any"),
    ],
)
def test_a_dump_without_an_elf_header_is_judged_by_its_machines_name(
    name: str, machine: int | None, bits: Bits, on: str, policy: Policy, by: str | None, accepted: bool, said: str
) -> None:
    verdict = check_uname(name, machine, bits, host(on), policy)
    assert (verdict.kernel.by, verdict.kernel.accepted, verdict.policy.accepted) == (by, by is not None, accepted)
    assert said in verdict.policy.reason
    assert {term.name: term.ok for term in verdict.kernel.terms} == dict.fromkeys(TERMS) | {"arch": by is not None}
