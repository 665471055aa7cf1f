"""farcored token: who may read."""

from __future__ import annotations

import json
from pathlib import Path

import click

from farcore.errors import SettingsError
from farcore_server import tokens
from farcore_server.commands import with_settings
from farcore_server.settings import Settings


@click.group(no_args_is_help=False, epilog="\b\nExample: farcored token add alice --token-file /etc/farcore/tokens")
def command() -> None:
    """Make, list and revoke the tokens that a server asks for.

    The file has only their digests; a server that uses it notices every change at its next request.
    """


@command.command(epilog="\b\nExample: farcored token add alice --token-file /etc/farcore/tokens > alice.token")
@click.argument("name", metavar="NAME")
@with_settings("token_file")
def add(settings: Settings, name: str) -> None:
    """Make a token for NAME and print it, this once."""
    click.echo(tokens.add(_file(settings), name))


@command.command("list", epilog="\b\nExample: farcored token list --token-file /etc/farcore/tokens")
@click.option("--json", "as_json", is_flag=True, help="An array of {name, created}.")
@with_settings("token_file")
def list_(settings: Settings, as_json: bool) -> None:
    """Show the names that have a token, and since when."""
    entries = tokens.listed(_file(settings))
    if as_json:
        click.echo(json.dumps([{"name": entry.name, "created": entry.created.isoformat()} for entry in entries]))
        return
    for entry in entries:
        click.echo(f"{entry.created}  {entry.name}")


@command.command(epilog="\b\nExample: farcored token revoke alice --token-file /etc/farcore/tokens")
@click.argument("name", metavar="NAME")
@with_settings("token_file")
def revoke(settings: Settings, name: str) -> None:
    """Drop NAME's token: it is refused from the next request on."""
    tokens.revoke(_file(settings), name)


def _file(settings: Settings) -> Path:
    if settings.token_file is None:
        raise SettingsError("no token file is named: give --token-file FILE, or set FARCORE_TOKEN_FILE")
    return settings.token_file
