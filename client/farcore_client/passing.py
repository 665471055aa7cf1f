"""Passing: a command that hands what follows `--` on to the program it starts, as it stands."""

from __future__ import annotations

from typing import Final

import click

KEY: Final = "farcore_client.passed_on"


class Passing(click.Command):
    """A command whose arguments end at `--`; ``passed_on`` has the rest."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Without this click would take the first word after `--` for an argument that was left out before it."""
        own, rest = (args[: args.index("--")], args[args.index("--") + 1 :]) if "--" in args else (args, [])
        ctx.meta[KEY] = rest
        return super().parse_args(ctx, own)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """The usage line, with what may follow `--` at its end."""
        return [*super().collect_usage_pieces(ctx), f"[-- {ctx.info_name} OPTIONS]".upper()]


def passed_on() -> list[str]:
    """What followed `--` on the command line."""
    rest: list[str] = click.get_current_context().meta[KEY]
    return rest
