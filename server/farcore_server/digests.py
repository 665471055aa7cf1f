"""Digests: the manifest of a dump, made chunk by chunk by a thread in the background, while somebody asks for it.

It is kept by ETag, in memory and in the state directory; workers find there what another has got to. Of a file that changed
meanwhile nothing is kept: after each stretch the file is looked at before what was made of it counts.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from farcore import manifest
from farcore.errors import FarcoreError
from farcore_server.opened import Opened
from farcore_server.state import State

LOG: Final = logging.getLogger(__name__)

KIND: Final = "digests"
# Seconds after the last question that the work goes on for; whoever waits for a manifest asks more often.
WANTED: Final = 60.0
# Seconds between two savings of what is known.
SAVED: Final = 5.0
# Chunks between two looks at the file.
STRETCH: Final = 8
# Manifests kept in memory: 8 MiB for a dump of 1 TiB.
KEPT: Final = 16
# The least urgent, as nice(1) has it: readers come first.
_NICE: Final = 19

# One thread a worker: a disk, and a core, are left to those who read.
_BACKGROUND: Final = ThreadPoolExecutor(1, thread_name_prefix="digests")


class _Making:
    def __init__(self) -> None:
        self.known = b""
        self.asked = time.monotonic()
        self.running = False
        self.trouble = ""


class Digests:
    """The digests of all dumps of a worker; its methods block, and may be called from any thread."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._all: OrderedDict[str, _Making] = OrderedDict()
        self._lock = threading.Lock()

    def known(self, opened: Opened, size: int, *, go_on: bool) -> tuple[bytes, str]:
        """The digests of the first chunks, 32 bytes each, and why there will be no more ("": there may)."""
        etag, wanted = opened.dump.etag, manifest.count(size) * manifest.DIGEST
        with self._lock:
            making = self._all.setdefault(etag, _Making())
            self._all.move_to_end(etag)
            if go_on:
                making.asked = time.monotonic()
            self._forget()
            if not making.running and len(making.known) < wanted:
                # Only then: while it runs, what is known is the thread's to add to.
                self._take_over(etag, making)
            if go_on and not making.running and not making.trouble and len(making.known) < wanted:
                making.running = True
                _BACKGROUND.submit(self._make, opened, making, size)
            return making.known, making.trouble

    def _forget(self) -> None:
        for etag in [each for each, making in self._all.items() if not making.running][: max(0, len(self._all) - KEPT)]:
            del self._all[etag]

    def _take_over(self, etag: str, making: _Making) -> None:
        saved = self.state.load(KIND, etag)
        if saved is not None and len(saved) > len(making.known):
            making.known = saved

    def _make(self, opened: Opened, making: _Making, size: int) -> None:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        try:
            self._go_on(opened, making, size)
        except FarcoreError as error:
            making.trouble = str(error)
        except Exception:
            LOG.exception("the digests of %s could not be made", opened.dump.name)
            making.trouble = "the server failed; its log says why"
        finally:
            making.running = False

    def _go_on(self, opened: Opened, making: _Making, size: int) -> None:
        source, etag = opened.files.space(opened.dump, "vmcore"), opened.dump.etag
        saved, wanted = time.monotonic(), manifest.count(size) * manifest.DIGEST
        while len(making.known) < wanted and time.monotonic() - making.asked < WANTED:
            first = len(making.known) // manifest.DIGEST
            places = range(first * manifest.CHUNK, min(size, (first + STRETCH) * manifest.CHUNK), manifest.CHUNK)
            fresh = [manifest.digest(source.pread(at, min(manifest.CHUNK, size - at))) for at in places]
            opened.demand_unchanged()
            making.known += b"".join(fresh)
            if time.monotonic() - saved > SAVED:
                self._take_over(etag, making)
                self.state.save(KIND, etag, making.known)
                saved = time.monotonic()
        self.state.save(KIND, etag, making.known)
