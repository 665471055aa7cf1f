"""Stalled: what a client costs that asks for the whole dump and reads none of it."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final

from benchmarks import BenchmarkError, dump, process
from benchmarks.lab import Lab
from benchmarks.servers import Server, farcored, nginx
from benchmarks.table import Table

ROWS: Final = ("stalled",)
CLIENTS: Final = 200
SETTLES_WITHIN: Final = 15.0  # seconds until a server has filled every socket
LIMIT: Final = 64 << 10  # bytes of private memory that a client may cost


def measure(lab: Lab) -> Table | None:
    """Private memory of the server, and the kernel's for both ends of the connection, by client."""
    if not lab.wants("stalled"):
        return None
    table = Table(f"{CLIENTS} stalled clients: {lab.network}, 1 worker each", ("server", "private KiB", "kernel KiB", "wanted"))
    with ExitStack() as stack:
        for server in (stack.enter_context(nginx(lab.root)), stack.enter_context(farcored(lab.root))):
            private, kernel = _cost(lab, server)
            wanted = f"{LIMIT >> 10} {'met' if private <= LIMIT else 'MISSED'}" if server.name == "farcore" else ""
            table.add(server.name, f"{private / 1024:.1f}", f"{kernel / 1024:.0f}", wanted)
    return table


def _cost(lab: Lab, server: Server) -> tuple[float, float]:
    dump.keep(lab.hot)
    with ExitStack() as stack:
        _stall(stack, lab, server, 1)  # what the first stream of all costs is no client's
        _settled(server)
        before = process.private_bytes(server.family), process.socket_bytes()
        _stall(stack, lab, server, CLIENTS)
        _settled(server)
        after = process.private_bytes(server.family), process.socket_bytes()
    return (after[0] - before[0]) / CLIENTS, (after[1] - before[1]) / CLIENTS


def _stall(stack: ExitStack, lab: Lab, server: Server, count: int) -> None:
    """Clients that want everything and have been sent some of it."""
    path = server.paths[lab.hot.name]
    clients = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(count)]
    for client in clients:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())
    _demand_answers(server, clients)


def _demand_answers(server: Server, clients: Sequence[socket.socket]) -> None:
    for client in clients:
        client.settimeout(SETTLES_WITHIN)
        if not client.recv(12, socket.MSG_PEEK).startswith(b"HTTP/1.1 200"):
            raise BenchmarkError(f"{server.name} does not send the dump to {len(clients)} clients at once")


def _settled(server: Server) -> None:
    """Return when the server has had nothing to do for half a second."""
    family, give_up = server.family, time.monotonic() + SETTLES_WITHIN
    cpu = -1.0
    while process.cpu_seconds(family) - cpu > 0.005 and time.monotonic() < give_up:
        cpu = process.cpu_seconds(family)
        time.sleep(0.5)
