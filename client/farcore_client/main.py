"""farcore: the group of its subcommands, and the one place where an error becomes a sentence and an exit status."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final, NoReturn

import click
from click.shell_completion import CompletionItem

from farcore import __version__
from farcore.errors import FarcoreError, SettingsError
from farcore_client import environment
from farcore_client.commands import COMMANDS
from farcore_client.notice import notice

# What a shell reports of a program that SIGPIPE has ended: `farcore read ... | head` ends as `cat | head` does.
CLOSED_PIPE: Final = 141
# New objects until Python looks for garbage, not 700: while a command is imported there is none, and 10 ms go into the search.
GARBAGE: Final = 50_000


class Commands(click.Group):
    """Knows its commands by name alone and imports one when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, None if there is none."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"farcore_client.commands.{cmd_name}").command
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """What a shell offers after `farcore`, without an import."""
        named = [CompletionItem(name, help=said) for name, said in COMMANDS.items() if name.startswith(incomplete)]
        return named or click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table, without an import."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """The command's exit status; an error of stdout is told from a server's here, before click takes it for its own."""
        try:
            return super().invoke(ctx)
        except FarcoreError:
            raise
        except BrokenPipeError:
            raise click.exceptions.Exit(CLOSED_PIPE) from None
        except OSError as error:
            raise click.ClickException(f"the output cannot be written: {error.strerror or error}") from error


@click.group(cls=Commands, no_args_is_help=False, epilog="\b\nExample: farcore ls http://127.0.0.1:8787")
@click.version_option(__version__, prog_name="farcore")
def farcore() -> None:
    """Use Linux kernel crash dumps that lie on another machine, served there by farcored."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run farcore with ``arguments`` (sys.argv's by default).

    Returns the exit status: 0 done, 1 the dump or the server said no, 2 usage, 130 interrupted, 141 stdout was closed.
    """
    if sys.stdout is None:
        # Its descriptor is free, and the first socket would get it.
        return _say("stdout is closed: redirect it to a file, or to /dev/null", 2)
    environment.prepare()
    try:
        status = farcore.main(arguments, prog_name="farcore", standalone_mode=False)
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "farcore"
        return _say(f"{error.format_message().rstrip('.')}; `{path} --help` shows what it takes", 2)
    except SettingsError as error:
        return _say(str(error), 2)
    except (FarcoreError, click.ClickException) as error:
        return _say(str(error), 1)
    except click.Abort:
        return _say("interrupted", 130)
    return status or 0


def run() -> NoReturn:
    """The program: main(), and then the end at once. To take the interpreter apart takes 80 ms, of a short session a fifth."""
    gc.set_threshold(GARBAGE)
    status = main()
    atexit._run_exitfuncs()
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except (OSError, ValueError):
            status = status or 1
    os._exit(status)


def _say(sentence: str, status: int) -> int:
    notice(sentence)
    return status
