"""RemoteDump: a dump on a server, open: its description, its bytes as Sources under one page cache, what that has cost."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import Final, Self

import numpy as np

from farcore.batch import Space
from farcore.elf import Elf
from farcore.layout import physical
from farcore.profile import MAX_SIZE as MAX_PROFILE
from farcore.profile import Profile
from farcore.runs import U64, Kind, distinct
from farcore.slabs import Slabs
from farcore.source import Extent, Source
from farcore.space import PhysicalSpace
from farcore_client.cachedir import CacheDir
from farcore_client.credentials import Credentials
from farcore_client.dumpurl import DumpUrl
from farcore_client.errors import RefusedError, UnreachableError
from farcore_client.opening import Opened, Opening
from farcore_client.remote.cache import PAGE, SHIFT, PageCache, key
from farcore_client.remote.courier import Courier
from farcore_client.remote.pagefile import PageFile
from farcore_client.remote.pages import Missed, Pages, places
from farcore_client.remote.shelf import Shelf, owner
from farcore_client.remote.source import RemoteSource
from farcore_client.target import Target

CACHE_BYTES: Final = 256 << 20
# Seconds that the end of a session may take longer for what it has told the server.
_PARTING: Final = 0.06


@dataclass(frozen=True, slots=True)
class Counts:
    """What reading has cost: pages (4 KiB) found and missed, requests, bytes of their answers, attempts that failed."""

    hits: int
    misses: int
    prefetched: int
    requests: int
    received: int
    failed: int


class RemoteDump:
    """Made by ``connect``; a context manager. Its sources may be read by any thread until ``close``.

    ``vmcore``, ``stored``: by file position; ``physical``: by address. ``etag`` is the one version that is read: once the
    dump is another, every read is SourceChangedError.
    """

    def __init__(self, opening: Opening, found: Opened, cache: PageCache) -> None:
        self.url, self._lines = opening.url, opening.lines
        self.dump, self.etag = found.dump, found.etag
        self._aside, self._told = opening.lines.take(), False
        pages = self._pages = Pages(cache, found.sizes)
        if whole := len(found.start) if len(found.start) == found.sizes["vmcore"] else len(found.start) & -PAGE:
            cache.put(key("vmcore", 0), memoryview(found.start)[:whole])
        self._shelf = _shelf(opening, found, pages)
        self._courier = pages.carrier = Courier(
            opening.lines,
            opening.url,
            found.etag,
            found.sizes,
            cache,
            normalised=opening.normalised,
            filed=pages.filed,
            failed=pages.failed,
            lock=pages.lock,
            shelf=self._shelf,
        )
        self.vmcore: Source = RemoteSource(pages, "vmcore")
        self.stored: Source = RemoteSource(pages, "stored")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @cached_property
    def physical(self) -> Source:
        """Physical memory: position = paddr. Of an ELF it is read through ``vmcore``, so that no page is fetched twice."""
        return PhysicalSpace(self.vmcore, self._elf) if self._mapped else RemoteSource(self._pages, "physical")

    def target(self) -> Target:
        """Header, notes, VMCOREINFO and registers, over ``vmcore`` and ``physical``; BadDumpError as Target.open."""
        return Target.open(self.vmcore, self.physical)

    def target_of_vmcore(self) -> Target:
        """The same, memory read through ``vmcore`` in any case; a composed one calls what was excluded absent."""
        return Target.open(self.vmcore, PhysicalSpace(self.vmcore, self._elf))

    def prefetch(self, space: Space, extents: Iterable[Extent]) -> Future[None]:
        """Have these brought in one compressed batch; returns at once. Holes are passed over, what is here is not asked for.

        The future is done when they are here, or has the error; nobody need look at it.
        """
        return self._pages.prefetch(*self._kept(space, sorted(extents)))

    def scattered(self, space: Space, extents: Iterable[Extent]) -> None:
        """Say that reads here are scattered, so that little is brought around each."""
        space, extents = self._kept(space, list(extents))
        keys = (range(key(space, start >> SHIFT), key(space, (start + size - 1) >> SHIFT) + 1) for start, size in extents)
        self._pages.scattered = tuple(keys)

    def akin(self, slabs: Slabs) -> None:
        """Have what lies in slabs of one cache brought together, from now on."""

        def kin(space: Space, page: int) -> list[int]:
            # A page of the file may begin in front of the frame whose bytes it has.
            last = (page << SHIFT) + PAGE - 1
            address = {"physical": last, "vmcore": self.physical_address(last)}.get(space)
            frames = [] if address is None else slabs.kin(address >> SHIFT).tolist()
            extents = [Extent(frame << SHIFT, PAGE) for frame in frames]
            if space == "vmcore":
                extents = through(self._elf, self.vmcore.size, extents)
            return [key(space, at >> SHIFT) for start, size in extents for at in range(start & -PAGE, start + size, PAGE)]

        self._pages.kin = kin

    def _kept(self, space: Space, extents: list[Extent]) -> tuple[Space, list[Extent]]:
        """The space under which these are cached, and where they are in it."""
        if space == "physical" and self._mapped:
            return "vmcore", through(self._elf, self.vmcore.size, extents)
        return space, extents

    @property
    def counts(self) -> Counts:
        """What reading has cost up to now."""
        reads, wire = self._pages, self._courier.counts
        return Counts(reads.hits, reads.misses, reads.prefetched, wire.requests, wire.received, wire.failed)

    def missed(self) -> list[Missed]:
        """The pages that readers had to wait for, in order, each once; of an ELF dump all are of ``vmcore`` (or stored)."""
        return self._remembered(self._pages.missed)

    def touched(self) -> list[Missed]:
        """The pages that were read, missed or not, in the order of their first read."""
        return self._remembered(self._pages.touched)

    def frames(self) -> U64:
        """The page frames of physical memory that were read, ascending: touched() without headers and notes."""
        touched = self.touched()
        loads = self._elf.loads[np.argsort(self._elf.loads["offset"], kind="stable")]
        positions = np.array([each.page for each in touched if each.space == "vmcore"], np.uint64) << np.uint64(SHIFT)
        # A page of the file may begin in front of its PT_LOAD, which then begins within it.
        row = loads[np.maximum(np.searchsorted(loads["offset"], positions + np.uint64(PAGE - 1), side="right"), 1) - 1]
        at = np.maximum(positions, row["offset"])
        held = (at < row["offset"] + row["filesz"]) & (at < positions + np.uint64(PAGE))
        through = (row["paddr"] + (at - row["offset"]))[held] >> np.uint64(SHIFT)
        own = np.array([each.page for each in touched if each.space == "physical"], np.uint64)
        return distinct(np.concatenate([own, through]))

    def aside(self) -> AbstractContextManager[None]:
        """What this thread reads meanwhile is in neither missed() nor touched()."""
        return self._pages.aside()

    def profile(self, build: str) -> Profile | None:
        """What sessions on this kernel build read, as far as the server knows; BadProfileError for what is none."""
        line = self._aside
        try:
            return Profile.parse(line.read(line.ask("GET", f"/v1/profiles/{build}"), MAX_PROFILE))
        except RefusedError as error:
            line.close()
            if error.status != 404:
                raise
            return None

    def teach(self, build: str, profile: Profile, *, within: float) -> None:
        """Tell the server what this session read, and wait for no answer: nobody here needs one."""
        self._told = True
        self._aside.patience(within)
        self._aside.leave("PUT", f"/v1/profiles/{build}", {"Content-Type": "application/json"}, profile.pack())

    def physical_address(self, offset: int) -> int | None:
        """The physical address of a byte of ``vmcore``; None for headers and notes. Of overlapping PT_LOADs the first's."""
        loads, at = self._elf.loads, np.uint64(offset)
        held = np.flatnonzero((loads["offset"] <= at) & (at < loads["offset"] + loads["filesz"]))
        return int(loads["paddr"][held[0]] + (at - loads["offset"][held[0]])) if len(held) else None

    def close(self) -> None:
        """End the connections; whoever waits in a read gets an error."""
        self._pages.end(UnreachableError(f"the connection to {self.url.server.place} was closed while this was read"))
        self._courier.close()
        self._aside.part(_PARTING if self._told else 0)
        self._lines.close()
        if self._shelf is not None:
            self._shelf.close()

    def _remembered(self, keys: dict[int, None]) -> list[Missed]:
        with self._pages.lock:
            return places(keys)

    @cached_property
    def _elf(self) -> Elf:
        return Elf.first(self.vmcore)

    @property
    def _mapped(self) -> bool:
        """Whether the program headers say all of physical memory: of a composed vmcore they do not say what was excluded."""
        return self.dump.text("stored_format") == "elf"


