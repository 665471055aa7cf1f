"""farcore pull: a whole dump as a local file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import click

from farcore.errors import SettingsError
from farcore_client.commands import with_credentials
from farcore_client.credentials import Credentials
from farcore_client.dumpurl import DumpUrl
from farcore_client.plainurl import PlainUrl
from farcore_client.pull.beginning import Beginning
from farcore_client.pull.pace import Wish

if TYPE_CHECKING:
    from farcore.batch import Space

_SPACES: Final[dict[str, Space]] = {"elf": "vmcore", "stored": "stored"}
_UNITS: Final = {"": 0, "K": 10, "M": 20, "G": 30}


def _rate(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([KMG]?)", value.upper(), re.ASCII)
    if found is None or not float(found[1]):
        raise click.BadParameter(f"{value!r} is not a rate such as 500K or 2.5M (bytes a second)", ctx, param)
    return float(found[1]) * (1 << _UNITS[found[2]])


def _level(ctx: click.Context, param: click.Parameter, value: str) -> Wish:
    if value in ("auto", "none"):
        return "auto" if value == "auto" else None
    if not re.fullmatch(r"-?[0-9]", value, re.ASCII) or not -5 <= int(value) <= 9:
        raise click.BadParameter(f"{value!r} is neither auto, none, nor a zstd level from -5 to 9", ctx, param)
    return int(value)


@click.command(
    epilog="\b\nExamples: farcore pull http://127.0.0.1:8787/v1/dumps/vmcore-1a2b3c4d\n"
    "          farcore pull https://host:8787/v1/dumps/vmcore-1a2b3c4d -o vmcore --limit-rate 10M"
)
@click.argument("url", metavar="DUMPURL")
@click.option("-o", "--output", "to", type=click.Path(path_type=Path), metavar="FILE", help="The file; never replaced.")
@click.option("--format", "kind", type=click.Choice([*_SPACES]), default="elf", help="One plain ELF, or as it is stored.")
@click.option("--normalised", is_flag=True, help="In the layout of /proc/vmcore, for tools that find no other (makedumpfile).")
@click.option("--jobs", type=click.IntRange(1, 32), default=4, metavar="N", help="Connections at a time. [4]")
@click.option("--limit-rate", "rate", callback=_rate, metavar="R", help="Bytes a second at most: 500K, 2.5M.")
@click.option(
    "--compress", "level", callback=_level, default="auto", metavar="LEVEL", help="auto, none, or a zstd level from -5 to 9."
)
@click.option("--json", "as_json", is_flag=True, help="Say how it goes as JSON objects, one a line.")
@with_credentials
def command(
    url: str,
    to: Path | None,
    kind: Literal["elf", "stored"],
    normalised: bool,
    jobs: int,
    rate: float | None,
    level: Wish,
    as_json: bool,
    credentials: Credentials,
) -> None:
    """Pull a whole dump: in parts that are checked, compressed where the link is slow, zeros as holes.

    Stopped, by whatever, the same command goes on where it was. FILE ({id}.vmcore, or {id}.stored) is there when it is
    whole, checked and on the disk; until then there are FILE.part and FILE.journal. Instead of a DUMPURL the URL of a file
    on any web server will do: it comes in parallel ranges, or as one stream where the server has none.
    """
    wanted, space = _url(url), _SPACES[kind]
    if normalised and (space == "stored" or not isinstance(wanted, DumpUrl)):
        raise click.UsageError("only the ELF of a dump can be --normalised: leave that out, or --format stored")
    if isinstance(wanted, DumpUrl):
        beginning = Beginning(wanted, space, credentials, normalised=normalised)
    # Late: the server answers while it is imported.
    from farcore_client.loop import run
    from farcore_client.pull.progress import watcher
    from farcore_client.pull.pull import Request, pull_dump, pull_plain

    with watcher(as_json=as_json) as shown:
        if isinstance(wanted, DumpUrl):
            run(pull_dump(beginning, Request(to or Path(f"{wanted.id}.{space}"), jobs, rate, level), shown))
        else:
            run(pull_plain(wanted, Request(to or Path(wanted.name), jobs, rate, level), credentials, shown))


def _url(text: str) -> DumpUrl | PlainUrl:
    """A dump's, or where it cannot be one that of any file."""
    try:
        return DumpUrl.parse(text)
    except SettingsError:
        if "/v1/dumps" in text or not re.match(r"https?://[^/?#@]+/[^?#]", text, re.IGNORECASE):
            raise
        return PlainUrl.parse(text)
