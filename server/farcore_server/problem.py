"""Every error as application/problem+json (RFC 9457): what a handler raises becomes one answer, here and nowhere else."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from aiohttp import web

from farcore import __version__
from farcore.errors import BadDumpError, FarcoreError, FaultError, ForeignArchError, SourceChangedError

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

LOG: Final = logging.getLogger(__name__)

# Without the versions of what it runs on (RFC 9110, 10.2.4).
SERVER: Final = f"farcore/{__version__}"
TYPES: Final = "/problems/"
# The catalogue looks again within seconds; then the new version of the dump, or its absence, is what is served.
RETRY_AFTER_CHANGE: Final = 5


class Problem(Exception):
    """An answer of ``status`` 4xx or 5xx: its type is TYPES + ``slug``, ``dump`` an id, ``members`` the extensions."""

    def __init__(
        self,
        status: int,
        slug: str,
        title: str,
        detail: str,
        *,
        dump: str | None = None,
        members: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.slug, self.title, self.detail = status, slug, title, detail
        self.dump = dump
        self.members = dict(members or {})
        self.headers = dict(headers or {})

    def response(self) -> web.Response:
        """The answer. It is never stored: what is missing or refused now may be served in a minute."""
        body: dict[str, object] = {
            "type": TYPES + self.slug,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if self.dump is not None:
            body["dump"] = self.dump
        return web.Response(
            status=self.status,
            headers={"Cache-Control": "no-store", **self.headers},
            content_type="application/problem+json",
            body=json.dumps(self.members | body).encode() + b"\n",
        )


_WORD: Final = re.compile("(?<=[a-z])(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class _Row:
    status: int
    slug: str
    title: str
    # Attributes of the error that become members; an address in the protocol's "0x..." form.
    members: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)


_UNEXPECTED: Final = _Row(500, "internal", "The server failed")
_UNREADABLE: Final = _Row(500, "unreadable", "The storage failed", ("address", "kind"))
# The first row whose class fits: a subclass stands above its base.
STATUS: Final[tuple[tuple[type[FarcoreError], _Row], ...]] = (
    (FaultError, _Row(404, "unmapped", "Nothing is there", ("address", "kind"))),
    (ForeignArchError, _Row(422, "foreign-arch", "A dump of a machine that is not taken here", ("term", "machine"))),
    (BadDumpError, _Row(422, "refused", "Not a dump that can be served", ("term",))),
    # Not 409: nothing in the request is wrong, and the same one will do once the catalogue has looked again.
    (SourceChangedError, _Row(503, "changed", "The dump has changed", headers={"Retry-After": str(RETRY_AFTER_CHANGE)})),
)


def problem_of(error: FarcoreError) -> Problem:
    """The Problem that an error of core is on the wire; one that the table does not name is a 500 without its text."""
    row = next((row for kind, row in STATUS if isinstance(error, kind)), _UNEXPECTED)
    if isinstance(error, FaultError) and error.kind == "unreadable":
        row = _UNREADABLE
    members = {name: getattr(error, name) for name in row.members}
    if "address" in members:
        members["address"] = f"{members['address']:#x}"
    detail = str(error) if row is not _UNEXPECTED else "The server's log says why."
    return Problem(row.status, row.slug, row.title, detail, members=members, headers=row.headers)


@web.middleware
async def problem_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Outermost: turns what is raised below it into an answer or, once an answer's head is out, into a cut connection."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        problem = _of_http(error, request)
    except Problem as error:
        problem = error
    except FarcoreError as error:
        problem = problem_of(error)
        if problem.status >= 500:
            LOG.warning("%s %s: %s", request.method, request.raw_path, error)
    except Exception as error:
        if isinstance(error, ConnectionError) and (request.transport is None or request.transport.is_closing()):
            return _cut(request, 499)  # the client has gone; the number is nginx's, and goes to the metrics alone
        problem = problem_of(FarcoreError())
        LOG.exception("%s %s failed", request.method, request.raw_path)
    if request.writer.output_size > 0:
        # The head of another answer is out: only a cut tells the client that the rest will not come.
        LOG.warning("%s %s: the body was cut: %s", request.method, request.raw_path, problem.detail)
        return _cut(request, problem.status)
    problem.dump = problem.dump or request.match_info.get("id")
    return problem.response()


def _cut(request: web.Request, status: int) -> web.Response:
    # aiohttp finds the transport closing when it would send this, and ends quietly; an exception it would log as its own.
    if request.transport is not None:
        request.transport.close()
    return web.Response(status=status)


def _of_http(error: web.HTTPException, request: web.Request) -> Problem:
    # aiohttp's own: its headers (Allow) stay, but for those that describe the body which is replaced here.
    slug = _WORD.sub("-", type(error).__name__.removeprefix("HTTP")).lower()
    if error.status == 404:
        detail = f"There is nothing at {request.path}; the dumps are listed at /v1/dumps."
    elif isinstance(error, web.HTTPMethodNotAllowed):
        detail = f"{error.method} is not possible here; these are: {', '.join(sorted(error.allowed_methods))}."
    else:
        detail = (error.text or error.reason).removeprefix(f"{error.status}: ")
    headers = {name: value for name, value in error.headers.items() if not name.lower().startswith("content-")}
    return Problem(error.status, slug, error.reason, detail, headers=headers)
