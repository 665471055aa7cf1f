"""What HEAD and 206 must say of a byte resource before a byte of it is believed. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from farcore.errors import SourceChangedError
from farcore.source import Extent
from farcore_client.errors import ProtocolError

_STRONG: Final = re.compile(r'"[!#-~]*"')
_SIZE: Final = re.compile(r"[0-9]{1,20}", re.ASCII)


class Resource(NamedTuple):
    """A version of a byte resource: ``size`` in bytes, and its strong ETag with the quotes."""

    size: int
    etag: str


def resource(headers: Mapping[str, str]) -> Resource:
    """What the answer to HEAD says; ProtocolError where it lacks a length or a strong ETag."""
    size, etag = headers.get("Content-Length", ""), headers.get("ETag", "")
    if not _SIZE.fullmatch(size) or not _STRONG.fullmatch(etag):
        raise ProtocolError("the answer to HEAD has no length or no strong ETag; is this the URL of a farcored?")
    return Resource(int(size), etag)


def strong(etag: str) -> str:
    """The ETag if it is a strong one; ProtocolError otherwise."""
    if not _STRONG.fullmatch(etag):
        raise ProtocolError("the server names no version of the dump (a strong ETag); is this the URL of a farcored?")
    return etag


def version(status: int, headers: Mapping[str, str], wanted: Extent) -> Resource:
    """What the answer to a range, in which the resource may end, says of it; ProtocolError where it is none of that range."""
    found = re.fullmatch(r"bytes ([0-9]{1,20})-([0-9]{1,20})/([0-9]{1,20})", headers.get("Content-Range", ""), re.ASCII)
    etag, (offset, length) = headers.get("ETag", ""), wanted
    if status == 206 and found is not None and _STRONG.fullmatch(etag):
        first, last, size = map(int, found.groups())
        if first == offset and last + 1 == min(offset + length, size):
            return Resource(size, etag)
    raise ProtocolError("the answer to a range is none, or has no strong ETag; is this the URL of a farcored?")


def demand(status: int, headers: Mapping[str, str], wanted: Extent, version: Resource) -> None:
    """ProtocolError unless the answer is exactly ``wanted``, of this version and as it is; SourceChangedError for another."""
    if status != 206:
        raise ProtocolError(
            f"the server answered {status} to a range, not 206: something between here and farcored drops Range"
        )
    if headers.get("ETag", version.etag) != version.etag:
        raise SourceChangedError(
            "the dump's file has changed since it was first looked at; run the command again in a few seconds"
        )
    last = wanted.offset + wanted.length - 1
    expected = {
        "Content-Range": (f"bytes {wanted.offset}-{last}/{version.size}",),
        "Content-Length": (str(wanted.length), ""),
        "Content-Encoding": ("", "identity"),
    }
    for name, values in expected.items():
        found = headers.get(name, "")
        if found not in values:
            raise ProtocolError(f"another range came than was asked for: {name} is {found!r}, expected {values[0]!r}")
