"""The tree of errors. Each carries its facts as attributes; its text is one sentence for a person."""

from __future__ import annotations

from typing import Final, Literal

Space = Literal["physical", "virtual", "vmcore", "stored"]
FaultKind = Literal["absent", "excluded", "unreadable"]


_WHY: Final[dict[FaultKind, str]] = {
    "absent": "absent: nothing in the dump describes them",
    "excluded": "excluded: the dump's writer left them out",
    "unreadable": "unreadable: the storage failed, or what it holds is damaged",
}


class FarcoreError(Exception):
    """Base of every error that farcore raises on purpose."""


class BadDumpError(FarcoreError, ValueError):
    """The bytes are not a dump that can be served; ``term`` names the check that failed (arch.TERMS, "segments" ...)."""

    def __init__(self, detail: str, *, term: str) -> None:
        super().__init__(detail)
        self.detail = detail
        self.term = term


class ForeignArchError(BadDumpError):
    """A sound dump of a machine that this host's rules do not take; ``machine`` is its e_machine by name."""

    def __init__(self, detail: str, *, machine: str) -> None:
        super().__init__(detail, term="arch")
        self.machine = machine


class FaultError(FarcoreError, LookupError):
    """Bytes that are not there: ``length`` bytes from ``address`` on in ``space``, and why (``kind``).

    absent: nothing describes them; excluded: left out by the dump's writer; unreadable: the storage failed.
    """

    def __init__(self, *, address: int, length: int, space: Space, kind: FaultKind) -> None:
        super().__init__(f"{length:,} bytes at {space} address {address:#x} are {_WHY[kind]}")
        self.address = address
        self.length = length
        self.space = space
        self.kind = kind


class SourceChangedError(FarcoreError, OSError):
    """What holds the bytes is no longer what was opened: truncated, replaced or written to."""


class NoLogError(FarcoreError, LookupError):
    """A dump whose kernel log cannot be found, or is no log where it should be; the text says what is missing."""


class FrameError(FarcoreError, ValueError):
    """Bytes that are not the batch of pages, or the answer to one, that they should be; what they held is not to be used."""


class BadProfileError(FarcoreError, ValueError):
    """Bytes that are not a profile of what sessions read."""


class SettingsError(FarcoreError, ValueError):
    """A flag, an environment variable or a line of the configuration that cannot be taken."""
