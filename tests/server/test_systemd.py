from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.elfwriter import Dump, load
from tests.http1 import Connection

WITHIN = 30.0
# As a service manager starts it: the sockets are descriptors 3, 4 ..., and LISTEN_PID is the process itself.
LAUNCHER = """
import os, sys
sockets = [int(fd) for fd in sys.argv[1].split(",")]
for place, fd in enumerate(sockets, 3):
    os.dup2(fd, place)
os.environ |= {"LISTEN_FDS": str(len(sockets)), "LISTEN_PID": str(os.getpid())}
os.execv(sys.argv[2], sys.argv[2:])
"""


@contextmanager
def service(
    folder: Path, *sockets: socket.socket, watchdog: str = "", arguments: tuple[str, ...] = ()
) -> Iterator[tuple[subprocess.Popen[str], socket.socket]]:
    """farcored with these sockets, and the socket on which it says how it is."""
    dump = Dump([load(b"memory")]).write(folder / "vmcore")
    script = str(Path(sys.executable).with_name("farcored"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(folder / "notify"))
        manager.settimeout(WITHIN)
        # Out of the way of the places that the launcher fills.
        given = [fcntl.fcntl(each.fileno(), fcntl.F_DUPFD, 10) for each in sockets]
        command = [sys.executable, "-c", LAUNCHER, ",".join(map(str, given)), script, "serve", str(dump), "--workers", "2"]
        process = subprocess.Popen(
            [*command, "--host-arch", "x86_64", *arguments],
            pass_fds=given,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ
            | {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": watchdog, "STATE_DIRECTORY": str(folder)},
        )
        for fd in given:
            os.close(fd)
        try:
            yield process, manager
        finally:
            process.kill()
            process.communicate()


def told(manager: socket.socket) -> dict[str, str]:
    return dict(line.split("=", 1) for line in manager.recv(4096).decode().splitlines())


def until(manager: socket.socket, key: str) -> dict[str, str]:
    while key not in (found := told(manager)):
        pass
    return found


def test_a_socket_that_was_handed_over_is_served_and_the_manager_is_told_of_every_state(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with Connection(f"http://{address}") as early:  # the manager listens before there is a server
            early.ask("GET", "/readyz")
            with service(tmp_path, listener, watchdog="200000") as (process, manager):
                assert until(manager, "READY")["STATUS"] == f"serving 1 dump on http://{address}"
                assert early.answer().status == 200
                assert until(manager, "WATCHDOG") == {"WATCHDOG": "1"}
                process.send_signal(signal.SIGHUP)
                assert until(manager, "RELOADING")["MONOTONIC_USEC"].isdecimal()
                assert until(manager, "READY") == {"READY": "1"}
                process.terminate()
                assert until(manager, "STOPPING") == {"STOPPING": "1"}
                assert process.wait(WITHIN) == 0


def refusal(process: subprocess.Popen[str]) -> str:
    _, said = process.communicate(timeout=WITHIN)
    assert process.returncode == 2
    return said


def test_a_socket_that_others_reach_is_refused_without_a_token_as_any_address_is(tmp_path: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as listener, service(tmp_path, listener) as (process, _):
        assert "can be reached from other machines" in refusal(process)


@pytest.mark.parametrize("kind", ["two", "unix", "datagram", "connected"])
def test_what_is_not_one_listening_tcp_socket_is_refused_in_a_sentence(tmp_path: Path, kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket(socket.AF_UNIX) as local:
        local.bind(str(tmp_path / "socket"))
        local.listen()
        with socket.socket(type=socket.SOCK_DGRAM) as datagram, socket.create_connection(listener.getsockname()) as connected:
            given = {"two": (listener, listener), "unix": (local,), "datagram": (datagram,), "connected": (connected,)}[kind]
            with service(tmp_path, *given) as (process, _):
                assert "give farcored.socket one ListenStream=ADDRESS:PORT" in refusal(process)
