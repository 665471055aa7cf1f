"""Conditions on what is derived from a dump as a whole (its log, its map): its ETag stands for that as well."""

from __future__ import annotations

import time

from aiohttp import web

from farcore_server import conditions
from farcore_server.conditions import NotModified, Outcome, PreconditionFailed
from farcore_server.dump import Dump
from farcore_server.problem import Problem


def fields(dump: Dump) -> dict[str, str]:
    """The header fields of such an answer."""
    return {"ETag": dump.etag, "Cache-Control": "private, no-cache", "X-Content-Type-Options": "nosniff"}


def current(request: web.Request, dump: Dump) -> web.Response | None:
    """The answer 304 where the client's copy is current; None to go on; Problem (412) where a condition is false."""
    outcome = demand(request, dump)
    return web.Response(status=304, headers=fields(dump)) if isinstance(outcome, NotModified) else None


def demand(request: web.Request, dump: Dump) -> Outcome:
    """What the conditions come to; Problem (412) where one is false."""
    outcome = conditions.evaluate(request.method, request.headers, dump.etag, dump.identity.modified, int(time.time()))
    if isinstance(outcome, PreconditionFailed):
        detail = f"{outcome.field} does not hold: the dump's ETag is {dump.etag}."
        raise Problem(412, "changed", "Precondition failed", detail, dump=dump.id, headers={"ETag": dump.etag})
    return outcome
