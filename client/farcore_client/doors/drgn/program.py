"""Program: what drgn makes of a dump. drgn, of which PyPI has wheels for few platforms, is imported when it is needed."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING

from farcore_client.doors.drgn import memory
from farcore_client.doors.drgn.skeleton import skeleton
from farcore_client.errors import MissingToolError, ProtocolError
from farcore_client.target import Target

if TYPE_CHECKING:
    from drgn import Program


def demand_drgn() -> None:
    """MissingToolError, with what to install, where there is no drgn."""
    if find_spec("drgn") is None:
        raise MissingToolError(
            "there is no drgn for this Python: `pip install 'farcore[client]'` brings it on x86_64; elsewhere install your "
            "distribution's package (python3-drgn, drgn) for the same Python, or build it: pip install drgn"
        )


def core(target: Target) -> int:
    """A descriptor of the dump's skeleton, which is the caller's; ProtocolError for a dump that drgn could make nothing of."""
    if target.vmcoreinfo is None:
        raise ProtocolError("the dump has no VMCOREINFO, without which drgn sees no kernel in it; try `farcore read`")
    fd = os.memfd_create("farcore-drgn")
    with os.fdopen(os.dup(fd), "wb") as file:
        file.write(skeleton(target))
    return fd


def program(target: Target) -> Program:
    """A Program over the dump, without debug information; MissingToolError where there is no drgn."""
    demand_drgn()
    import drgn

    made = drgn.Program()
    fd = core(target)
    try:
        # By its path, so that drgn opens a descriptor of its own: it closes one that it is given.
        made.set_core_dump(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
    memory.add(made, target)
    return made
