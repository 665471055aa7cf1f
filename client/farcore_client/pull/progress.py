"""Progress: how a pull goes, for a person at a terminal (stderr), for a script (JSON lines on stdout), or for nobody."""

from __future__ import annotations

import json
import sys
import time
from types import TracebackType
from typing import Any, Final, Self

from farcore.errors import FarcoreError
from farcore_client.notice import notice
from farcore_client.output import say
from farcore_client.printable import printable, readable
from farcore_client.pull.landing import Tally

# Seconds between two lines of JSON that say how far it is.
_OFTEN: Final = 1.0
_INSTEAD: Final = "no batches of pages here ({}): what is left comes in plain ranges, with its zeros, checked by TCP alone"


class Quiet:
    """Says nothing until the end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    def start(self, **facts: Any) -> None:
        """What is pulled, from where (``path``), and how much of it was there already."""

    def progress(self, tally: Tally) -> None:
        """So much has come."""

    def retry(self, error: FarcoreError, pause: float) -> None:
        """An error that may pass."""

    def instead(self, error: FarcoreError) -> None:
        """There are no batches of pages, for this reason: what is left comes in plain ranges."""
        notice(_INSTEAD.format(error))

    def done(self, **facts: Any) -> None:
        """The file has its name."""
        say(summary(facts))


class Lines(Quiet):
    """A JSON object a line."""

    def __init__(self) -> None:
        self._next = 0.0

    def start(self, **facts: Any) -> None:
        """{"event": "start", ...}."""
        _line("start", **facts)

    def progress(self, tally: Tally) -> None:
        """{"event": "progress", ...}, once a second at most."""
        if (now := time.monotonic()) >= self._next:
            self._next = now + _OFTEN
            _line("progress", **_said(tally))

    def retry(self, error: FarcoreError, pause: float) -> None:
        """{"event": "retry", ...}."""
        _line("retry", error=printable(str(error)), seconds=pause)

    def instead(self, error: FarcoreError) -> None:
        """{"event": "instead", ...}."""
        _line("instead", error=printable(str(error)), path="ranges")

    def done(self, **facts: Any) -> None:
        """{"event": "done", ...}."""
        _line("done", **facts)


class Bar(Quiet):
    """A line that is written over."""

    def __enter__(self) -> Self:
        # Late: it takes a while, which nobody but a terminal need wait for.
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

        columns = (BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn(), TimeRemainingColumn())
        self._shown = Progress(*columns, TextColumn("{task.fields[saved]}"), console=Console(stderr=True))
        self._shown.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._shown.stop()

    def start(self, **facts: Any) -> None:
        """The bar, as far as it was there."""
        self._resumed: int = facts["resumed"]
        self._task = self._shown.add_task("pull", total=facts["size"], completed=self._resumed, saved="")

    def progress(self, tally: Tally) -> None:
        """A longer bar."""
        self._shown.update(self._task, completed=self._resumed + tally.total, saved=saved(tally))

    def retry(self, error: FarcoreError, pause: float) -> None:
        """A line of its own above the bar."""
        self._say(f"{error}; again in {pause:.0f} s")

    def instead(self, error: FarcoreError) -> None:
        """The same; the bar that was begun is the other's now."""
        self._shown.remove_task(self._task)
        self._say(_INSTEAD.format(error))

    def _say(self, sentence: str) -> None:
        self._shown.console.print(f"farcore: {printable(sentence)}", markup=False, highlight=False)


def watcher(*, as_json: bool) -> Quiet:
    """For a script, for the terminal that stderr is, or for nobody."""
    return Lines() if as_json else Bar() if sys.stderr.isatty() else Quiet()


def saved(tally: Tally) -> str:
    """What did not have to come: ``136.9 MiB zeros, 41.2 MiB came as 12.1 MiB``."""
    parts = [
        f"{readable(size)} {what}"
        for size, what in ((tally.zero, "zeros"), (tally.repeated, "repeated"), (tally.nothing, "not there"))
        if size
    ]
    return ", ".join([*parts, f"{readable(tally.data)} came as {readable(tally.wire)}"])


def summary(facts: dict[str, Any]) -> str:
    """The last line."""
    tally = Tally(*(facts[name] for name in ("data", "zero", "repeated", "nothing", "wire")))
    resumed = f", {readable(facts['resumed'])} of them from before" if facts["resumed"] else ""
    return (
        f"{facts['file']}: {readable(facts['size'])}{resumed}, in {facts['seconds']:.1f} s over {facts['path']}: {saved(tally)}"
        f"; {proof(facts['path'], facts['digests'])}"
    )


def proof(path: str, digests: int) -> str:
    """By what the bytes are known to be those of the server."""
    if path != "pages":
        return "verified by TCP alone"
    return "verified: each frame by its checksum" + (f", {digests:,} chunks by the server's manifest" if digests else "")


def _said(tally: Tally) -> dict[str, int]:
    return {
        "bytes": tally.total,
        "data": tally.data,
        "zero": tally.zero,
        "repeated": tally.repeated,
        "nothing": tally.nothing,
        "wire": tally.wire,
    }


def _line(event: str, **facts: Any) -> None:
    say(json.dumps({"event": event, **facts}))
