"""Refusal: an answer that is not what was asked for as an error of ours, whose sentence says what to do next. Pure.

farcored says application/problem+json (RFC 9457). Of what anybody else says only the status is shown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from farcore.errors import FarcoreError, FaultError, FaultKind, SourceChangedError, Space
from farcore_client.dumpurl import ServerUrl
from farcore_client.errors import BusyError, ProtocolError, RefusedError
from farcore_client.fields import Fields

# Bytes of a refusal's body that are read.
MAX_PROBLEM: Final = 16 << 10

# A server that is busy, or starts, or a proxy's word for one that is not there: the same question may be asked again.
_LATER: Final = (429, 502, 503, 504)
_TYPES: Final = "/problems/"
_KINDS: Final[dict[str, FaultKind]] = {"absent": "absent", "excluded": "excluded", "unreadable": "unreadable"}


def refusal(
    status: int, content_type: str, body: bytes, server: ServerUrl, *, space: Space | None, length: int = 0, token: bool = False
) -> FarcoreError:
    """The error that an answer is. ``space`` and ``length`` are what was asked for, ``token``: whether one was shown.

    FaultError for what is not mapped, SourceChangedError for another version of the dump, ProtocolError for an answer of
    something else than farcored, else RefusedError.
    """
    problem = _problem(content_type, body)
    if problem is None:
        return _foreign(status, server)
    slug = problem.text("type").removeprefix(_TYPES)
    detail = (problem.text("detail") or problem.text("title")).rstrip(".")
    address, kind = problem.number("address"), _KINDS.get(problem.text("kind"))
    if space and address is not None and kind:
        return FaultError(address=address, length=length, space=space, kind=kind)
    if status == 412 or slug == "changed":
        return SourceChangedError(
            "the dump's file has changed since it was first looked at; run the command again in a few seconds"
        )
    return RefusedError(_sentence(status, slug, detail, server, token=token), status=status, slug=slug)


def _sentence(status: int, slug: str, detail: str, server: ServerUrl, *, token: bool) -> str:
    match status, slug:
        case 401, _ if token:
            return "the server does not take this token (unknown or revoked): `farcored token add NAME` makes another there"
        case 401, _:
            return "the server wants a token: give --token-file FILE or set FARCORE_TOKEN (`farcored token add NAME` makes one)"
        case 404, "no-such-dump":
            return f"the server has no dump with this id: `farcore ls {server}` shows those that there are"
        case 404, "no-log":
            return f"there is no kernel log of this dump: {detail}"
        case 421, _:
            return f"{server.host} is no name that this server answers to: {detail}"
        case 422, _:
            return f"the server refused this dump: {detail} (`farcore info` shows its header check)"
        case 503, _:
            return f"the server is not ready to answer: {detail}; try again in a moment"
        case _:
            return f"the server said {_status(status)}: {detail}"


def _problem(content_type: str, body: bytes) -> Fields | None:
    if content_type.partition(";")[0].strip().lower() != "application/problem+json":
        return None
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return Fields(found) if isinstance(found, dict) else None


def _foreign(status: int, server: ServerUrl) -> FarcoreError:
    # A proxy's or another server's page: its words are about something else.
    if status == 401:
        return RefusedError(f"{server} wants a login that is not farcored's; is this its URL?", status=status)
    return ProtocolError(f"{server} answered {_status(status)} without farcored's words; is this the URL of a farcored?")


def _status(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def redirected(headers: Mapping[str, str], server: ServerUrl) -> ProtocolError:
    """The error that an answer of 3xx is."""
    to = headers.get("Location", "nowhere")[:200]
    return ProtocolError(f"{server} sends you on to {to}: farcore follows nobody; name that URL if you trust it")


def members(body: bytes, server: ServerUrl, path: str) -> dict[str, Any]:
    """What an answer of JSON says; ProtocolError for one that is no object."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ProtocolError(f"{server}{path} is not the JSON of a farcored; check the URL")
    return found


def demand_idle(status: int, headers: Mapping[str, str], server: ServerUrl) -> None:
    """BusyError for an answer that says so, or that the server failed this once."""
    if status in (408, 500, *_LATER):
        said = headers.get("Retry-After", "")
        after = float(said) if re.fullmatch(r"[0-9]{1,6}", said, re.ASCII) else 0.0
        raise BusyError(f"{server} answered {status} and may answer later", status=status, after=after)
