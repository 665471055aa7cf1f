"""Listener: a door's port, where each tool that comes is served in a thread of its own, so many at once and no more."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from farcore.errors import FarcoreError, SourceChangedError

# A support team at one door, with room; each has a thread, and at most one answer under way.
MAX_CLIENTS: Final = 32
LOOPBACK: Final = "127.0.0.1"


class Listener:
    """``serve`` has a client's socket until it returns; ``complain`` gets the sentence of any error that ends it.

    ``changed`` is set once the dump is another: from then on nobody is served.
    """

    def __init__(self, serve: Callable[[socket.socket], object], complain: Callable[[str], object]) -> None:
        self.serve, self.complain = serve, complain
        self.changed = threading.Event()
        self._clients: set[socket.socket] = set()
        self._lock = threading.Lock()

    @contextmanager
    def listening(self, host: str, port: int) -> Iterator[int]:
        """Listens for the time of the body, which gets the port; 0 takes a free one. OSError where that cannot be."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family)
        threading.Thread(target=self._accept, args=(listener,), name="farcore door", daemon=True).start()
        try:
            yield listener.getsockname()[1]
        finally:
            # shutdown, unlike close, wakes who waits in accept or recv.
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            self._hang_up()

    def _hang_up(self) -> None:
        with self._lock:
            for client in self._clients:
                with suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                taken = len(self._clients) < MAX_CLIENTS and not self.changed.is_set()
                if taken:
                    self._clients.add(client)
            if taken:
                threading.Thread(target=self._one, args=(client,), name="farcore client", daemon=True).start()
            else:
                client.close()

    def _one(self, client: socket.socket) -> None:
        try:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self.serve(client)
        except SourceChangedError as error:
            # No answer would be right from here on, for anybody.
            if not self.changed.is_set():
                self.changed.set()
                self.complain(str(error))
            self._hang_up()
        except FarcoreError as error:
            self.complain(str(error))
        except OSError:
            pass
        finally:
            with self._lock:
                self._clients.discard(client)
            client.close()
