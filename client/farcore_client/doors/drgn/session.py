"""Session: drgn's own command line on a dump that is being opened, with what earlier sessions read brought meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from farcore_client import vmlinux
from farcore_client.doors.drgn import cli
from farcore_client.doors.drgn.program import demand_drgn
from farcore_client.lessons import learning
from farcore_client.notice import notice
from farcore_client.opening import Opening
from farcore_client.remote import opened
from farcore_client.target import Target
from farcore_client.vmlinux import VmlinuxError


def run(opening: Opening, symbols: Path | None, options: Sequence[str]) -> int:
    """drgn's exit status."""
    demand_drgn()
    with opened(opening) as dump:
        target = dump.target()
        found = _vmlinux(target, symbols)
        with learning(dump, target, found):
            return cli.run(target, found, options)


def _vmlinux(target: Target, given: Path | None) -> Path | None:
    try:
        return vmlinux.find(target.vmcoreinfo, given)
    except VmlinuxError as error:
        if given is not None:
            raise
        # drgn has ways of its own to find it, and does something without.
        notice(str(error))
        return None
