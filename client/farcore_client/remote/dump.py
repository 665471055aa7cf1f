"""RemoteDump: a dump on a server, open: its description, its bytes as Sources under one page cache, what that has cost."""

from __future__ import annotations

import asyncio
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
from farcore.errors import SourceChangedError
from farcore.layout import physical
from farcore.profile import Profile
from farcore.runs import U64, Kind
from farcore.source import Extent, Source
from farcore.space import PhysicalSpace
from farcore_client.credentials import Credentials
from farcore_client.dumpurl import DumpUrl
from farcore_client.errors import ProtocolError, UnreachableError
from farcore_client.fields import Fields
from farcore_client.partial import strong
from farcore_client.remote.cache import PAGE, SHIFT, PageCache
from farcore_client.remote.courier import Courier
from farcore_client.remote.pages import Missed, Pages, places
from farcore_client.remote.portal import Portal
from farcore_client.remote.source import RemoteSource
from farcore_client.session import Session
from farcore_client.target import Target

CACHE_BYTES: Final = 256 << 20
_QUERY: Final = "?normalised"
# Seconds without a byte from a server until a request is given up and made again.
SILENCE: Final = 30.0


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

    def __init__(
        self, url: DumpUrl, dump: Fields, etag: str, portal: Portal, session: Session, pages: Pages, *, normalised: bool
    ) -> None:
        self.url, self.dump, self.etag = url, dump, etag
        self._portal, self._session, self._pages = portal, session, pages
        self._courier: Courier = portal.call(self._start(normalised))
        pages.carrier = self._courier
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
        wanted = sorted(extents)
        if space == "physical" and self._mapped:
            space, wanted = "vmcore", through(self._elf, self.vmcore.size, wanted)
        return self._pages.prefetch(space, wanted)

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
        return np.unique(np.concatenate([own, through]))

    def aside(self) -> AbstractContextManager[None]:
        """What this thread reads meanwhile is in neither missed() nor touched()."""
        return self._pages.aside()

    def profile(self, build: str) -> Profile | None:
        """What sessions on this kernel build read, as far as the server knows."""
        return self._portal.call(self._session.profile(build))

    def teach(self, build: str, profile: Profile, *, within: float) -> None:
        """Tell the server what this session read; TimeoutError after so many seconds."""
        self._portal.call(asyncio.wait_for(self._session.teach(build, profile), within))

    def physical_address(self, offset: int) -> int | None:
        """The physical address of a byte of ``vmcore``; None for headers and notes. Of overlapping PT_LOADs the first's."""
        loads, at = self._elf.loads, np.uint64(offset)
        held = np.flatnonzero((loads["offset"] <= at) & (at < loads["offset"] + loads["filesz"]))
        return int(loads["paddr"][held[0]] + (at - loads["offset"][held[0]])) if len(held) else None

    def close(self) -> None:
        """End the connections; whoever waits in a read gets an error."""
        self._pages.end(UnreachableError(f"the connection to {self.url.server.place} was closed while this was read"))
        self._courier.pipe.close()
        if not self._portal.loop.is_closed():
            self._portal.call(self._session.__aexit__(None, None, None))
            self._portal.close()

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

    async def _start(self, normalised: bool) -> Courier:
        return Courier(
            self._session,
            self.url,
            self.etag,
            self._pages.sizes,
            self._pages.cache,
            normalised=normalised,
            filed=self._pages.filed,
            failed=self._pages.failed,
            lock=self._pages.lock,
        )


def connect(url: DumpUrl, credentials: Credentials, *, cache_bytes: int = CACHE_BYTES, normalised: bool = False) -> RemoteDump:
    """Open the dump, with a page cache of at most ``cache_bytes``; any FarcoreError of a server that cannot be had.

    For code that does not await: an event loop runs in a thread of its own until ``close``. ``normalised``: ``vmcore`` has
    the layout of /proc/vmcore, program headers at byte 64 (52), which is where makedumpfile looks for them.
    """
    session = Session(url.server, credentials, silence=SILENCE)
    portal = Portal()
    try:
        portal.call(session.__aenter__())
        try:
            dump, etag, sizes = portal.call(_describe(session, url, normalised))
            pages = Pages(PageCache(cache_bytes), sizes)
            return RemoteDump(url, dump, etag, portal, session, pages, normalised=normalised)
        except BaseException:
            portal.call(session.__aexit__(None, None, None))
            raise
    except BaseException:
        portal.close()
        raise


async def _describe(session: Session, url: DumpUrl, normalised: bool) -> tuple[Fields, str, dict[str, int]]:
    """The description, the one ETag of all resources, and the sizes of the three spaces: one round trip."""
    asked = [session.head(f"{url.path}/memory/physical", "physical")]
    if normalised:
        asked.append(session.head(f"{url.path}/vmcore{_QUERY}", "vmcore"))
    described, *heads = await asyncio.gather(session.describe(url), *asked, return_exceptions=True)
    for answer in (described, *heads):  # the description's words are about the dump as a whole, and so come first
        if isinstance(answer, BaseException):
            raise answer
    dump = Fields(described)
    etag = strong(dump.text("etag"))
    sizes = {"vmcore": _size(dump, "size"), "stored": _size(dump, "stored_size")}
    for space, head in zip(("physical", "vmcore"), heads, strict=False):
        sizes[space] = head.size
        if head.etag != etag:
            raise SourceChangedError(f"{url} was replaced just now; open it again in a few seconds")
    return dump, etag, sizes


def _size(dump: Fields, name: str) -> int:
    size = dump.number(name)
    if size is None or size >= 1 << 63:
        raise ProtocolError(f"the server's description of the dump has no {name}; is this the URL of a farcored?")
    return size


def through(elf: Elf, size: int, extents: Iterable[Extent]) -> list[Extent]:
    """Where the bytes of these physical extents lie in the vmcore of ``size`` bytes; what is not there is left out."""
    layout = physical(elf, size)
    return [
        Extent(run.offset, run.stop - run.start)
        for offset, length in extents
        for run in layout.runs.walk(offset, min(offset + length, layout.size))
        if run.kind is Kind.DATA
    ]
