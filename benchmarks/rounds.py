"""Rounds: servers measured in turns, so that what happens to the machine happens to all of them; and what is made of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple, Protocol, TypeVar


class Contender(Protocol):
    """Whatever is measured: a server, or a way of asking it."""

    @property
    def name(self) -> str: ...


C = TypeVar("C", bound=Contender)
S = TypeVar("S")


class Ratio(NamedTuple):
    """The median of one round's ratios, the least and the greatest."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"


def in_turns(contenders: Sequence[C], rounds: int, measure: Callable[[C], S]) -> dict[str, list[S]]:
    """The samples of each by its name, one a round; every second round runs backwards."""
    samples: dict[str, list[S]] = {contender.name: [] for contender in contenders}
    for number in range(rounds):
        for contender in contenders if number % 2 == 0 else reversed(contenders):
            samples[contender.name].append(measure(contender))
    return samples


def middle(samples: Sequence[S], figure: Callable[[S], float]) -> float:
    """The median of a figure."""
    return median(map(figure, samples))


def ratio(ours: Sequence[S], theirs: Sequence[S], figure: Callable[[S], float]) -> Ratio:
    """Ours over theirs, round by round."""
    each = [figure(one) / figure(other) for one, other in zip(ours, theirs, strict=True)]
    return Ratio(median(each), min(each), max(each))
