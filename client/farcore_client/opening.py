"""Opening: what is asked first of a dump, all of it in one round trip, while what reads the answers is still imported.

numpy and the doors take longer to import than a server far away to answer. Nothing here needs either.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Final, NamedTuple, TypeVar

from farcore.errors import FarcoreError, SourceChangedError
from farcore.source import Extent
from farcore_client.aside import aside
from farcore_client.cachedir import CacheDir
from farcore_client.credentials import Credentials
from farcore_client.dumpurl import DumpUrl
from farcore_client.errors import ProtocolError
from farcore_client.fields import Fields
from farcore_client.line import Line, Lines, fields_of
from farcore_client.partial import Resource, resource, strong, version

# Seconds without a byte from a server until a request is given up and made again.
SILENCE: Final = 30.0
# Of the vmcore: header, notes and VMCOREINFO of nearly every dump, and all that the kernel reads first of a mounted file; in
# halves, as a new connection carries no more than 14 KiB in one round trip.
START: Final = 16 << 10
HALF: Final = START // 2
# Connections more than there are questions, so that the first misses need not wait for theirs.
SPARE: Final = 1
_QUERY: Final = "?normalised"
T = TypeVar("T")


class Opened(NamedTuple):
    """``dump`` as a list has it, the one ``etag`` of all resources, their ``sizes``, and the first bytes of the vmcore."""

    dump: Fields
    etag: str
    sizes: dict[str, int]
    start: bytes


class Opening:
    """Asks at once, in threads of its own; ``lines`` has the connections afterwards. The others are as ``connect`` has them."""

    def __init__(
        self, url: DumpUrl, credentials: Credentials, *, normalised: bool = False, cache: CacheDir | None = None
    ) -> None:
        self.url, self.normalised, self.cache = url, normalised, cache
        self.lines = Lines(url.server, credentials, SILENCE)
        vmcore = f"{url.path}/vmcore{_QUERY if normalised else ''}"
        self._described = self._ask(lambda line: line.json(f"{url.path}?brief", {}))
        self._physical = self._ask(lambda line: _head(line, f"{url.path}/memory/physical"))
        self._vmcore = self._ask(lambda line: _head(line, vmcore)) if normalised else None
        halves = (Extent(at, HALF) for at in range(0, START, HALF))
        self._start = [self._ask(partial(_some, path=vmcore, wanted=half)) for half in halves]
        for _ in range(SPARE):
            self._ask(Line.connect)

    def wait(self) -> Opened:
        """What was answered; any FarcoreError of a server that cannot be had."""
        # The description's words are about the dump as a whole, and so come first.
        dump = Fields(self._described.result())
        etag = strong(dump.text("etag"))
        sizes = {"vmcore": _size(dump, "size"), "stored": _size(dump, "stored_size")}
        for space, head in (("physical", self._physical), ("vmcore", self._vmcore)):
            if head is None:
                continue
            found = head.result()
            sizes[space] = found.size
            if found.etag != etag:
                raise SourceChangedError(f"{self.url} was replaced just now; open it again in a few seconds")
        start, this = b"", Resource(sizes["vmcore"], etag)
        for each in self._start:
            its, content = each.result()
            if its != this:
                break
            start += content
        return Opened(dump, etag, sizes, start)

    def _ask(self, job: Callable[[Line], T]) -> Future[T]:
        """The job's result, over a line of its own."""

        def run(line: Line) -> T:
            try:
                result = job(line)
            except BaseException:
                line.close()
                raise
            self.lines.give_back(line)
            return result

        return aside(partial(run, self.lines.take()))


def _head(line: Line, path: str) -> Resource:
    """Size and ETag of the byte resource at ``path``."""
    try:
        answer = line.ask("HEAD", path)
        answer.close()  # it has no body, and the line is used again
        return resource(fields_of(answer))
    except FarcoreError:
        line.close()
    # A refusal of HEAD has no words; the same question as GET has.
    line.ask("GET", path, {"Range": "bytes=0-0"})
    raise ProtocolError(f"{line.server} has no answer to HEAD {path}; is something between here and farcored?")


def _some(line: Line, path: str, wanted: Extent) -> tuple[Resource | None, bytes]:
    """The version of the resource, and these bytes of it; nothing where they are not to be had: a read will say why."""
    try:
        answer = line.ask("GET", path, {"Range": f"bytes={wanted.offset}-{wanted.offset + wanted.length - 1}"})
        found = version(answer.status, fields_of(answer), wanted)
        return found, line.read(answer, wanted.length)
    except FarcoreError:
        line.close()
        return None, b""


def _size(dump: Fields, name: str) -> int:
    size = dump.number(name)
    if size is None or size >= 1 << 63:
        raise ProtocolError(f"the server's description of the dump has no {name}; is this the URL of a farcored?")
    return size
