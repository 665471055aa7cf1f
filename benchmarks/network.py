"""Network: loopback under the machine's congestion control, or under cubic in a network namespace of our own."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from benchmarks import BenchmarkError

_CLONE_NEWNET: Final = 0x40000000  # include/uapi/linux/sched.h
_LOOPBACK: Final = "local 127.0.0.1 dev lo table local proto kernel scope host src 127.0.0.1"


def default() -> str:
    """The congestion control that the machine gives to a new socket."""
    return Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()


@contextmanager
def cubic() -> Iterator[None]:
    """Everything that the body opens or starts lives in a namespace whose loopback runs cubic; needs root.

    It has no name, so that it ends with its last process, however that ends. Cubic is the route's: the namespace's sysctl
    takes only what the machine's tcp_allowed_congestion_control lists, and nothing of the machine is changed here.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    outside = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        _call(libc.unshare(_CLONE_NEWNET))
        for command in ("ip link set lo up", f"ip route change {_LOOPBACK} congctl cubic"):
            subprocess.run(command.split(), check=True)
        _demand("cubic")
        yield
    finally:
        setns(outside)
        os.close(outside)


def setns(namespace: int) -> None:
    """Enter the network namespace that is open there (setns(2))."""
    _call(ctypes.CDLL(None, use_errno=True).setns(namespace, _CLONE_NEWNET))


def free_port() -> int:
    """A port of loopback that nobody listens at."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port: int = listener.getsockname()[1]
        return port


def _call(answer: int) -> None:
    if answer:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _demand(wanted: str) -> None:
    """BenchmarkError unless both ends of a new connection have it."""
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as listener,
        closing(socket.create_connection(listener.getsockname())) as client,
        closing(listener.accept()[0]) as server,
    ):
        for end in (client, server):
            found = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()
            if found != wanted:
                raise BenchmarkError(f"loopback runs {found}, not {wanted}: does `modprobe tcp_{wanted}` help?")
