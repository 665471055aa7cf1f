"""Pace: the zstd level at which a link is fastest, found by trying. Pure."""

from __future__ import annotations

from typing import Final, Literal

Wish = int | None | Literal["auto"]

# From none to what a core makes of 30 MB/s. None of them: plain frames.
LEVELS: Final[tuple[int | None, ...]] = (None, 1, 3, 6)
# Seconds of a round trip below which a link is taken for a fast one until it shows otherwise: other cities are farther.
NEAR: Final = 0.002
# How much better a neighbour must be to be gone to: timings are noisy, and going back and forth gains nothing.
BETTER: Final = 1.1
# Bytes of a resource after which a neighbour is tried once more: links change.
AGAIN: Final = 8 << 30


class Pace:
    """Climbs to the level with the highest rate, from a first guess by the link's round trip (s), unless one is wished for."""

    def __init__(self, wish: Wish, round_trip: float) -> None:
        self._fixed = wish != "auto"
        self.level: int | None = wish if wish != "auto" else LEVELS[0] if round_trip < NEAR else LEVELS[2]
        self._rates: dict[int | None, float] = {}
        self._since = 0

    @property
    def settled(self) -> bool:
        """Whether no trial is under way: large works may be asked for."""
        return self._fixed or self._untried() is None

    def wanted(self) -> int | None:
        """The level to ask for next."""
        return self.level if self.settled else self._untried()

    def record(self, level: int | None, size: int, seconds: float) -> None:
        """``size`` bytes of the resource took ``seconds`` at that level, other works at the same time left aside."""
        if self._fixed or seconds <= 0:
            return
        self._rates[level] = size / seconds
        self._since += size
        if self._since > AGAIN:
            self._since, self._rates = 0, {self.level: self._rates.get(self.level, 0.0)}
        if self._rates[level] > BETTER * self._rates.get(self.level, 0.0):
            self.level = level

    def _untried(self) -> int | None:
        return None
