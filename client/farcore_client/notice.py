"""Notice: a line on stderr that is no error: what a command has chosen or waits for."""

from __future__ import annotations

import sys

from farcore_client.printable import printable


def notice(sentence: str) -> None:
    """``farcore: SENTENCE`` on stderr."""
    print(f"farcore: {printable(sentence)}", file=sys.stderr, flush=True)
