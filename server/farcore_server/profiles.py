"""Profiles: what sessions on a kernel build read, kept for the next session on any dump of that build."""

from __future__ import annotations

import asyncio
import re
from typing import Final

from aiohttp import web

from farcore.errors import BadProfileError
from farcore.profile import MAX_SIZE, Profile
from farcore_server.problem import Problem
from farcore_server.state import State
from farcore_server.upload import upload

KIND: Final = "profiles"
# A build-id, or a digest that stands for it: hex, as vmcoreinfo.build_id has it.
_BUILD_ID: Final = re.compile(r"(?:[0-9a-f]{2}){4,32}")


class Profiles:
    """Handlers of /v1/profiles/{build_id}. Workers share the directory; of two merges in one moment one may be lost."""

    def __init__(self, state: State) -> None:
        self.state = state

    async def get(self, request: web.Request) -> web.Response:
        """The profile, JSON."""
        found = await asyncio.to_thread(self._load, _build_id(request))
        if found is None:
            raise Problem(404, "no-profile", "No such profile", "No session on this kernel build has left a profile here yet.")
        return web.Response(
            body=found.pack(), content_type="application/json", charset="utf-8", headers={"Cache-Control": "private, no-cache"}
        )

    async def put(self, request: web.Request) -> web.Response:
        """Merge what further sessions read into what is known."""
        build_id = _build_id(request)
        body = await upload(request, MAX_SIZE)
        if body is None:
            detail = f"A profile has at most {MAX_SIZE:,} bytes."
            raise Problem(413, "profile-too-large", "Too much for a profile", detail)
        try:
            await asyncio.to_thread(self._merge, build_id, bytes(body))
        except BadProfileError as error:
            raise Problem(400, "bad-profile", "Not a profile", f"{error}.") from error
        return web.Response(status=204)

    def _load(self, build_id: str) -> Profile | None:
        raw = self.state.load(KIND, build_id)
        try:
            return None if raw is None else Profile.parse(raw)
        except BadProfileError:  # another version wrote it
            return None

    def _merge(self, build_id: str, body: bytes) -> None:
        later = Profile.parse(body)
        self.state.save(KIND, build_id, (self._load(build_id) or Profile()).merged(later).pack())


def _build_id(request: web.Request) -> str:
    build_id = request.match_info["build_id"]
    if not _BUILD_ID.fullmatch(build_id):
        detail = "A build-id is 8 to 64 digits of lower-case hex, as a Dump's build_id is."
        raise Problem(404, "not-found", "Not found", detail)
    return build_id
