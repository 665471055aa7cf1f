"""Pace: the zstd level at which a link is fastest, found by trying. Pure."""

from __future__ import annotations

from typing import Final, Literal

Wish = int | None | Literal["auto"]

# From none to what a core makes of 30 MB/s. None of them: plain frames.
LEVELS: Final[tuple[int | None, ...]] = (None, 1, 3, 6)
# Where to begin on a link that is not near.
FAR_LEVEL: Final = 3
# Seconds of a round trip below which a link is taken for a fast one until it shows otherwise: other cities are farther.
NEAR: Final = 0.002
# Bytes a second of the resource above which plain frames are good enough: a core compresses no faster.
FAST: Final = 600e6
# How much better a neighbour must be to be gone to: timings are noisy, and going back and forth gains nothing.
BETTER: Final = 1.1


class Pace:
    """Climbs to the level with the highest rate, from a first guess by the link's round trip (s), unless one is wished for."""

    def __init__(self, wish: Wish, round_trip: float) -> None:
        self._fixed, self._near = wish != "auto", round_trip < NEAR
        self.level: int | None = wish if wish != "auto" else None if self._near else FAR_LEVEL
        self._rates: dict[int | None, float] = {}
        # Levels that one connection tries while the others go on with what is best by now.
        self._trials: set[int | None] = set()

    @property
    def trying(self) -> bool:
        """Whether a trial is next or under way, so that little should be asked for. A far link's first guess is none."""
        return not self._fixed and (bool(self._untried()) or (self._near and not self._rates))

    def wanted(self) -> int | None:
        """The level to ask for next; then either record() or fail() is told what became of it."""
        for level in self._untried():
            if level not in self._trials:
                self._trials.add(level)
                return level
        return self.level

    def fail(self, level: int | None) -> None:
        """It came to no end: another connection may try that level."""
        self._trials.discard(level)

    def record(self, level: int | None, size: int, seconds: float) -> None:
        """``size`` bytes of the resource took ``seconds`` at that level."""
        self._rates[level] = size / max(seconds, 1e-6)
        if not self._fixed and self._rates[level] > BETTER * self._rates.get(self.level, 0.0):
            self.level = level

    def _untried(self) -> list[int | None]:
        """The neighbours of the level that is best by now whose rates are not known; none while its own is not."""
        best = self._rates.get(self.level)
        if self._fixed or best is None or (self.level is None and best > FAST) or self.level not in LEVELS:
            return []
        at = LEVELS.index(self.level)
        return [level for level in LEVELS[max(0, at - 1) : at + 2] if level not in self._rates]
