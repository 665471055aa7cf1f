"""One file a subcommand, named after it, with a click command called ``command``; imported only when it is asked for.

What a command returns is the exit status: None or 0 done, 1 the dump or the server said no.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from farcore_client.output import say

if TYPE_CHECKING:
    from farcore_client.cachedir import CacheDir

# What `farcore --help` says of each, so that it need not import them.
COMMANDS: Final[dict[str, str]] = {
    "ls": "List the dumps of a server.",
    "info": "Describe a dump.",
    "dmesg": "Show the kernel log of a dump.",
    "read": "Read bytes of a dump.",
    "pull": "Pull a whole dump, resumably.",
    "verify": "Compare a file with a dump.",
    "mount": "Mount a dump as a file.",
    "crash": "Analyse a dump with crash.",
    "gdb": "Debug a dump with gdb.",
    "drgn": "Debug a dump with drgn.",
    "profile": "Show, export or import what sessions on a kernel build read.",
    "door": "Open a door for a tool that is started by hand.",
}

Command = Callable[..., Any]

_FILE: Final = click.Path(path_type=Path)
_OPTIONS: Final = (
    click.option("--token-file", type=_FILE, metavar="FILE", help="The token itself, in its first line. [FARCORE_TOKEN]"),
    click.option("--cacert", type=_FILE, metavar="FILE", help="Trust servers that these CAs (PEM) have signed, and no others."),
    click.option("--cert", type=_FILE, metavar="FILE", help="Your certificate (PEM), for a server that asks for one."),
    click.option("--key", type=_FILE, metavar="FILE", help="Its key, if --cert has none."),
)


def with_credentials(command: Command) -> Command:
    """Give a command the options that say who asks; it gets them as ``credentials``."""

    @functools.wraps(command)
    def wrapped(token_file: Path | None, cacert: Path | None, cert: Path | None, key: Path | None, **given: Any) -> Any:
        from farcore_client.credentials import Credentials, token  # late: ssl comes with it

        return command(credentials=Credentials(token(token_file, os.environ), cacert, cert, key), **given)

    run: Command = wrapped
    for option in reversed(_OPTIONS):
        run = option(run)
    return run


def with_cache(command: Command) -> Command:
    """Give a command the option of a page cache on disk; it gets a CacheDir or None as ``cache``."""

    def parsed(ctx: click.Context, param: click.Parameter, value: str | None) -> CacheDir | None:
        from farcore_client.cachedir import CacheDir  # as late as what uses it

        return CacheDir.parse(value or "")

    option = click.option(
        "--cache",
        envvar="FARCORE_CACHE",
        callback=parsed,
        metavar="DIR[,SIZE]",
        help="Keep pages that were read there, for later sessions: 1G of them, or SIZE (8G). [FARCORE_CACHE]",
    )
    return option(command)


def echo_json(found: object) -> None:
    """What a server said, on stdout and in ASCII; ClickException for what is nested without end."""
    try:
        say(json.dumps(found, indent=2))
    except RecursionError:
        raise click.ClickException("the server's JSON is nested too deeply; is this the URL of a farcored?") from None


def number(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """A click callback: an address or a count below 2^64, decimal or 0x; a usage error for anything else."""
    if value is None:
        return None
    if not re.fullmatch(r"0[xX][0-9a-fA-F]{1,32}|[0-9]{1,32}", value):
        raise click.BadParameter(f"{value!r} is not a number such as 4096 or 0x1000", ctx, param)
    found = int(value, 16 if value[:2] in ("0x", "0X") else 10)
    if found >= 1 << 64:
        raise click.BadParameter(f"{value} is not below 2^64", ctx, param)
    return found
