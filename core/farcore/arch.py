"""The header check: what a crash kernel would say to an ELF header, and what this server does with it.

Two answers that are kept apart. The kernel verdict is parse_crash_elf_headers of fs/proc/vmcore.c (read in Linux 6.1) on a
given host, term by term: fields in the host's byte order, EI_DATA, e_phoff and e_flags not looked at, PN_XNUM the number
65,535. The policy verdict is what farcore does: by default it reads either byte order and forgives a wrong e_ehsize.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from farcore.elf import EHDR_SIZE, ET_CORE, MAGIC, PHDR_SIZE, Bits, Data
from farcore.errors import SettingsError
from farcore.hosts import EM_PPC64, HOSTS, KERNEL_CROSS, Host, host_of, machine_name
from farcore.hosts import host as host_named

TERMS: Final = ("magic", "type", "arch", "class", "ident-version", "version", "ehsize", "phentsize", "phnum")

By = Literal["native", "cross"]

ANY: Final = "any"

_TYPES: Final = {0: "ET_NONE", 1: "ET_REL", 2: "ET_EXEC", 3: "ET_DYN", ET_CORE: "ET_CORE"}

# Offset and length of a field by class; e_type, e_machine and e_version stand at one place in both.
_AT: Final[dict[Bits, dict[str, tuple[int, int]]]] = {
    32: {"flags": (36, 4), "ehsize": (40, 2), "phentsize": (42, 2), "phnum": (44, 2)},
    64: {"flags": (48, 4), "ehsize": (52, 2), "phentsize": (54, 2), "phnum": (56, 2)},
}

# What to do about a term that failed, where no other setting would take the dump.
_ADVICE: Final = {
    "magic": "this is not an ELF file: name the vmcore itself",
    "type": "this is not a core: name the vmcore, not a program or vmlinux",
    "arch": "see what another --host-arch says",
    "class": "the header is damaged: copy the dump again",
    "ident-version": "the header is damaged: copy the dump again",
    "version": "the header is damaged: copy the dump again",
    "ehsize": "the header is damaged: copy the dump again",
    "phentsize": "the header is damaged: copy the dump again",
    "phnum": "the dump describes nothing: its writer was interrupted, or it was copied too early",
}


@dataclass(frozen=True, slots=True)
class Term:
    """One test of the header: ``ok`` is None where it could not be made, ``found`` where there was nothing to read."""

    name: str
    ok: bool | None
    expected: str
    found: str | None


@dataclass(frozen=True, slots=True)
class KernelVerdict:
    """What /proc/vmcore on the host would say: all nine terms, also those after the first that failed."""

    accepted: bool
    by: By | None
    terms: tuple[Term, ...]


@dataclass(frozen=True, slots=True)
class PolicyVerdict:
    """What the server does; ``reason`` is a sentence for a person either way."""

    accepted: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Both answers for one header on one host; ``warnings`` are sentences, and none of them a reason to refuse."""

    host_arch: str
    kernel: KernelVerdict
    policy: PolicyVerdict
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """``kernel``: the kernel verdict and nothing else; ``cross``: either byte order, any e_ehsize, and what ``allow`` adds.

    A name in ``allow`` adds what that Host's native test takes, ``any`` adds all. SettingsError for what is neither.
    """

    name: Literal["kernel", "cross"] = "cross"
    allow: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.name not in ("kernel", "cross"):
            raise SettingsError(f"no policy is called {self.name!r}: it is kernel or cross")
        if self.name == "kernel" and self.allow:
            raise SettingsError("the policy kernel allows no other arch: leave out --allow-arch, or choose --policy cross")
        for arch in self.allow - {ANY}:
            host_named(arch)


class _Taken:
    """Who takes which e_machine in which class: ``native``, ``cross``, or a name that was allowed."""

    def __init__(self, host: Host, cross: Mapping[str, frozenset[int]], allow: frozenset[str] = frozenset()) -> None:
        self.by: dict[Bits, dict[int, str]] = {
            32: dict.fromkeys(host.native(32), "native"),
            64: dict.fromkeys(cross.get(host.name, ()), "cross") | dict.fromkeys(host.native(64), "native"),
        }
        self.any = ANY in allow
        for arch in sorted(allow - {ANY}):
            for bits, machines in self.by.items():
                self.by[bits] = dict.fromkeys(host_named(arch).native(bits), arch) | machines

    def who(self, machine: int, bits: Bits) -> str | None:
        return self.by[bits].get(machine, ANY if self.any else None)

    def expected(self, bits: Bits | None) -> str:
        # A class that the host has no path for is told what the other one takes.
        paths = [bits] if bits and self.by[bits] else [each for each in self.by if self.by[each]]
        named = [f"{_or([machine_name(each) for each in sorted(self.by[path])])} in ELF{path}" for path in paths]
        return "any machine" if self.any else "; ".join(named)


