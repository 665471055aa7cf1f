"""farcored: the group of its subcommands, and the one place where an error becomes a sentence and an exit status."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

import click

from farcore import __version__
from farcore.errors import FarcoreError, SettingsError
from farcore_server.commands import COMMANDS


class Commands(click.Group):
    """Knows its commands by name alone and imports one when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, None if there is none."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"farcore_server.commands.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table, without an import."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Commands, no_args_is_help=False, epilog="\b\nExample: farcored serve /var/crash")
@click.version_option(__version__, prog_name="farcored")
def farcored() -> None:
    """Serve Linux kernel crash dumps to analysts on other machines."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run farcored with ``arguments`` (sys.argv's by default).

    Returns the exit status: 0 done, 1 the dump or the server said no, 2 usage, 130 interrupted.
    """
    try:
        status = farcored.main(arguments, prog_name="farcored", standalone_mode=False)
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "farcored"
        return _say(f"{error.format_message().rstrip('.')}; `{path} --help` shows what it takes", 2)
    except SettingsError as error:
        return _say(str(error), 2)
    except (FarcoreError, click.ClickException) as error:
        return _say(str(error), 1)
    except click.Abort:
        return _say("interrupted", 130)
    return status or 0


def _say(sentence: str, status: int) -> int:
    print(f"farcored: {sentence}", file=sys.stderr)
    return status
