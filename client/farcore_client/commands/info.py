"""farcore info: one dump on one screen."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import click
from rich.text import Text

from farcore_client.commands import echo_json, with_credentials
from farcore_client.commands.ls import STYLES
from farcore_client.credentials import Credentials
from farcore_client.dumpurl import DumpUrl
from farcore_client.fields import Fields
from farcore_client.loop import run
from farcore_client.memorymap import KINDS, MapRun, Summary
from farcore_client.printable import readable
from farcore_client.screen import aligned, show
from farcore_client.session import Session

# One screen: the first ones tell the story, and --json tells the rest.
MANY: Final = 8
# Runs that --json gives of a map; more are for who reads /map itself.
MOST_JSON: Final = 1 << 20
# What crash, gdb and drgn are started with, or fail for want of.
_TELLING: Final = (
    "KERNELOFFSET",
    "NUMBER(phys_base)",
    "NUMBER(kimage_voffset)",
    "NUMBER(VA_BITS)",
    "NUMBER(PHYS_OFFSET)",
    "NUMBER(pgtable_l5_enabled)",
    "NUMBER(sme_mask)",
    "PAGESIZE",
    "SYMBOL(_stext)",
    "SYMBOL(swapper_pg_dir)",
)
_COLUMNS: Final = (
    ("PHYSICAL", "physical_address", True),
    ("VIRTUAL", "virtual_address", True),
    ("AT BYTE", "offset", False),
    ("IN FILE", "file_size", False),
    ("IN MEMORY", "memory_size", False),
)

Entry = tuple[str, list[Text]]


@click.command(epilog="\b\nExample: farcore info http://127.0.0.1:8787/v1/dumps/vmcore-1a2b3c4d")
@click.argument("url", metavar="DUMPURL")
@click.option("--map", "mapped", is_flag=True, help="Also what its memory holds; the server may have to read all of it.")
@click.option("--json", "as_json", is_flag=True, help="All that the server says of it, an object; the map as its member `map`.")
@with_credentials
def command(url: str, mapped: bool, as_json: bool, credentials: Credentials) -> None:
    """Describe a dump: what it is, what its header check said, and which memory it has."""
    dump = DumpUrl.parse(url)
    memory = Summary(MOST_JSON if as_json else MANY) if mapped else None
    said = run(_described(dump, credentials, memory))
    if not as_json:
        show(screen(dump, Fields(said), memory))
        return
    if memory is not None:
        said["map"] = {"runs": [one.json() for one in memory.first]}
    echo_json(said)


async def _described(dump: DumpUrl, credentials: Credentials, memory: Summary | None) -> dict[str, Any]:
    async with Session(dump.server, credentials) as session:
        said = await session.describe(dump)
        if memory is not None:
            with Reading(Fields(said), memory) as reading:
                await session.memory_map(dump, Fields(said).text("etag"), reading.add)
        return said


class Reading:
    """Adds up a map, and says on a terminal's stderr how far the server has read the dump for it."""

    def __init__(self, dump: Fields, memory: Summary) -> None:
        self._memory = memory
        # Of a dump in very many fragments only the first are listed, and how far the map goes is not known.
        listed = [] if dump.number("segments_left_out") else dump.several("segments")
        ends = [(one.number("physical_address") or 0) + (one.number("memory_size") or 0) for one in listed]
        self._size = max(ends, default=0)
        self._shown = -1
        self._quiet = not sys.stderr.isatty()

    def __enter__(self) -> Reading:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown >= 0:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def add(self, one: MapRun) -> None:
        """One more run."""
        self._memory.add(one)
        percent = min(100, 100 * one.end // self._size) if self._size else 0
        if percent != self._shown and not self._quiet:
            self._shown = percent
            sys.stderr.write(f"\rreading the memory for its map: {percent:3d} %")
            sys.stderr.flush()


def screen(url: DumpUrl, dump: Fields, memory: Summary | None = None) -> list[Text]:
    """The whole screen: a title, then entries of a word and its lines."""
    state = dump.text("state")
    lines = [
        Text.assemble((dump.text("name") or url.id, "bold"), "  ", (state, STYLES.get(state, ""))),
        Text(f"  {url}", "dim"),
    ]
    entries = [*_identity(dump), *_verdict(dump), *_memory(dump), *_map(memory), *_kernel(dump)]
    width = max(len(word) for word, _ in entries)
    for word, values in entries:
        for number, value in enumerate(values):
            lines.append(Text.assemble(("  " + ("" if number else word).ljust(width) + "  ", "dim"), value))
    return lines


def _identity(dump: Fields) -> Iterator[Entry]:
    size, stored = dump.number("size"), dump.number("stored_size")
    sizes = "-" if size is None else _exact(size)
    packed = f" of {_exact(stored)}" if stored is not None and stored != size else ""
    yield "size", [Text(f"{sizes}, stored as {dump.text('stored_format') or 'something unknown'}{packed}")]
    if elf := _elf(dump):
        yield "ELF", [Text(elf)]
    if release := dump.text("kernel_release"):
        yield "kernel", [Text(", ".join([release, *_named("build-id", dump.text("build_id"))]))]
    if crashed := dump.text("crash_time"):
        yield "crashed", [Text(crashed)]
    if panic := dump.text("panic"):
        yield "panic", [Text(panic, "red")]
    yield "version", [Text(", ".join([f"ETag {dump.text('etag') or '-'}", *_named("modified", dump.text("modified"))]))]


def _elf(dump: Fields) -> str:
    if not dump.text("elf", "machine"):
        return ""
    bits, count, cpus = dump.number("elf", "class"), dump.number("elf", "phnum"), dump.number("cpus")
    kind = f"{dump.text('elf', 'type')} of {dump.text('elf', 'machine')}, {bits or '?'}-bit {dump.text('elf', 'data')}"
    registers = f", registers of {_counted(cpus, 'CPU')}" if cpus else ""
    return f"{kind}, {_counted(count, 'program header')}{registers}"


def _verdict(dump: Fields) -> Iterator[Entry]:
    host = dump.text("verdict", "host_arch") or "its host"
    by, terms = dump.text("verdict", "kernel", "by"), dump.several("verdict", "kernel", "terms")
    if any(term.truth("ok") is not None for term in terms):
        said = _judged(dump, "kernel", f"accepts it ({by})" if by else "accepts it", "refuses it")
        failed = [Text(f"  {_term(term)}") for term in terms if term.truth("ok") is False]
        yield "kernel check", [Text(f"/proc/vmcore on {host} ").append_text(said), *failed]
    reason = dump.text("verdict", "policy", "reason")
    yield "this server", [_judged(dump, "policy", "serves it", "refuses it").append(f": {reason}" if reason else "", "default")]
    if warnings := dump.texts("verdict", "warnings"):
        yield "warnings", _first([Text(one, "yellow") for one in warnings], "warning")


def _judged(dump: Fields, who: str, yes: str, no: str) -> Text:
    accepted = dump.truth("verdict", who, "accepted")
    return Text(yes, "green") if accepted else Text("does not say" if accepted is None else no, "red")


def _term(term: Fields) -> str:
    return f"{term.text('name')}: expected {term.text('expected')}, found {term.text('found') or 'nothing'}"


def _memory(dump: Fields) -> Iterator[Entry]:
    segments = dump.several("segments")
    if segments:
        titles = tuple(Text(title, "dim") for title, _, _ in _COLUMNS)
        rows = [titles, *(tuple(_cell(one, name, address) for _, name, address in _COLUMNS) for one in segments[:MANY])]
        head, *lines = aligned(rows, right=frozenset(range(len(_COLUMNS))))
        more = dump.number("segments_left_out") or 0
        where = "the vmcore's own headers have them" if more else "--json has them"
        yield "segments", [head, *_first(lines, "segment", len(segments) + more, where)]
    notes = Counter(" ".join(filter(None, (one.text("name"), one.text("type")))) for one in dump.several("notes"))
    if notes:
        yield "notes", _first([Text(f"{count:,} × {name}") for name, count in notes.items()], "kind")


def _map(memory: Summary | None) -> Iterator[Entry]:
    """How much there is of each kind, as a share of what is there, and the first runs."""
    if memory is None:
        return
    there = memory.bytes.total() - memory.bytes["absent"]
    shares = {kind: f"{100 * size / there:.1f} %" for kind, size in memory.bytes.items() if kind != "absent"}
    rows = [
        tuple(map(Text, (kind, readable(memory.bytes[kind]), shares.get(kind, "")))) for kind in KINDS if memory.bytes[kind]
    ]
    yield "map", aligned(rows, right=frozenset({1, 2})) if rows else [Text("no memory")]
    runs = [
        tuple(map(Text, (f"{one.start:#x}", f"{one.end:#x}", one.kind, readable(one.end - one.start)))) for one in memory.first
    ]
    if runs:
        titles = tuple(Text(title, "dim") for title in ("FROM", "TO", "HOLDS", "SIZE"))
        head, *lines = aligned([titles, *runs], right=frozenset({0, 1, 3}))
        yield "runs", [head, *_first(lines, "run", memory.count)]


def _cell(segment: Fields, name: str, address: bool) -> Text:
    number = segment.number(name)
    return Text("-" if number is None else f"{number:#x}" if address else f"{number:,}")


def _kernel(dump: Fields) -> Iterator[Entry]:
    if dump.members.get("xen"):
        bits, start = dump.number("xen", "bits"), dump.text("xen", "physical_start")
        said = [f"hypervisor {dump.text('xen', 'version')}".strip(), f"{bits}-bit" if bits else "", *_named("at", start)]
        lines = [Text(", ".join(filter(None, said)))]
        if told := dump.pairs("xen", "vmcoreinfo"):
            lines += _first([Text(f"{key}={value}") for key, value in told.items()], "line")
        yield "Xen", lines
    values = dump.pairs("vmcoreinfo")
    if values:
        shown = [Text(f"{key}={values[key]}") for key in _TELLING if key in values]
        rest = len(values) - len(shown)
        yield "vmcoreinfo", [*shown, Text(f"and {_counted(rest, 'line')} more; --json has them", "dim")] if rest else shown


def _first(lines: list[Text], what: str, count: int | None = None, where: str = "--json has them") -> list[Text]:
    """The first MANY lines, how many of ``count`` (as many as there are lines) are left out, and where those are."""
    rest = (len(lines) if count is None else count) - len(lines[:MANY])
    return [*lines[:MANY], Text(f"and {_counted(rest, what)} more; {where}", "dim")] if rest else lines


def _exact(size: int) -> str:
    return f"{readable(size)} ({size:,} bytes)" if size >= 1024 else readable(size)


def _counted(count: int | None, what: str) -> str:
    return f"{'?' if count is None else f'{count:,}'} {what}{'' if count == 1 else 's'}"


def _named(name: str, value: str) -> list[str]:
    return [f"{name} {value}"] if value else []
