"""Upload: a request's body, within bounds."""

from __future__ import annotations

from aiohttp import web


async def upload(request: web.Request, most: int) -> bytearray | None:
    """All of the body; None as soon as it has more than ``most`` bytes."""
    body = bytearray()
    async for received in request.content.iter_any():
        body += received
        if len(body) > most:
            return None
    return body
