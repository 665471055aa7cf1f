"""A dump larger than its server's address space: a machine of 6 GiB crashes, and an i386 crash kernel serves its memory.

sendfile(2) of /proc/vmcore stops at 2 GiB, and a 32-bit process maps 2.5 GiB of a file at most. What lies beyond is known
twice: QEMU put words that are their own physical address into the memory, and in the end the crash kernel's own dd reads it.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from tests.vm.coreelf import Segment, read
from tests.vm.crashkernel import LARGE_VIA_I386
from tests.vm.rescue import ended, folder, rescue, said

pytestmark = [
    pytest.mark.skipif("FARCORE_VM" not in os.environ, reason="make test-vm"),
    pytest.mark.timeout(1200),
]
SECONDS = 240
DROPPED = 8  # seconds, in which the guest drops its caches, which it does every five seconds
BLOCK = 1 << 16  # of which dd takes two
# Around 2 GiB and 4 GiB of the file, near its end and at its start.
SAMPLES = (0, (1 << 31) // BLOCK - 1, (1 << 32) // BLOCK - 1, 93000)
WORDS = 64 << 20  # bytes of them
# Physical addresses: what the file has at 2 GiB and at 4 GiB lies 220 MiB above.
PLACES = ((1 << 32) + (192 << 20), (1 << 32) + (1 << 31) + (192 << 20))


@dataclass(frozen=True, slots=True)
class Session:
    """What was read of the machine, and what its console said."""

    dump: dict[str, Any]
    later: dict[str, Any]
    samples: dict[int, bytes]
    segments: tuple[Segment, ...]
    by_address: bytes
    serial: str


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """A machine of 6 GiB, read at places that a 32-bit number does not reach."""
    out, home = folder(), tmp_path_factory.mktemp("analyst")
    devices = []
    for place in PLACES:
        words = out.scratch(f"words-{place:x}")
        words.write_bytes(np.arange(place, place + WORDS, 8, dtype="<u8").tobytes())
        devices += ["-device", f"loader,file={words},addr={place:#x},force-raw=on"]
    with rescue(out, LARGE_VIA_I386, home, SECONDS, *devices, samples=SAMPLES) as (machine, analyst):
        dump = json.loads(analyst.curl())
        spans = {at: f"{at * BLOCK}-{(at + 2) * BLOCK - 1}" for at in SAMPLES}
        samples = {at: analyst.curl("/vmcore", "-r", span) for at, span in spans.items()}
        at = PLACES[1] + (1 << 20)
        by_address = analyst.curl("/memory/physical", "-r", f"{at}-{at + BLOCK - 1}")
        time.sleep(DROPPED)
        later = json.loads(analyst.curl())
        analyst.curl("/verified", "--json", json.dumps({"etag": dump["etag"]}))
        serial = ended(machine)
    (home / "head").write_bytes(samples[0])
    return Session(dump, later, samples, read(home / "head").segments, by_address, serial)


def test_an_i386_crash_kernel_serves_more_than_its_address_space(session: Session) -> None:
    assert session.dump["verdict"]["host_arch"] == "i386"
    assert session.dump["size"] > 5 << 30
    assert session.dump["size"] == int(said(session.serial, r"^VMCORE_SIZE=(\d+)"))
    assert said(session.serial, "^KDUMP_DONE")


@pytest.mark.parametrize("at", SAMPLES)
def test_beyond_2_and_4_gib_it_sends_what_the_crash_kernel_itself_reads_there(session: Session, at: int) -> None:
    content = session.samples[at]
    assert len(content) == 2 * BLOCK
    assert hashlib.sha256(content).hexdigest() == said(session.serial, rf"^VMCORE_SAMPLE {at} (\w+)")


@pytest.mark.parametrize("at", SAMPLES[1:3])
def test_the_words_around_2_and_4_gib_are_their_own_physical_addresses(session: Session, at: int) -> None:
    (load,) = (s for s in session.segments if s.offset <= at * BLOCK and (at + 2) * BLOCK <= s.offset + s.filesz)
    paddr = load.paddr + at * BLOCK - load.offset
    assert session.samples[at] == np.arange(paddr, paddr + 2 * BLOCK, 8, dtype="<u8").tobytes()


def test_memory_above_4_gib_is_read_by_its_address(session: Session) -> None:
    at = PLACES[1] + (1 << 20)
    assert session.by_address == np.arange(at, at + BLOCK, 8, dtype="<u8").tobytes()


def test_the_etag_stays_when_caches_are_dropped_and_no_time_is_told(session: Session) -> None:
    assert session.dump["etag"] == session.later["etag"]
    assert session.later["modified"] is None
    assert session.dump["modified"] is None
