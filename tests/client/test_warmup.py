"""Warm-up: what every session reads is here before it is asked for; found in a real dump, by its VMCOREINFO alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from farcore.pagetable import MAPPING, START_KERNEL_MAP
from farcore.regions import Regions
from farcore.source import BytesSource, Extent
from farcore_client.credentials import Credentials
from farcore_client.remote import RemoteDump, connect
from farcore_client.warmup import percpu, warm
from tests.client.remote.conftest import dump_url
from tests.core.test_naming import DIRECT, PER_CPU_OFFSET
from tests.live import Serve

SAMPLE = "x86_64-panic.elf"


@pytest.fixture(scope="module")
def remote(sample: Callable[[str], Path], serve_all_along: Serve) -> Iterator[RemoteDump]:
    live = serve_all_along(sample(SAMPLE), "--host-arch", "x86_64")
    with connect(dump_url(live.url, SAMPLE), Credentials()) as remote:
        yield remote


def test_data_struct_pages_and_cpus_areas_are_here_before_they_are_read(remote: RemoteDump) -> None:
    target = remote.target()
    assert target.vmcoreinfo is not None
    extents = warm(remote).result(60)
    requests = remote.counts.requests
    base = target.vmcoreinfo.phys_base
    assert base is not None
    for name in ("init_uts_ns", "node_online_map", "prb", "swapper_pg_dir"):
        address = target.vmcoreinfo.symbol(name)
        assert address is not None
        assert remote.physical.pread(address - START_KERNEL_MAP + base, 64).nbytes == 64
    # Where crash found them.
    assert {offset - DIRECT for offset in PER_CPU_OFFSET} <= {start for start, _ in extents}
    assert remote.counts.requests == requests
    assert remote.counts.received < 16 << 20  # on loopback nothing is compressed, unless the machine is slow


IMAGE, MEMORY = 0xFFFFFFFF81000000, 1 << 30
LOADED = IMAGE + 0x2000000


@pytest.mark.parametrize(
    ("words", "areas"),
    [
        ([DIRECT + 0x200000, DIRECT + 0x300000, LOADED, LOADED], [0x200000, 0x300000]),
        # A pointer in front of the array, and too few CPUs behind it.
        ([DIRECT + 0x1000, DIRECT + 0x9000000, DIRECT + 0x9100000, LOADED, LOADED], [0x9000000, 0x9100000]),
        ([DIRECT + 0x200000, LOADED, LOADED], []),
        ([DIRECT + 0x200000, DIRECT + 0x300000, LOADED, LOADED + 4096], []),
        ([DIRECT + 0x200000, DIRECT + 0x300000], []),
        ([DIRECT + 0x200000, DIRECT + 0x200000, LOADED, LOADED], []),
        ([DIRECT + MEMORY, DIRECT + MEMORY + 0x100000, LOADED, LOADED], []),
        ([], []),
    ],
)
def test_cpus_areas_are_found_by_the_shape_of_the_kernels_array(words: list[int], areas: list[int]) -> None:
    content = np.array([0, 7, *words, 1], np.uint64).tobytes()
    regions = Regions(DIRECT, DIRECT + (1 << 46), DIRECT + (1 << 47), IMAGE, np.zeros(0, MAPPING))
    memory = Memory(content)
    assert percpu([Extent(0, len(content))], memory, regions, 2) == [Extent(area, 256 << 10) for area in areas]


class Memory(BytesSource):
    """Content at the bottom of 1 GiB."""

    @property
    def size(self) -> int:  # type: ignore[override]
        return MEMORY