def connect(
    url: DumpUrl,
    credentials: Credentials,
    *,
    cache_bytes: int = CACHE_BYTES,
    cache: CacheDir | None = None,
    normalised: bool = False,
) -> RemoteDump:
    """Open the dump, with a page cache of at most ``cache_bytes``; any FarcoreError of a server that cannot be had.

    ``cache``: on disk as well, for later sessions.

    ``normalised``: ``vmcore`` has the layout of /proc/vmcore, program headers at byte 64 (52), which is where makedumpfile
    looks for them.
    """
    return opened(Opening(url, credentials, normalised=normalised, cache=cache), cache_bytes=cache_bytes)


def opened(opening: Opening, *, cache_bytes: int = CACHE_BYTES) -> RemoteDump:
    """The dump of an Opening that was begun before; as ``connect``."""
    try:
        return RemoteDump(opening, opening.wait(), PageCache(cache_bytes))
    except BaseException:
        opening.lines.close()
        raise


def _shelf(opening: Opening, found: Opened, pages: Pages) -> Shelf | None:
    if opening.cache is None:
        return None
    who = owner(opening.url, found.etag, normalised=opening.normalised)
    return Shelf(PageFile(opening.cache), who, pages.cache, pages.lock)


def through(elf: Elf, size: int, extents: Iterable[Extent]) -> list[Extent]:
    """Where the bytes of these physical extents lie in the vmcore of ``size`` bytes; what is not there is left out."""
    layout = physical(elf, size)
    return [
        Extent(run.offset, run.stop - run.start)
        for offset, length in extents
        for run in layout.runs.walk(offset, min(offset + length, layout.size))
        if run.kind is Kind.DATA
    ]