def _or(names: list[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


@dataclass(frozen=True, slots=True)
class _Fields:
    """A header's fields in one byte order; None where ``raw`` ends too early or the class does not say where they are."""

    raw: bytes
    data: Data

    @property
    def bits(self) -> Bits | None:
        if self.raw[4:5] == b"\x02":
            return 64
        return 32 if self.raw[4:5] == b"\x01" else None

    @property
    def machine(self) -> int | None:
        return self.number(18, 2)

    def number(self, at: int, length: int) -> int | None:
        field = self.raw[at : at + length]
        return int.from_bytes(field, "little" if self.data == "LE" else "big") if len(field) == length else None

    def placed(self, name: str) -> int | None:
        return None if self.bits is None else self.number(*_AT[self.bits][name])

    def terms(self, taken: _Taken) -> tuple[Term, ...]:
        """The nine terms, in the kernel's order."""
        bits = self.bits
        sizes = ("64 or 52", "56 or 32") if bits is None else (str(EHDR_SIZE[bits]), str(PHDR_SIZE[bits]))
        phnum = self.placed("phnum")
        return (
            Term("magic", self.raw[:4] == MAGIC if self.raw else None, MAGIC.hex(" "), self.raw[:4].hex(" ") or None),
            self.type_term(),
            self.arch_term(taken),
            self.class_term(),
            _equal("ident-version", "1", self.number(6, 1)),
            _equal("version", "1", self.number(20, 4)),
            _equal("ehsize", sizes[0], self.placed("ehsize")),
            _equal("phentsize", sizes[1], self.placed("phentsize")),
            Term("phnum", None if phnum is None else phnum > 0, "1 or more", None if phnum is None else str(phnum)),
        )

    def type_term(self) -> Term:
        kind = self.number(16, 2)
        if kind is None:
            return Term("type", None, "ET_CORE", None)
        swapped = " (ET_CORE in the other byte order)" if kind == ET_CORE << 8 else ""
        return Term("type", kind == ET_CORE, "ET_CORE", _TYPES.get(kind, f"{kind:#x}{swapped}"))

    def arch_term(self, taken: _Taken) -> Term:
        machine, bits = self.machine, self.bits
        if machine is None:
            return Term("arch", None, taken.expected(bits), None)
        found = machine_name(machine) + (f" in ELF{bits}" if bits else "")
        flags = self.placed("flags")
        if machine == EM_PPC64 and flags is not None:
            found += f", e_flags {flags:#x}"
        ok = None if bits is None else taken.who(machine, bits) is not None
        return Term("arch", ok, taken.expected(bits), found)

    def class_term(self) -> Term:
        kind = self.number(4, 1)
        found = {None: None, 1: "ELFCLASS32", 2: "ELFCLASS64"}.get(kind, str(kind))
        return Term("class", None if kind is None else kind in (1, 2), "ELFCLASS32 or ELFCLASS64", found)


def _equal(name: str, expected: str, found: int | None) -> Term:
    if found is None:
        return Term(name, None, expected, None)
    return Term(name, str(found) == expected, expected, str(found))


def check(raw: bytes, host: Host, policy: Policy, cross: Mapping[str, frozenset[int]] = KERNEL_CROSS) -> Verdict:
    """Both verdicts on a header, given a file's first 64 bytes (or all it has); any bytes whatever get an answer.

    ``cross`` is consulted on the ELF64 path alone, as vmcore_elf_check_arch_cross is; with an empty one, a kernel before 2007.
    """
    raw = bytes(raw[:64])
    by_kernel = _Taken(host, cross)
    seen, own = _Fields(raw, host.data), _Fields(raw, "BE" if raw[5:6] == b"\x02" else "LE")
    terms = seen.terms(by_kernel)
    accepted = all(term.ok for term in terms)
    who = _who(seen, by_kernel) if accepted else None
    kernel = KernelVerdict(accepted, "cross" if who == "cross" else "native" if accepted else None, terms)
    if policy.name == "kernel":
        reason = _welcome(seen, who, host) if who else _refusal(terms, _kernel_remedy(own, by_kernel), len(raw))
        return Verdict(host.name, kernel, PolicyVerdict(accepted, reason), _order_doubt(own))
    answer, forgiven = _cross(own, host, _Taken(host, cross, policy.allow))
    return Verdict(host.name, kernel, answer, _order_doubt(own) + forgiven)


def check_uname(name: str, machine: int | None, bits: Bits, host: Host, policy: Policy) -> Verdict:
    """Both verdicts on a dump without an ELF header, by the ``name`` in its utsname.machine and the e_machine it stands for.

    Of the nine terms ``arch`` alone is tested. ``machine`` is None where nobody knows the name: only --allow-arch any takes it.
    """
    by_kernel, own = _Taken(host, KERNEL_CROSS), _Taken(host, KERNEL_CROSS, policy.allow)
    found = f"{name or 'no name'}" + ("" if machine is None else f" ({machine_name(machine)})")
    who, kernel = (None if machine is None else taken.who(machine, bits) for taken in (own, by_kernel))
    if who is None and own.any:
        who = ANY
    tested = Term("arch", kernel is not None, by_kernel.expected(bits), found)
    terms = tuple(tested if term == "arch" else Term(term, None, "", None) for term in TERMS)
    by: By | None = None if kernel is None else "cross" if kernel == "cross" else "native"
    if policy.name == "kernel":
        who = kernel
    if who is not None:
        manner = {
            "native": f"native to {host.name}",
            "cross": f"what {host.name} takes besides its own (the kernel's cross test)",
        }
        reason = f"{found} is {manner.get(who, f'allowed by --allow-arch {who}')}"
    else:
        named = None if machine is None else next((each.name for each in HOSTS if machine in each.native(bits)), None)
        remedy = f"--allow-arch {named or ANY}"
        policy_too = "--policy cross " if policy.name == "kernel" else ""
        reason = f"arch: expected {own.expected(bits)}, found {found}; serve it with {policy_too}{remedy}"
    return Verdict(host.name, KernelVerdict(kernel is not None, by, terms), PolicyVerdict(who is not None, reason), ())


def _cross(own: _Fields, host: Host, taken: _Taken) -> tuple[PolicyVerdict, tuple[str, ...]]:
    """The policy ``cross``: its answer, and the warning for an e_ehsize that it forgives."""
    terms = own.terms(taken)
    failed = _failed(terms)
    who = None if failed else _who(own, taken)
    if who:
        reason = _welcome(own, who, host)
    else:
        remedy = f"serve it with {_allow(own)}" if failed == ["arch"] else None
        reason = _refusal(tuple(term for term in terms if term.name in failed), remedy, len(own.raw))
    return PolicyVerdict(not failed, reason), _ehsize_forgiven(terms, failed)


def _failed(terms: tuple[Term, ...]) -> list[str]:
    """The terms by which the policy ``cross`` refuses: ehsize is none of them, since nothing is read by it."""
    return [term.name for term in terms if not term.ok and term.name != "ehsize"]


def _who(fields: _Fields, taken: _Taken) -> str | None:
    machine, bits = fields.machine, fields.bits
    return None if machine is None or bits is None else taken.who(machine, bits)


def _welcome(fields: _Fields, who: str, host: Host) -> str:
    what = f"{machine_name(fields.machine or 0)} in ELF{fields.bits}"
    if who == "native":
        return f"{what} is native to {host.name}"
    if who == "cross":
        return f"{what} is what {host.name} takes besides its own (the kernel's cross test)"
    return f"{what} is allowed by --allow-arch {who}"


def _refusal(terms: tuple[Term, ...], remedy: str | None, length: int) -> str:
    """A sentence on the first term that failed; on `arch` last, as no --allow-arch helps a header that is damaged as well."""
    failed = (term for term in terms if not term.ok)
    first = min(failed, key=lambda term: (term.name == "arch", term.ok is None))
    if first.ok is None:
        return f"{first.name}: the file ends within its ELF header, after {length} bytes: copy the dump again"
    return f"{first.name}: expected {first.expected}, found {first.found}; {remedy or _ADVICE[first.name]}"


def _kernel_remedy(own: _Fields, taken: _Taken) -> str | None:
    """What makes the policy ``cross`` take what the kernel would not; None if it would not either."""
    failed = _failed(own.terms(taken))
    if failed == ["arch"]:
        return f"serve it with --policy cross {_allow(own)}"
    return None if failed else "serve it with --policy cross"


def _allow(own: _Fields) -> str:
    machine, bits = own.machine, own.bits
    named = None if machine is None or bits is None else host_of(machine, bits, own.data)
    return f"--allow-arch {named.name}" if named else f"--allow-arch {ANY}, if it is a dump all the same"


def _ehsize_forgiven(terms: tuple[Term, ...], failed: list[str]) -> tuple[str, ...]:
    """The warning for a wrong e_ehsize in a header that is otherwise read without doubt."""
    ehsize = terms[TERMS.index("ehsize")]
    if ehsize.ok is not False or failed not in ([], ["arch"]):
        return ()
    writer = " (as QEMU 7.2 writes)" if ehsize.found == "8" else ""
    return (f"e_ehsize is {ehsize.found}{writer}, not {ehsize.expected}: a crash kernel refuses that, farcore can do without",)


def _order_doubt(own: _Fields) -> tuple[str, ...]:
    if own.raw[:4] != MAGIC or own.number(5, 1) in (None, 1, 2):
        return ()
    return (f"EI_DATA is {own.raw[5]}, neither 1 (little endian) nor 2 (big): read as little endian",)
