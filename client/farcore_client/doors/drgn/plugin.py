"""A plugin of drgn (its documentation, "Writing Plugins"): gives the program of `farcore drgn` the memory of its dump."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from farcore_client.doors.drgn import memory
from farcore_client.target import Target

if TYPE_CHECKING:
    from drgn import Program

NAME: Final = f"farcore={__name__}"
# The dumps by the path of their skeletons, as drgn was given them.
targets: Final[dict[str, Target]] = {}


def drgn_prog_set(program: Program) -> None:
    """Called by drgn for each program once it has its target, and before it looks for debug information."""
    target = targets.get(str(program.core_dump_path))
    if target is not None:
        memory.add(program, target)
