"""Exchange: one batch of pages asked for over a line, its answer received where it is decoded."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from http.client import HTTPException, HTTPResponse
from typing import NamedTuple

from farcore import frames
from farcore.batch import Batch
from farcore.errors import FrameError, SourceChangedError
from farcore.frames import Piece
from farcore_client.errors import CutError, ProtocolError
from farcore_client.line import Line


class Transfer(NamedTuple):
    """What an answer took: seconds until its head came, seconds of its body, bytes of that.

    ``rtt``: the kernel's own measure of the connection, in seconds, whatever a busy server adds to it; None: not known.
    """

    wait: float
    seconds: float
    size: int
    rtt: float | None


class Exchange:
    """``batch`` asked of the resource at ``path``; ``took`` is known when ``pieces`` has come to its end."""

    took: Transfer

    def __init__(self, line: Line, path: str, batch: Batch, etag: str) -> None:
        self._line, self._path, self._batch, self._etag = line, path, batch, etag
        self._received = 0

    def pieces(self) -> Iterator[tuple[int, Sequence[Piece]]]:
        """What comes, and the pieces that this completes: checked, in order. The line is closed by any error.

        SourceChangedError unless the dump is ``etag``; CutError for an answer that ends early, FrameError for a wrong one;
        BusyError where asking again may help.
        """
        batch, size = self._batch, 0
        began = time.monotonic()
        headers = {"Content-Type": frames.MEDIA_TYPE, "If-Match": self._etag}
        try:
            answer = self._line.ask("POST", self._path, headers, batch.pack())
            came, nearest = time.monotonic(), self._line.nearest()
            fields = answer.headers
            _demand_pages(answer.status, fields.get_content_type(), fields.get("ETag"), self._etag)
            decoder = frames.Decoder(batch.total, zstd=batch.level is not None, repeats=batch.repeats)
            while not decoder.complete and (got := self._receive(answer, decoder.room)):
                found = list(decoder.put(got))
                size += got
                self._received += sum(piece.length for piece in found)
                yield got, found
            if not decoder.complete:
                raise CutError("the connection was cut", received=self._received, length=batch.total)
            _demand_end(answer)
        except BaseException:
            self._line.close()
            raise
        self.took = Transfer(came - began, time.monotonic() - came, size, nearest)

    def _receive(self, answer: HTTPResponse, room: memoryview) -> int:
        """How many bytes have come; none of a body that has ended, or was cut."""
        try:
            return answer.readinto(room)
        except TimeoutError as error:
            why = f"the server was silent for {self._line.silence:g} s"
            raise CutError(why, received=self._received, length=self._batch.total) from error
        except (OSError, HTTPException):
            return 0


def _demand_pages(status: int, content_type: str, found: str | None, etag: str) -> None:
    if status != 200 or content_type != frames.MEDIA_TYPE:
        raise ProtocolError(f"a batch of pages was answered with {status} and {content_type}; is this the URL of a farcored?")
    if found != etag:
        raise SourceChangedError("the dump's file has changed since it was first looked at; open it again in a few seconds")


def _demand_end(answer: HTTPResponse) -> None:
    try:
        beyond = answer.read(1)
    except (OSError, HTTPException):
        return
    if beyond:
        raise FrameError("the answer goes on behind its end")
