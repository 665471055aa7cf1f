from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from benchmarks.wan import wan

_SEND = """
import socket
listener = socket.create_server(("", 5001))
print("listening", flush=True)
connection, _ = listener.accept()
connection.sendall(bytes(2_000_000))
"""
_RECEIVE = """
import socket, sys, time
began = time.monotonic()
connection = socket.create_connection((sys.argv[1], 5001))
connected = time.monotonic() - began
first = received = 0
while piece := connection.recv(1 << 20):
    received += len(piece)
    first = first or time.monotonic()
print(connected, received, time.monotonic() - began)
"""


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("cc"), reason="needs root, ip and cc")
def test_a_line_has_the_round_trip_and_the_rate_that_it_was_asked_for_and_leaves_nothing_behind() -> None:
    with wan("farcore-test", rtt=0.040, mbit=20) as line:
        with subprocess.Popen([*line.server, sys.executable, "-c", _SEND], stdout=subprocess.PIPE) as sender:
            assert sender.stdout is not None
            assert sender.stdout.readline() == b"listening\n"
            command = [*line.client, sys.executable, "-c", _RECEIVE, line.address]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        connected, received, seconds = map(float, done.stdout.split())
        assert 0.040 <= connected < 0.5
        assert received == 2_000_000
        assert seconds >= 2_000_000 * 8 / 20e6
        assert 2_000_000 < line.received() < 2_300_000
    assert "farcore-test" not in subprocess.run(["ip", "netns"], capture_output=True, text=True).stdout
