"""drgn on a dump that stays where it is: ``program(url)`` is a drgn.Program, with memory and the CPUs' registers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from farcore_client.doors.drgn.program import program as _program
from farcore_client.remote import RemoteDump

if TYPE_CHECKING:
    from drgn import Program


def program(dump: str | RemoteDump) -> Program:
    """A Program over the dump at a DUMPURL (with FARCORE_TOKEN and FARCORE_CACHE), or over a RemoteDump, which must stay open.

    It has no debug information yet: ``load_debug_info([vmlinux])`` or ``load_default_debug_info()``, as with a local dump.
    """
    if isinstance(dump, str):
        from farcore_client.cachedir import VARIABLE, CacheDir
        from farcore_client.credentials import Credentials, token
        from farcore_client.dumpurl import DumpUrl
        from farcore_client.remote import connect

        kept = CacheDir.parse(os.environ.get(VARIABLE, ""))
        dump = connect(DumpUrl.parse(dump), Credentials(token(None, os.environ)), cache=kept)
    return _program(dump.target())
