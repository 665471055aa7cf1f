"""Catalogue: the dumps there are, by id, kept true while files come, grow, change and go.

A scan (in a thread, every few seconds) looks at every file below the PATHs and inspects those that are new or different.
A request does not wait for the next scan: it looks at its own file once more, and what changed is inspected anew.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final, NamedTuple

from farcore_server import kernellog
from farcore_server.dump import Dump, Part
from farcore_server.inspection import Rules, inspect
from farcore_server.opened import Opened
from farcore_server.search import Place, search
from farcore_server.state import State

LOG: Final = logging.getLogger(__name__)

# Dumps held open at once: a descriptor and a map each. Beyond it the least recently read one is closed.
MAX_OPEN: Final = 256


class _Stamp(NamedTuple):
    """What must change on disk before a file is worth another look; ctime sees a chmod as well."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


class Catalogue:
    """All dumps below ``paths``, and what is remembered of them. All but ``scan`` and ``state`` is for the loop's thread."""

    def __init__(self, paths: Iterable[str], rules: Rules, state: State | None = None) -> None:
        self.paths = tuple(paths)
        self.rules = rules
        self.state = state or State(None)
        self.dumps: dict[str, Dump] = {}
        self._seen: dict[str, tuple[_Stamp | None, Dump | None]] = {}
        self._open: OrderedDict[str, Opened] = OrderedDict()
        self._opening: dict[str, asyncio.Task[Opened | Dump | None]] = {}
        self._scanning = threading.Lock()
        # By ETag, of the dumps whose log was read.
        self._panics: dict[str, str | None] = {}

    def scan(self) -> None:
        """Look at every file once; blocks, so it belongs in a thread. What cannot be looked at is left out or refused."""
        with self._scanning:
            seen: dict[str, tuple[_Stamp | None, Dump | None]] = {}
            for path in self.paths:
                for place in search(path):
                    if place.path not in seen:
                        seen[place.path] = self._look(place)
            dumps: dict[str, Dump] = {}
            for _, dump in seen.values():
                if dump is not None:
                    dumps.setdefault(dump.id, dump)
            self._seen, self.dumps = seen, dumps

    def _look(self, place: Place) -> tuple[_Stamp | None, Dump | None]:
        stamp = _stamp(place.path)
        known = self._seen.get(place.path)
        if known is not None and stamp is not None and known[0] == stamp and not _unsettled(known[1]):
            return known
        dump = inspect(place, self.rules)[0]
        return stamp, None if dump is None else self._told(dump)

    def marked(self) -> Mapping[str, Dump]:
        """``dumps``; one whose storage fails is incomplete, with a warning that says where."""
        marks = {}
        for key, opened in self._open.items():
            dump, place = self.dumps.get(key), opened.files.failed()
            if dump is not None and place is not None and dump.etag == opened.dump.etag:
                warning = f"its storage fails: byte {place:,} of the file could not be read; it is tried again and again"
                marks[key] = replace(dump, state="incomplete", warnings=(*dump.warnings, warning))
        return {**self.dumps, **marks} if marks else self.dumps

    def _told(self, dump: Dump) -> Dump:
        """The dump with what its log said, if that has been read."""
        panic = self._panics.get(dump.etag)
        return dump if panic == dump.panic else replace(dump, panic=panic)

    def _read_logs(self, seconds: float) -> dict[str, str | None]:
        """Why the kernels of those dumps crashed whose log was not read yet, newest first, as far as ``seconds`` go."""
        give_up = time.monotonic() + seconds
        unread = [dump for dump in self.dumps.values() if dump.elf is not None and dump.etag not in self._panics]
        found: dict[str, str | None] = {}
        for dump in sorted(unread, key=lambda dump: -dump.identity.mtime_ns):
            if time.monotonic() > give_up:
                break
            found[dump.etag] = kernellog.panic(dump, self.rules)
        return found

    async def _tell(self, seconds: float) -> None:
        found = await asyncio.to_thread(self._read_logs, seconds)
        if found:
            served = {dump.etag for dump in self.dumps.values()}
            self._panics = {etag: said for etag, said in {**self._panics, **found}.items() if etag in served}
            self._seen = {path: (stamp, dump and self._told(dump)) for path, (stamp, dump) in self._seen.items()}
            self.dumps = {key: self._told(dump) for key, dump in self.dumps.items()}

    async def watch(self, seconds: float) -> None:
        """Scan again and again, until cancelled, at multiples of ``seconds`` and at most a third of the time.

        Those are of the machine's clock: workers that search for themselves find a new dump in the same moment.
        """
        while True:
            begun = time.monotonic()
            try:
                await self._tell(seconds / 6)  # of what the scan before found: at the start nobody waits for another
                await asyncio.to_thread(self.scan)
                await self._tell(seconds / 6)
                for opened in [each for each in self._open.values() if each.files.failed() is not None]:
                    await asyncio.to_thread(opened.files.try_again)
            except Exception:
                LOG.exception("a search for changes failed; what is served stays as it was until the next one")
            now = time.monotonic()
            await asyncio.sleep(seconds - now % seconds + 2 * (now - begun) // seconds * seconds)

    async def open(self, dump_id: str) -> Opened | Dump | None:
        """The dump to serve bytes from; the Dump alone where its bytes may not be served; None where there is none."""
        opened = self._open.get(dump_id)
        if opened is not None and opened.current():
            self._open.move_to_end(dump_id)
            return opened
        task = self._opening.get(dump_id)
        if task is None:
            task = asyncio.create_task(self._reopen(dump_id))
            self._opening[dump_id] = task
            task.add_done_callback(lambda _: self._opening.pop(dump_id, None))
        return await asyncio.shield(task)

    async def _reopen(self, dump_id: str) -> Opened | Dump | None:
        self._open.pop(dump_id, None)
        known = self.dumps.get(dump_id)
        if known is None:
            return None
        dump, files = await asyncio.to_thread(inspect, known.place, self.rules)
        if dump is None or _gone(known.place):
            self.dumps = {key: value for key, value in self.dumps.items() if key != dump_id}
            return None
        self.dumps = {**self.dumps, dump_id: (dump := self._told(dump))}
        if files is None:
            return dump
        opened = Opened(dump, files)
        self._open[dump_id] = opened
        while len(self._open) > MAX_OPEN:
            self._open.pop(self._dispensable(dump_id))
        return opened

    def _dispensable(self, kept: str) -> str:
        """The least recently read one whose storage does not fail, since its mark would go with it; else the first of all."""
        sound = (key for key, opened in self._open.items() if key != kept and opened.files.failed() is None)
        return next(sound, next(iter(self._open)))


def _unsettled(dump: Dump | None) -> bool:
    """Whether there may be more to say of an unchanged file.

    It could not even be read, which can end without a trace (a disk that failed, too many open files); its index is being
    made; or other files of its set may have come, or changed.
    """
    if dump is None:
        return False
    if dump.stored_format is None or dump.state == "indexing" or (dump.stored.in_parts and dump.state == "incomplete"):
        return True
    return not all(_holds(part) for part in dump.stored.parts)


def _holds(part: Part) -> bool:
    try:
        return part.identity.holds(os.stat(part.place.path))
    except OSError:
        return False


def _gone(place: Place) -> bool:
    """Whether nothing has the name any more; a file that was itself named as a PATH stays listed, as missing."""
    return place.root is not None and not os.path.lexists(place.path)


def _stamp(path: str) -> _Stamp | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return _Stamp(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
