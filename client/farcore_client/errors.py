"""What a client adds to the tree of errors (farcore.errors): the ways in which another machine disappoints."""

from __future__ import annotations

from farcore.errors import FarcoreError


class UnreachableError(FarcoreError, ConnectionError):
    """No answer: nothing listens, the name is unknown, TLS failed, or time ran out."""


class RefusedError(FarcoreError):
    """The server answered with an error; ``status`` is HTTP's, ``slug`` the last word of its problem type ("" without one)."""

    def __init__(self, detail: str, *, status: int, slug: str = "") -> None:
        super().__init__(detail)
        self.status, self.slug = status, slug


class BusyError(RefusedError):
    """The server, or a proxy before it, cannot answer now; ``after``: the seconds it asks for (0: none)."""

    def __init__(self, detail: str, *, status: int, after: float = 0.0) -> None:
        super().__init__(detail, status=status)
        self.after = after


class ProtocolError(FarcoreError, ValueError):
    """An answer that no farcored gives."""


class CutError(FarcoreError, ConnectionError):
    """A body that ended early: ``received`` of ``length`` bytes came."""

    def __init__(self, why: str, *, received: int, length: int) -> None:
        super().__init__(f"only {received:,} of {length:,} bytes came: {why}; ask again")
        self.received, self.length = received, length


class MissingToolError(FarcoreError, LookupError):
    """A program or a module that a door needs is not on this machine; the sentence says what to install."""
