"""Two crashes of one kernel build: what a session on one has read leads to what lies elsewhere on the other."""

from __future__ import annotations

import numpy as np
import pytest

from farcore import cacheps
from farcore.cacheps import Cacheps
from farcore.regions import Regions
from farcore.slabs import Slabs
from farcore_client import lessons, warmup
from farcore_client.credentials import Credentials
from farcore_client.remote import RemoteDump, connect
from tests.client.remote.conftest import dump_url
from tests.live import Serve
from tests.realdumps import RealDumps

pytestmark = pytest.mark.tools


def known(remote: RemoteDump) -> tuple[Slabs, Cacheps, int]:
    """What the dump's slabs are, which of their caches its image points to, and where the image is."""
    target = remote.target()
    assert target.vmcoreinfo is not None
    regions = Regions.of(target.physical, target.elf.header, target.vmcoreinfo)
    assert regions is not None
    slabs = Slabs.of(regions, target.vmcoreinfo, target.physical)
    assert slabs is not None
    base = (target.vmcoreinfo.kernel_offset or 0) + (target.vmcoreinfo.phys_base or 0)
    return slabs, Cacheps.of(slabs, warmup.image_data(regions, target), base, target.physical), base


def test_objects_of_the_caches_that_one_session_read_come_before_the_next_asks(real_dumps: RealDumps, serve: Serve) -> None:
    paths = [real_dumps(name) for name in ("cross", "kdump")]
    live = serve(*paths, "--host-arch", "x86_64", "--workers", "1")
    urls = [dump_url(live.url, path.name) for path in paths]
    with connect(urls[0], Credentials()) as remote:
        slabs, pointed, _ = known(remote)
        assert len(pointed.cache) > 40
        # A page of each of some middling caches.
        caches, counts = np.unique(slabs.cache[np.isin(slabs.cache, pointed.cache)], return_counts=True)
        some = caches[(counts > 8) & (counts < 128)][:6]
        assert len(some) == 6
    with connect(urls[0], Credentials()) as remote, lessons.learning(remote, remote.target(), None):
        for cache in some:
            remote.physical.pread(int(slabs.frame[slabs.cache == cache][3]) << 12, 64)
    with connect(urls[1], Credentials()) as remote:
        slabs, _, base = known(remote)
        where = cacheps.pointers(pointed.number[np.isin(pointed.cache, some)], base)
        frames = cacheps.frames(slabs, where, remote.target().physical)
        assert len(frames) > 6 * 8
    with connect(urls[1], Credentials()) as remote:
        lesson = lessons.Lesson(remote, remote.target(), None)
        lesson.recall()
        before = remote.counts.misses
        for frame in frames.tolist():
            remote.physical.pread(frame << 12, 64)
        assert remote.counts.misses == before
