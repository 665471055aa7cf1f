"""One file a subcommand, named after it, with a click command called ``command``; imported only when it is asked for.

What a command returns is the exit status: None or 0 done, 1 the dump said no.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from farcore_server.settings import OPTIONS, Option, load

# What `farcored --help` says of each, so that it need not import them.
COMMANDS: Final[dict[str, str]] = {
    "serve": "Serve dumps over HTTP.",
    "check": "Check dumps' headers, term by term.",
    "token": "Make, list and revoke the tokens that a server asks for.",
}

Command = Callable[..., Any]

_CONFIG: Final = click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="More settings, as TOML.")


def with_settings(*names: str, again: bool = False) -> Callable[[Command], Command]:
    """Give a command these fields of Settings as options, or all of them and --config; its first argument is the Settings.

    ``again``: it is a function that reads them, as they are then, each time it is called.
    """
    options = tuple(option for option in OPTIONS if not names or option.name in names)

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def wrapped(config: Path | None = None, **given: Any) -> Any:
            flags = {option.name: _texts(given.pop(option.name)) for option in options}
            read = functools.partial(load, flags, os.environ, config, options)
            return command(read if again else read(), **given)

        run: Command = wrapped
        for option in reversed(options):
            run = _parameter(option)(run)
        return run if names else _CONFIG(run)

    return decorate


def _parameter(option: Option) -> Callable[[Command], Command]:
    if option.name == "paths":
        return click.argument("paths", nargs=-1, metavar="PATH...")
    default = f"; default {option.shown_default}" if option.shown_default else ""
    return click.option(
        option.flag,
        option.name,
        multiple=option.many,
        is_flag=not option.kind.metavar,
        default=None,
        metavar=option.kind.metavar or None,
        help=f"{option.help} [{option.variable}{default}]",
    )


def _texts(given: str | bool | tuple[str, ...] | None) -> tuple[str, ...]:
    # What click has of one option, as load() takes it; no texts when it was not given.
    if isinstance(given, tuple):
        return given
    if isinstance(given, str):
        return (given,)
    return ("true",) if given else ()
