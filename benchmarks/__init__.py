"""farcore side by side with nginx: `make bench`, or `python -m benchmarks --help` for a part of it.

Nothing here is imported by the packages. Every figure is a ratio to a peer measured in the same run, in turns.
"""


class BenchmarkError(Exception):
    """Why a figure cannot be had, in a sentence; the run ends with it."""
