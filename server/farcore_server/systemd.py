"""What systemd and a service tell each other: a socket that listens already (sd_listen_fds(3)), states (sd_notify(3)).

Both are an environment variable and a system call, so that no library is needed for them.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping
from typing import Final

from farcore.errors import SettingsError

# SD_LISTEN_FDS_START: the first descriptor behind stdin, stdout and stderr.
_FIRST: Final = 3
_SOCKETS: Final = {socket.AF_INET, socket.AF_INET6}


def inherited(environ: Mapping[str, str]) -> socket.socket | None:
    """The listening TCP socket that this process was started with; None where it was started without any.

    SettingsError for more than one, and for one of another kind.
    """
    if environ.get("LISTEN_PID") != str(os.getpid()) or not environ.get("LISTEN_FDS", "").isdecimal():
        return None
    count = int(environ["LISTEN_FDS"])
    if count == 0:
        return None
    unit = "give farcored.socket one ListenStream=ADDRESS:PORT"
    if count > 1:
        raise SettingsError(f"{count} sockets were handed over, and one is served: {unit}")
    found = socket.socket(fileno=_FIRST)
    if found.family not in _SOCKETS or not found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise SettingsError(f"the socket that was handed over does not listen for TCP: {unit}")
    found.set_inheritable(False)
    found.setblocking(False)
    return found


def notify(*states: str) -> None:
    """Tell the service manager, if there is one that wants to know: "READY=1", "STOPPING=1", "WATCHDOG=1" ..."""
    place = os.environ.get("NOTIFY_SOCKET", "")
    if not place.startswith(("/", "@")):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.sendto("\n".join(states).encode(), place.replace("@", "\0", 1) if place[0] == "@" else place)


def notify_reloading() -> None:
    """The settings are being read again; READY=1 ends that. Type=notify-reload wants to know when it began."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def watchdog() -> float | None:
    """Seconds after which to say WATCHDOG=1 again, half of what the unit allows; None where it asks for none."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 2e6 if microseconds.isdecimal() and int(microseconds) else None
