"""The one place where the errors of asyncio, ssl and aiohttp become ours: one sentence each, with what to do next."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp

from farcore.errors import FarcoreError
from farcore_client.dumpurl import ServerUrl
from farcore_client.errors import ProtocolError, UnreachableError
from farcore_client.unreachable import hung_up, late, not_http, tls, unconnected


@contextmanager
def translated(server: ServerUrl) -> Iterator[None]:
    """Raises UnreachableError or ProtocolError in place of what the libraries raise."""
    try:
        yield
    except TimeoutError as error:
        raise UnreachableError(late(server)) from error
    except (aiohttp.ClientError, OSError) as error:
        raise _ours(error, server) from error


def _ours(error: Exception, server: ServerUrl) -> FarcoreError:
    if untrusted := tls(error, server):
        return UnreachableError(untrusted)
    if isinstance(error, aiohttp.ClientResponseError):
        return ProtocolError(not_http(server))
    if isinstance(error, aiohttp.ServerDisconnectedError) or getattr(error, "errno", None) in (errno.ECONNRESET, errno.EPIPE):
        return UnreachableError(hung_up(server))
    if isinstance(error, aiohttp.ClientPayloadError):
        return UnreachableError(f"{server.place} cut the connection in the middle of its answer; try again")
    return UnreachableError(unconnected(error, server))
