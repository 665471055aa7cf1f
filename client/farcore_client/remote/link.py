"""Link: what the answers so far say of the way to a server, and what is worth asking for over it. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

from farcore_client.exchange import Transfer

# Below: what a process costs, not a network. Loopback answers within it.
_NEAR: Final = 1e-3
# Seconds that a server on a loaded machine may take for an answer from memory.
_BUSY: Final = 20e-3
# Bytes a second that are taken for granted before a body has shown more or less.
_UNKNOWN_FAR: Final = 12.5e6
_UNKNOWN_NEAR: Final = 500e6
# One core decodes, checks and files pages at this rate: a faster link brings nothing more.
_FILED: Final = 300e6
# A body of less says nothing of the rate: one segment's worth comes at once.
_TELLING: Final = 64 << 10
# Round trips in which a connection gets up to the rate of a long line, unless it has carried so much: what comes sooner tells
# how a connection starts, and not what the line carries.
_STARTING: Final = 4
_WHOLE: Final = 512 << 10
# Where zstd's thread makes less than the link takes, pages go as they are.
_FAST: Final = 150e6
_SLOW: Final = 20e6
# So slow is no network that near: on a machine that is busy with other things loopback looks like 20 MB/s.
_SLOW_AND_NEAR: Final = 8e6

_LEAST_BLOCK: Final = 16 << 10
_MOST_BLOCK: Final = 512 << 10
_LEAST_WINDOW: Final = 4 << 20
_MOST_WINDOW: Final = 8 << 20


@dataclass(frozen=True)
class Link:
    """``rtt`` in seconds and ``rate`` in bytes a second; 0 is unknown."""

    rtt: float = 0.0
    rate: float = 0.0

    def after(self, took: Transfer, *, packed: bool) -> Link:
        """The link as an answer shows it; ``packed``: zstd made its bytes, which may have been what took the time."""
        rtt = self._rtt(took.wait, took.rtt)
        if took.size < _TELLING or (took.size < _WHOLE and rtt > 2 * _NEAR and took.seconds < _STARTING * rtt):
            return replace(self, rtt=rtt)
        # What waited in the socket's buffers comes in no time; and a young connection is slower than the link.
        sample = took.size / max(took.wait - rtt + took.seconds, 1e-4)
        if sample > self.rate:
            return Link(rtt, sample)
        return Link(rtt, self.rate if packed else self.rate + (sample - self.rate) / 10)

    def at_least(self, rate: float) -> Link:
        """The link, which has carried bytes at this rate."""
        return replace(self, rate=max(rate, self.rate))

    def _rtt(self, wait: float, measured: float | None) -> float:
        # What a busy server adds to the kernel's figure is not the network's; what a tunnel adds is.
        sample = wait if measured is None or wait > measured + _BUSY else measured
        return sample if not self.rtt or sample < self.rtt else self.rtt + (sample - self.rtt) / 20

    @property
    def _rate(self) -> float:
        return self.rate or (_UNKNOWN_FAR if self.far else _UNKNOWN_NEAR)

    @cached_property
    def block(self) -> int:
        """Bytes to bring around a single miss, a power of two: about what the link carries in four round trips.

        Over a far link they come beside the page that is waited for, and compressed to a quarter.
        """
        worth = min(self._rate, _FILED) * max(0.0, self.rtt - _NEAR) * 4
        power = 1 << round(math.log2(max(worth, 1)))
        return min(max(power, _LEAST_BLOCK), _MOST_BLOCK)

    @cached_property
    def window(self) -> int:
        """Bytes to have under way, at most, ahead of a reader in sequence: four times what fills the link."""
        worth = self._rate * self.rtt * 4
        return int(min(max(worth, _LEAST_WINDOW), _MOST_WINDOW))

    @property
    def far(self) -> bool:
        """Whether a round trip is what a miss costs: then a page does not wait for its neighbours."""
        return self.rtt > 2 * _NEAR

    @property
    def level(self) -> int | None:
        """The zstd level to ask for; None where compressing takes longer than sending."""
        if self._rate >= _FAST or (self.rtt < 2 * _NEAR and self._rate >= _SLOW_AND_NEAR):
            return None
        return 3 if self._rate < _SLOW else 1
