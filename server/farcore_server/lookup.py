"""From the id in a URL to a dump whose bytes may be read, or the Problem that says why not."""

from __future__ import annotations

from typing import Final

from farcore_server.catalogue import Catalogue
from farcore_server.dump import Dump
from farcore_server.opened import Opened
from farcore_server.problem import Problem

# Seconds: the index of a dump of 1 TiB takes one.
RETRY_AFTER_INDEXING: Final = 2


async def lookup(catalogue: Catalogue, dump_id: str) -> Opened:
    """The open dump; a Problem: 503 while it is indexed, 422 with the reason where it is refused, 404 where there is none."""
    found = await catalogue.open(dump_id)
    if isinstance(found, Opened):
        return found
    if isinstance(found, Dump) and found.state == "indexing":
        headers = {"Retry-After": str(RETRY_AFTER_INDEXING)}
        raise Problem(503, "indexing", "The dump is being indexed", found.reason, dump=dump_id, headers=headers)
    if isinstance(found, Dump):
        raise Problem(422, "refused", "The dump was refused", found.reason, dump=dump_id)
    raise missing(dump_id)


def missing(dump_id: str) -> Problem:
    """The 404 for an id that nobody has."""
    return Problem(404, "no-such-dump", "No such dump", "No dump has this id; /v1/dumps lists those there are.", dump=dump_id)
