from __future__ import annotations

import os
import shutil
import socket
from contextlib import closing

import pytest

from benchmarks import network


def _in_force() -> str:
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as listener,
        closing(socket.create_connection(listener.getsockname())) as client,
    ):
        return client.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ip"), reason="needs root and iproute2")
def test_cubic_is_in_force_inside_and_all_is_as_before_outside() -> None:
    namespace, before = os.readlink("/proc/self/ns/net"), _in_force()
    with network.cubic():
        assert _in_force() == "cubic"
        assert os.readlink("/proc/self/ns/net") != namespace
    assert os.readlink("/proc/self/ns/net") == namespace
    assert _in_force() == before == network.default()
