"""Skeleton: a dump's core file without its memory: ELF header, and the notes that have the CPUs' registers and VMCOREINFO.

drgn takes registers from a core file alone, and memory from whoever offers it: the notes are a few KiB, and everything else
stays where it is.
"""

from __future__ import annotations

import dataclasses

from farcore import image, notes
from farcore.space import Space
from farcore_client.target import Target


def skeleton(target: Target) -> memoryview:
    """The bytes of that file; at most notes.MAX_BYTES and a page."""
    whole = target.elf
    bones = dataclasses.replace(whole, segments=whole.segments[:0])
    extents = notes.read(target.vmcore, whole).extents
    layout = image.normalised(bones, target.vmcore.size, extents)
    return Space(target.vmcore, layout).pread(0, layout.size)
