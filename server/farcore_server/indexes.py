"""Indexes: what opening a kdump-compressed or flattened dump had to find out first, kept by ETag.

What takes long is done by a thread, one dump after the other; until then its dump is `indexing`. What was found is kept in
memory and under the state directory, so that a restart, another worker or a second look need not find it again.
"""

from __future__ import annotations

import io
import json
import logging
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Final
from weakref import WeakSet

import numpy as np

from farcore.errors import BadDumpError, FaultError
from farcore.flattened import Flattened
from farcore.pagemap import PageMap
from farcore.parts import Index
from farcore.runs import Runs
from farcore_server.state import State

LOG: Final = logging.getLogger(__name__)

KIND: Final = "indexes"
# Indexes kept in memory, in bytes of their arrays: two dumps of 1 TiB in a million fragments each.
LIMIT: Final = 64 << 20
# Bytes of the indexes of all dumps that are open in a process, kept or not: they are needed as long as a dump is served.
OPEN: Final = 1 << 30
# Bytes of a page map that is not kept on disk: it is made of its bitmaps, in a second or two, sooner than it is read.
LARGE: Final = 16 << 20
# Failures are remembered as well, so that a broken dump is not indexed again at every look.
MOST: Final = 1024

Found = Index | Flattened
_COLUMNS: Final = ("start", "stop", "offset", "kind")


class Indexes:
    """By key; any number of threads. ``state`` None: nothing is kept on disk; ``most`` bytes of them may be open at a time."""

    def __init__(self, state: State | None = None, *, most: int = OPEN) -> None:
        self._state, self._most = state, most
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="index")
        self._known: OrderedDict[str, Future[Found]] = OrderedDict()
        self._lock = Lock()
        self._open: WeakSet[Found] = WeakSet()

    def get(self, key: str, make: Callable[[], Found], *, wait: bool) -> Found | None:
        """The index, made now or, unless ``wait``, by a thread: None until it is there. Raises what ``make`` raised."""
        with self._lock:
            known = self._known.get(key)
            fresh = known is None
            if known is None:
                known = self._known[key] = Future()
            self._known.move_to_end(key)
            self._trim()
        if fresh and wait:
            self._make(key, make, known)
        elif fresh:
            self._pool.submit(self._make, key, make, known)
        return known.result() if wait or known.done() else None

    def _make(self, key: str, make: Callable[[], Found], into: Future[Found]) -> None:
        try:
            kept = None if self._state is None else self._state.load(KIND, key)
            found = None if kept is None else unpacked(kept)
            if found is None:
                found = make()
                if self._state is not None and (isinstance(found, Flattened) or size_of(found) <= LARGE):
                    self._state.save(KIND, key, packed(found))
            self._admit(found)
            into.set_result(found)
        except BaseException as error:
            if isinstance(error, FaultError | OSError):
                # A disk that failed may do better next time, and a file that changed has another key.
                with self._lock:
                    self._known.pop(key, None)
            into.set_exception(error)
            if not isinstance(error, Exception):
                raise

    def _admit(self, found: Found) -> None:
        with self._lock:
            held = sum(map(size_of, self._open))
            if held + size_of(found) > self._most:
                raise BadDumpError(
                    f"its index takes {_mib(size_of(found))} of memory, and those of the other dumps {_mib(held)} of "
                    f"{_mib(self._most)}: serve it from a farcored of its own",
                    term="index",
                )
            self._open.add(found)

    def _trim(self) -> None:
        held = sum(size_of(each.result()) for each in self._known.values() if each.done() and each.exception() is None)
        for key in list(self._known):
            each = self._known[key]
            if (held <= LIMIT and len(self._known) <= MOST) or not each.done():
                return
            held -= 0 if each.exception() is not None else size_of(each.result())
            del self._known[key]


def _mib(size: int) -> str:
    return f"{-(-size >> 20):,} MiB"


def size_of(found: Found) -> int:
    """Bytes of its arrays."""
    return 25 * len(found.runs if isinstance(found, Flattened) else found.pages.runs)


def packed(found: Found) -> bytes:
    """An index as bytes."""
    runs, said = (
        (found.runs, {"size": found.size, "problem": found.problem})
        if isinstance(found, Flattened)
        else (found.pages.runs, {"block": found.pages.block, "ranks": found.ranks, "problems": found.problems})
    )
    out = io.BytesIO()
    said_bytes = np.frombuffer(json.dumps(said).encode(), np.uint8)
    np.savez(out, said=said_bytes, start=runs.start, stop=runs.stop, offset=runs.offset, kind=runs.kind)
    return out.getvalue()


def unpacked(content: bytes) -> Found | None:
    """What ``packed`` made; None for what another version of it made."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            start, stop, offset, kind = (file[name] for name in _COLUMNS)
            said = json.loads(file["said"].tobytes())
        runs = Runs(start, stop, offset, kind)
        if "size" in said:
            return Flattened(runs, said["size"], said["problem"])
        return Index(PageMap(runs, said["block"]), tuple(said["ranks"]), tuple(said["problems"]))
    except (KeyError, ValueError, OSError, EOFError) as error:
        LOG.warning("an index that was kept cannot be used and is made again: %s", error)
        return None
