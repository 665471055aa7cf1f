from __future__ import annotations

from dataclasses import dataclass

from benchmarks.rounds import in_turns, ratio


@dataclass(frozen=True)
class Runner:
    name: str


def test_every_second_round_runs_backwards() -> None:
    order: list[str] = []
    in_turns([Runner("a"), Runner("b"), Runner("c")], 3, lambda runner: order.append(runner.name))
    assert "".join(order) == "abccbaabc"


def test_a_ratio_is_of_samples_of_the_same_round() -> None:
    # Twice as fast in each round, whatever the machine did meanwhile.
    assert ratio([2.0, 20.0, 4.0], [1.0, 10.0, 2.0], float) == (2.0, 2.0, 2.0)
    assert ratio([1.0, 3.0, 8.0], [1.0, 1.0, 1.0], float) == (3.0, 1.0, 8.0)
