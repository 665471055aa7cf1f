"""farcore ls: what a server has."""

from __future__ import annotations

import sys
from typing import Any, Final

import click
from rich.text import Text

from farcore_client.commands import echo_json, with_credentials
from farcore_client.credentials import Credentials
from farcore_client.dumpurl import ServerUrl
from farcore_client.fields import Fields
from farcore_client.loop import run
from farcore_client.output import say
from farcore_client.printable import readable
from farcore_client.screen import aligned, show
from farcore_client.session import Session

STYLES: Final = {"ready": "green", "incomplete": "yellow", "indexing": "cyan", "refused": "red"}
_TITLES: Final = ("NAME", "SIZE", "ARCH", "KERNEL", "CRASHED", "STATE")


@click.command(epilog="\b\nExample: farcore ls http://127.0.0.1:8787")
@click.argument("url", metavar="URL")
@click.option("--json", "as_json", is_flag=True, help="An array: the server's own list, one object a dump.")
@with_credentials
def command(url: str, as_json: bool, credentials: Credentials) -> None:
    """List the dumps that the server at URL has, each with the URL that the other commands take.

    A refused dump is listed with its reason. Where stdout is not a terminal, each dump is one line.
    """
    server = ServerUrl.parse(url)
    dumps = run(_listed(server, credentials))
    if as_json:
        echo_json(dumps)
    elif not dumps:
        say(f"{server} has no dumps yet")
    else:
        show(table(server, [Fields(one) for one in dumps], stacked=sys.stdout.isatty()))


async def _listed(server: ServerUrl, credentials: Credentials) -> list[dict[str, Any]]:
    async with Session(server, credentials) as session:
        return await session.dumps()


def table(server: ServerUrl, dumps: list[Fields], *, stacked: bool) -> list[Text]:
    """The list: URL, build-id, and why it was refused or crashed, stand below each dump if ``stacked``, else in its line."""
    ids = [dump.text("build_id") for dump in dumps]
    urls = [Text(f"{server}/v1/dumps/{dump.text('id')}") for dump in dumps]
    reasons = [Text(dump.text("verdict", "policy", "reason") if _refused(dump) else dump.text("panic")) for dump in dumps]
    titles = _TITLES if stacked else (*_TITLES, "BUILD-ID", "URL", "REASON")
    rows = [tuple(Text(title, "bold") for title in titles)]
    for dump, build_id, url, reason in zip(dumps, ids, urls, reasons, strict=True):
        rows.append(_cells(dump) if stacked else (*_cells(dump), Text(build_id or "-"), url, reason))
    head, *lines = aligned(rows, right=frozenset({1}))
    if not stacked:
        return [head, *lines]
    shown = [head]
    for dump, line, build_id, url, reason in zip(dumps, lines, ids, urls, reasons, strict=True):
        identity = Text(f"build-id {build_id}" if build_id else "")
        below = [Text("  ").append(part.plain, "dim") for part in (url, identity, reason) if part]
        if _refused(dump):
            line.stylize("dim")
        shown += [line, *below]
    return shown


def arch(dump: Fields) -> str:
    """e_machine, class and, where it is the rarer one, byte order; the stored format where there is no ELF header."""
    if not dump.text("elf", "machine"):
        return dump.text("stored_format") or "-"
    order = " BE" if dump.text("elf", "data") == "BE" else ""
    return f"{dump.text('elf', 'machine')} ELF{dump.number('elf', 'class') or '?'}{order}"


def _cells(dump: Fields) -> tuple[Text, ...]:
    size, state = dump.number("size"), dump.text("state")
    return (
        Text(dump.text("name") or "-"),
        Text("-" if size is None else readable(size)),
        Text(arch(dump)),
        Text(dump.text("kernel_release") or "-"),
        Text(dump.text("crash_time") or "-"),
        Text(state or "-", STYLES.get(state, "")),
    )


def _refused(dump: Fields) -> bool:
    return dump.text("state") == "refused"
