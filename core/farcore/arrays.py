"""Arrays: numpy.typing's NDArray by another name, as to import numpy.typing takes 5 ms of a command's start."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

_Scalar = TypeVar("_Scalar", bound=np.generic)
Array = np.ndarray[tuple[Any, ...], np.dtype[_Scalar]]
