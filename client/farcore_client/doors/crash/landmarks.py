"""Landmarks: the functions that tell where a backtrace begins, and the variables that lead to a CPU's stacks, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from farcore.runs import U64
from farcore_client.symbols import Symbols

# What a local crash looks for on the stacks of a stopped x86_64 CPU (x86_64.c of crash 8.0, in its comments and behaviour).
FUNCTIONS: Final = (
    "machine_kexec",
    "crash_kexec",
    "panic",
    "die",
    "sysrq_handle_crash",
    "crash_nmi_callback",
    "notify_die",
    "stop_this_cpu",
)
# arch/x86: where a CPU's variables are, its TSS (4.10 to 4.14 and later), the tops of its task's and its interrupts' stacks,
# and what had these two from 6.2 to 6.14.
VARIABLES: Final = (
    "__per_cpu_offset",
    "cpu_tss_rw",
    "cpu_tss",
    "cpu_current_top_of_stack",
    "hardirq_stack_ptr",
    "irq_stack_ptr",
    "pcpu_hot",
)


@dataclass(frozen=True, slots=True, eq=False)
class Landmarks:
    """``starts``: where symbols of the kernel's text start, ascending; both maps are by name. All at link addresses."""

    starts: U64
    functions: Mapping[str, int]
    variables: Mapping[str, int]
    end: int

    @classmethod
    def of(cls, symbols: Symbols) -> Self:
        """Those that this kernel has."""
        found = symbols.addresses([*FUNCTIONS, *VARIABLES, "_text", "_etext"])
        low, high = found.get("_text", 0), found.get("_etext", 0)
        functions: dict[str, int] = {name: found[name] for name in FUNCTIONS if name in found}
        return cls(symbols.starts(low, high), functions, {name: found[name] for name in VARIABLES if name in found}, high)

    def on(self, words: U64, offset: int) -> list[tuple[int, str]]:
        """Which of ``words`` (a stack's) point into which function; ``offset`` is KASLR's. In their order."""
        if not len(self.starts):
            return []
        moved = words - np.uint64(offset % (1 << 64))
        inside = np.flatnonzero((moved >= self.starts[0]) & (moved < np.uint64(self.end)))
        nearest = self.starts[np.searchsorted(self.starts, moved[inside], side="right") - 1]
        names = {address: name for name, address in self.functions.items()}
        places = zip(inside.tolist(), nearest.tolist(), strict=True)
        return [(place, names[start]) for place, start in places if start in names]
