"""farcored check: the header check, term by term."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import Any

import click

from farcore.arch import Term
from farcore.errors import SettingsError
from farcore_server import describe
from farcore_server.commands import with_settings
from farcore_server.dump import Dump
from farcore_server.inspection import Rules, inspect
from farcore_server.search import search
from farcore_server.settings import Settings

_MARKS = {True: ("ok", "green"), False: ("FAILS", "red"), None: ("unread", "yellow")}


@click.command(epilog="Example: farcored check --host-arch i386 /var/crash/vmcore")
@click.option(
    "--json", "as_json", is_flag=True, help="An array, one object a PATH: {path, stored_format, elf, verdict, error}."
)
@with_settings("paths", "policy", "host_arch", "allow_arch")
def command(settings: Settings, as_json: bool) -> int:
    """Check the headers of PATH... as the crash kernel of a host does, and say what a server here would do with them.

    A directory stands for the dumps in it. Exit status 1 if any of them is refused.
    """
    if not settings.paths:
        raise SettingsError("there is nothing to check: name dump files or directories")
    host, policy = settings.arch_rules()
    rules = Rules(host, policy)
    found = [inspect(place, rules)[0] for path in settings.paths for place in search(path)]
    dumps = [dump for dump in found if dump is not None]
    if as_json:
        click.echo(json.dumps([said(dump) for dump in dumps], indent=2))
    else:
        click.echo("\n\n".join(table(dump) for dump in dumps) or "no dumps there")
    return int(any(dump.state == "refused" for dump in dumps))


def said(dump: Dump) -> dict[str, Any]:
    """One dump's object: verdict is None where no header could be read, error None where it is served."""
    verdict = dump.verdict
    read = any(term.ok is not None for term in verdict.kernel.terms)
    return {
        "path": os.fsencode(dump.place.path).decode("utf-8", "replace"),
        "stored_format": dump.stored_format,
        "elf": None if dump.header is None else describe.header(dump.header, dump.elf),
        "verdict": {**asdict(verdict), "warnings": list(dump.warnings)} if read else None,
        "error": dump.reason if dump.state == "refused" else None,
    }


def table(dump: Dump) -> str:
    """One dump for a person: the nine terms, both verdicts, the warnings."""
    kernel = dump.verdict.kernel
    lines = [click.style(_printable(dump.place.path), bold=True)]
    if any(term.ok is not None for term in kernel.terms):
        # A compressed dump has no ELF header: of the terms only the one that can be tested is shown.
        terms = tuple(term for term in kernel.terms if term.expected)
        widths = [max(len(row[i]) for row in _rows(terms)) for i in range(3)]
        for row, term in zip(_rows(terms), (None, *terms), strict=True):
            mark = row[1].ljust(widths[1])
            mark = mark if term is None else click.style(mark, fg=_MARKS[term.ok][1])
            lines.append(f"  {row[0].ljust(widths[0])}  {mark}  {row[2].ljust(widths[2])}  {row[3]}".rstrip())
        verdict = f"accepted ({kernel.by})" if kernel.accepted else 'refused ("Core image elf header not sane")'
        lines.append(f"  kernel: /proc/vmcore on {dump.verdict.host_arch}: {_judged(verdict, kernel.accepted)}")
    served = dump.state != "refused"
    lines.append(f"  policy: {_judged('served' if served else 'refused', served)}: {dump.reason}")
    lines += [f"  {click.style('warning:', fg='yellow')} {warning}" for warning in dump.warnings]
    return "\n".join(lines)


def _printable(path: str) -> str:
    r"""A path that cannot steer a terminal: what is not printable as its bytes (\x1b)."""
    return "".join(each if each.isprintable() else "".join(f"\\x{byte:02x}" for byte in os.fsencode(each)) for each in path)


def _rows(terms: tuple[Term, ...]) -> list[tuple[str, str, str, str]]:
    rows = [(term.name, _MARKS[term.ok][0], term.expected, term.found or "") for term in terms]
    return [("term", "", "expected", "found"), *rows]


def _judged(text: str, accepted: bool) -> str:
    return click.style(text, fg="green" if accepted else "red")
