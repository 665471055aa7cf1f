"""python docs/manpages.py DIR: manual pages of farcore and farcored, out of what their commands say of themselves.

docs/decisions/0033: what `make man` makes is never committed, so that it cannot grow old.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from farcore import __version__
from farcore_client.main import farcore
from farcore_server.main import farcored


def main() -> int:
    """Write a page for each command."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for command, name in ((farcore, "farcore"), (farcored, "farcored")):
        for page, text in pages(click.Context(command, info_name=name)):
            (folder / f"{page}.1").write_text(text, "utf-8")
    return 0


def pages(ctx: click.Context) -> Iterator[tuple[str, str]]:
    """Name and roff of the command's page, and of those of its own commands."""
    command = ctx.command
    others: dict[str, click.Command] = {}
    if isinstance(command, click.Group):
        found = {name: command.get_command(ctx, name) for name in command.list_commands(ctx)}
        others = {name: each for name, each in found.items() if each is not None}
    name = ctx.command_path.replace(" ", "-")
    yield name, "".join(f"{line}\n" for line in _page(ctx, name, others))
    for word, each in others.items():
        yield from pages(click.Context(each, info_name=word, parent=ctx))


def _page(ctx: click.Context, name: str, others: dict[str, click.Command]) -> Iterator[str]:
    command = ctx.command
    first, _, rest = (command.help or "").replace("\b\n", "").partition("\n\n")
    yield f'.TH "{name.upper()}" "1" "" "farcore {__version__}" "User Commands"'
    yield from (".SH NAME", f"{_roff(name)} \\- {_roff(' '.join(first.split()).rstrip('.'))}")
    yield from (".SH SYNOPSIS", f".B {_roff(ctx.command_path)}", _roff(" ".join(command.collect_usage_pieces(ctx))))
    if rest.strip():
        yield ".SH DESCRIPTION"
        for paragraph in re.split(r"\n\s*\n", rest.strip()):
            yield from (".PP", _roff(" ".join(paragraph.split())))
    yield ".SH OPTIONS"
    for param in command.get_params(ctx):
        if isinstance(param, click.Option) and (record := param.get_help_record(ctx)) is not None:
            yield from (".TP", f"\\fB{_roff(record[0])}\\fR", _roff(record[1]) or "\\&")
    if others:
        yield ".SH COMMANDS"
        for word, each in others.items():
            yield from (".TP", f"\\fB{_roff(f'{name}-{word}')}\\fR(1)", _roff(each.get_short_help_str(100)))
    if command.epilog:
        yield from (".SH EXAMPLES", ".nf")
        for line in command.epilog.replace("\b\n", "").splitlines():
            yield _roff(re.sub(r"^\s*(Examples?: )?\s*", "", line))
        yield ".fi"


def _roff(text: str) -> str:
    """As text that roff leaves as it is."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped[:1] in (".", "'") else escaped


if __name__ == "__main__":
    sys.exit(main())
