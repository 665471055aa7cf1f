"""Lessons: what sessions on a kernel build read, brought before the next asks for it, and what that one read, told the server.

A tool loads symbols for seconds before it reads a dump in earnest. Meanwhile the pages that earlier sessions read are found on
this boot by their names and come in one batch: half a megabyte in place of two thousand round trips. Where there is no profile,
or one that says little, the warm-up brings what every session reads first.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

import numpy as np

from farcore import cacheps
from farcore.cacheps import Cacheps
from farcore.errors import FarcoreError
from farcore.naming import Naming
from farcore.pagetable import START_KERNEL_MAP
from farcore.profile import Pages, Profile
from farcore.regions import Regions
from farcore.runs import U64, among
from farcore.slabs import Slabs
from farcore.source import Extent
from farcore.vmcoreinfo import Vmcoreinfo
from farcore_client import symbols as vmlinux
from farcore_client import warmup
from farcore_client.aside import aside
from farcore_client.remote import RemoteDump, through
from farcore_client.target import Target

PAGE: Final = 4096
# The share of the struct pages that a profile must name for crash to begin without the warm-up: its `kmem -i` reads them all.
ALL_OF_MEMMAP: Final = 0.5
# Seconds that the end of a session waits for a server that takes no lesson.
PATIENCE: Final = 5.0
_PERCPU: Final = ("__per_cpu_offset", "__per_cpu_start", "__per_cpu_end")
# What every crash reads of text and .rodata, here and there: to know the kernel, to unwind, for `ps`, `log` and `kmem -i`.
_LANDMARKS: Final = (
    "linux_banner",
    "do_sys_openat2",
    "kernel_clone",
    "do_futex",
    "__schedule",
    "pageflag_names",
    "task_state_array",
    "taint_flags",
    "exc_nmi",
    "asm_exc_nmi",
    "__crash_kexec",
    "sysrq_handle_crash",
)
# Pages around each, from the one in front of it on: callers, and what belongs to it, lie beside it.
_AROUND: Final = 5
_SYMBOL: Final = "SYMBOL("


def build(known: Vmcoreinfo) -> str:
    """The kernel build in hex: its build-id, else a digest of its release and of where its symbols were linked."""
    if known.build_id:
        return known.build_id
    offset = known.kernel_offset or 0
    names = sorted(name[len(_SYMBOL) : -1] for name in known.values if name.startswith(_SYMBOL))
    linked = [f"{name}={(known.symbol(name) or 0) - offset:x}" for name in names]
    return hashlib.sha256("\n".join([known.kernel_release or "", *linked]).encode()).hexdigest()[:40]


@contextmanager
def learning(
    remote: RemoteDump,
    target: Target,
    symbols: Path | None,
    *,
    space: Literal["physical", "vmcore"] = "physical",
    enough: float = 0.0,
) -> Iterator[None]:
    """For the time of a session on ``target`` through ``space``; without ``symbols``, its vmlinux, CPUs' areas have no names.

    Where a profile names less than ``enough`` of the struct pages, the warm-up runs as well. What the session sees is the same
    without all this, and no error of it is anybody's: errors show in reads.
    """
    lesson = Lesson(remote, target if space == "physical" else remote.target_of_vmcore(), symbols, space, enough)
    recalling = threading.Thread(target=lesson.recall, name="farcore lesson", daemon=True)
    recalling.start()
    try:
        yield
    finally:
        recalling.join(PATIENCE)
        lesson.tell()


class Lesson:
    """One session's: ``recall`` at its start, ``tell`` at its end; both take what a few round trips take."""

    def __init__(
        self,
        remote: RemoteDump,
        target: Target,
        symbols: Path | None,
        space: Literal["physical", "vmcore"] = "physical",
        enough: float = 0.0,
    ) -> None:
        self.remote, self.target, self.space, self._symbols, self._share = remote, target, space, symbols, enough
        self.naming: Naming | None = None
        self._cacheps: Cacheps | None = None
        self._enough, self._foreign = False, True
        self._named: U64 = np.zeros(0, np.uint64)
        # The page frames that the profile names, of this dump's own and by kind.
        self._foretold: U64 = np.zeros(0, np.uint64)

    def recall(self) -> None:
        """Bring what earlier sessions read, or what every session reads first."""
        known = self.target.vmcoreinfo
        if known is None:
            return
        with suppress(FarcoreError), self.remote.aside():
            # Each of the three is a round trip or more; none needs another.
            asked, located = aside(lambda: self.remote.profile(build(known))), aside(lambda: self._located(known))
            regions = Regions.of(self.target.physical, self.target.elf.header, known)
            if regions is None:
                return
            self.remote.scattered(self.space, self._at(warmup.text(regions, known)))
            self.naming = Naming.of(regions, self.target.physical, located.result().get)
            brought = self._brought(self.naming, asked)
            if not self._enough:
                warmup.bring(self.remote, self.space, self.target, regions)
            if brought is not None:
                brought.result()
            if self._foreign:
                self._bring(warmup.memmap(regions)).result()
                if slabs := Slabs.of(regions, known, self.target.physical):
                    self._kin(slabs, regions, _base(known))

    def tell(self) -> None:
        """Tell the server what was read, unless sessions on this dump have told it all of that."""
        known = self.target.vmcoreinfo
        if self.naming is None or known is None:
            return
        with suppress(FarcoreError, TimeoutError):
            read = self.remote.frames()
            news = read if self._foreign else read[~among(read, self._foretold)]
            if len(news):
                self.remote.teach(build(known), self._profile(self.naming, read), within=PATIENCE)

    def _profile(self, naming: Naming, read: U64) -> Profile:
        """These page frames by name; those without one also by the caches whose objects they hold."""
        found, etag = naming.profile(read, self.remote.etag), self.remote.etag
        if self._cacheps is None:
            return found
        return replace(found, kinds={**found.kinds, "slab": Pages.of(self._cacheps.names(found.dumps[etag].number))})

    def _brought(self, naming: Naming, asked: Future[Profile | None]) -> Future[None] | None:
        """The pages that the profile names, on their way; None where there is none."""
        try:
            profile = asked.result()
        except FarcoreError:
            profile = None
        if profile is None:
            return None
        self._foreign = self.remote.etag not in profile.dumps
        self._named = profile.of("slab").number
        named = len(profile.of("memmap")) * PAGE
        self._enough = named >= self._share * int(naming.regions.memmap["size"].sum())
        self._foretold = naming.frames(profile, self.remote.etag)
        return self._bring(_extents(self._foretold))

    def _kin(self, slabs: Slabs, regions: Regions, base: int) -> None:
        """Bring what the caches hold that earlier sessions read, and all of any other as soon as some of it is missed."""
        self.remote.akin(slabs)
        memory = self.target.physical
        if len(self._named):
            where = cacheps.pointers(self._named, base)
            self._bring(where).result()
            self._bring(_extents(cacheps.frames(slabs, where, memory))).result()
        if not self._enough:
            # The warm-up has brought the image's data; to bring it for this would cost more than it saves.
            self._cacheps = Cacheps.of(slabs, warmup.image_data(regions, self.target), base, memory)

    def _bring(self, extents: list[Extent]) -> Future[None]:
        return self.remote.prefetch(self.space, self._at(extents))

    def _at(self, extents: list[Extent]) -> list[Extent]:
        """Where these physical extents are in the space that is read."""
        return through(self.target.elf, self.target.vmcore.size, extents) if self.space == "vmcore" else extents

    def _located(self, known: Vmcoreinfo) -> dict[str, int]:
        """The link addresses that the vmlinux has for these names; what lies at the first and at landmarks is on its way."""
        found = _symbols(self._symbols, (*_PERCPU, *(_LANDMARKS if self._share else ())))
        moved = _base(known) - START_KERNEL_MAP
        pages = [Extent(found[_PERCPU[0]] + moved & -PAGE, PAGE)] if _PERCPU[0] in found else []
        marks = found.keys() - {*_PERCPU}
        pages += [Extent((found[name] + moved & -PAGE) - PAGE, _AROUND * PAGE) for name in marks]
        self._bring([each for each in pages if each.offset >= 0])
        return found


def _base(known: Vmcoreinfo) -> int:
    """Where in physical memory the link address START_KERNEL_MAP would be."""
    return (known.kernel_offset or 0) + (known.phys_base or 0)


def _symbols(path: Path | None, names: Iterable[str]) -> dict[str, int]:
    """The link addresses of these; none where there is no vmlinux that says."""
    with suppress(OSError, FarcoreError):
        return vmlinux.read(path).addresses(names) if path else {}
    return {}


def _extents(frames: U64) -> list[Extent]:
    """Neighbouring page frames as one extent."""
    heads = np.flatnonzero(np.concatenate([[True], np.diff(frames) != 1])) if len(frames) else np.zeros(0, np.intp)
    counts = np.diff(np.concatenate([heads, [len(frames)]]))
    return [Extent(int(frame) * PAGE, int(count) * PAGE) for frame, count in zip(frames[heads], counts, strict=True)]
