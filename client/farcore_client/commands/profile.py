"""farcore profile: what sessions on a dump's kernel build read, shown, taken along and brought to another server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import click
from rich.text import Text

from farcore.errors import BadProfileError
from farcore.profile import KINDS, MAX_SIZE, Profile
from farcore.vmcoreinfo import Vmcoreinfo
from farcore_client.commands import with_credentials
from farcore_client.credentials import Credentials
from farcore_client.dumpurl import DumpUrl, ServerUrl
from farcore_client.fields import Fields
from farcore_client.lessons import build
from farcore_client.loop import run
from farcore_client.output import output, say
from farcore_client.screen import aligned, show
from farcore_client.session import Session

# What is counted where it is no page.
_SHOWN: Final = {"slab": "slab caches"}
_TITLES: Final = ("KIND", "PAGES", "IN THE LAST SESSION")


@click.group(epilog="\b\nExample: farcore profile show http://127.0.0.1:8787/v1/dumps/vmcore-1a2b3c4d")
def command() -> None:
    """What sessions on a kernel build read, so that the next one has it in one batch.

    A server learns it by itself from crash, gdb and drgn, and keeps page numbers only, never memory. A support team exports
    what it has learned with a kernel and imports it where that kernel crashes next.
    """


@command.command("show", epilog="\b\nExample: farcore profile show http://127.0.0.1:8787/v1/dumps/vmcore-1a2b3c4d")
@click.argument("url", metavar="DUMPURL")
@with_credentials
def show_command(url: str, credentials: Credentials) -> None:
    """Say how many pages of which kind the server knows for the dump's kernel build."""
    key, profile = run(_asked(DumpUrl.parse(url), credentials))
    say(f"kernel build {key}, {profile.sessions:,} session{'' if profile.sessions == 1 else 's'}")
    show(_table(profile))


@command.command(
    "export", epilog="\b\nExample: farcore profile export http://127.0.0.1:8787/v1/dumps/vmcore-1a2b3c4d -o linux.json"
)
@click.argument("url", metavar="DUMPURL")
@click.option("-o", "--output", "to", metavar="FILE", help="Write to FILE, which is never replaced; by default to stdout.")
@with_credentials
def export_command(url: str, to: str | None, credentials: Credentials) -> None:
    """Write the profile of the dump's kernel build as JSON."""
    key, profile = run(_asked(DumpUrl.parse(url), credentials))
    # Pages without a name are true of this server's dumps alone.
    said = {"build_id": key, **json.loads(Profile(profile.sessions, profile.kinds).pack())}
    with output(to or "-") as write:
        write(json.dumps(said).encode() + b"\n")


@command.command("import", epilog="\b\nExample: farcore profile import http://127.0.0.1:8787 6.1.json")
@click.argument("url", metavar="URL")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@with_credentials
def import_command(url: str, file: Path, credentials: Credentials) -> None:
    """Merge a profile that `farcore profile export` wrote into what the server at URL knows."""
    server = ServerUrl.parse(url)
    try:
        with file.open("rb") as opened:
            raw = opened.read(MAX_SIZE + 1)
    except OSError as error:
        raise click.ClickException(f"{file} cannot be read: {error.strerror}") from error
    profile = Profile.parse(raw)
    key = Fields(json.loads(raw)).text("build_id")
    if not key:
        raise BadProfileError(f"{file} does not say of which kernel build it is; `farcore profile export` writes such a file")
    run(_teach(server, key, profile, credentials))
    say(f"{server} knows {sum(map(len, profile.kinds.values())):,} more pages of kernel build {key}")


async def _asked(dump: DumpUrl, credentials: Credentials) -> tuple[str, Profile]:
    async with Session(dump.server, credentials) as session:
        said = Fields(await session.describe(dump))
        key = build(Vmcoreinfo(said.pairs("vmcoreinfo")))
        profile = await session.profile(key)
    if profile is None:
        raise click.ClickException(
            f"no session on kernel build {key} has left a profile at {dump.server} yet: `farcore crash {dump}` makes the first"
        )
    return key, profile


async def _teach(server: ServerUrl, key: str, profile: Profile, credentials: Credentials) -> None:
    async with Session(server, credentials) as session:
        await session.teach(key, profile)


def _table(profile: Profile) -> list[Text]:
    rows = [tuple(Text(title, "bold") for title in _TITLES)]
    kinds = {
        **{_SHOWN.get(kind, kind): profile.of(kind) for kind in KINDS},
        **{f"of dump {etag}": pages for etag, pages in profile.dumps.items()},
    }
    for kind, pages in kinds.items():
        last = int((pages.seen == profile.sessions).sum())
        rows.append((Text(kind), Text(f"{len(pages):,}"), Text(f"{last:,}")))
    return aligned(rows, right=frozenset({1, 2}))
