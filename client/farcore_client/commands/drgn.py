"""farcore drgn: drgn on a dump that stays where it is."""

from __future__ import annotations

from pathlib import Path

import click

from farcore_client import vmlinux
from farcore_client.commands import with_credentials
from farcore_client.credentials import Credentials
from farcore_client.doors.drgn import cli
from farcore_client.doors.drgn.program import demand_drgn
from farcore_client.dumpurl import DumpUrl
from farcore_client.lessons import learning
from farcore_client.loop import run
from farcore_client.notice import notice
from farcore_client.passing import Passing, passed_on
from farcore_client.remote import connect
from farcore_client.target import Target
from farcore_client.vmlinux import VmlinuxError


@click.command(
    cls=Passing,
    epilog="\b\nExamples: farcore drgn http://127.0.0.1:8787/v1/dumps/vmcore-1a2b3c4d\n"
    "          farcore drgn http://127.0.0.1:8787/v1/dumps/vmcore-1a2b3c4d -s vmlinux -- script.py ARG",
    options_metavar="[OPTIONS] [-- DRGN OPTIONS]",
)
@click.argument("url", metavar="DUMPURL")
@click.option("-s", "--symbols", type=click.Path(path_type=Path), metavar="VMLINUX", help="The kernel's symbols, with DWARF.")
@with_credentials
def command(url: str, symbols: Path | None, credentials: Credentials) -> int:
    """Debug a dump with drgn, at its prompt or with a script: memory comes page by page, as it is read.

    Without -s the vmlinux is looked for in /usr/lib/debug, then asked of debuginfod.
    """
    demand_drgn()
    options = passed_on()
    with connect(DumpUrl.parse(url), credentials) as dump:
        target = dump.target()
        found = _vmlinux(target, symbols)
        with learning(dump, target, found):
            return cli.run(target, found, options)


def _vmlinux(target: Target, given: Path | None) -> Path | None:
    try:
        return run(vmlinux.find(target.vmcoreinfo, given))
    except VmlinuxError as error:
        if given is not None:
            raise
        # drgn has ways of its own to find it, and does something without.
        notice(str(error))
        return None
