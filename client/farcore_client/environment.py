"""Environment: what this process sets for itself, and the program that child() runs is not given."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

# numpy's BLAS, which nothing here uses, starts a thread for each core as it is imported; they spin for 0.1 s of CPU.
_OWN: Final[Mapping[str, str]] = {"OPENBLAS_NUM_THREADS": "1"}
_set: set[str] = set()


def prepare() -> None:
    """Set what nobody has set; before numpy is imported."""
    for name, value in _OWN.items():
        if name not in os.environ:
            os.environ[name] = value
            _set.add(name)


def passed_on() -> dict[str, str]:
    """The environment as it was given to us."""
    return {name: value for name, value in os.environ.items() if name not in _set}
