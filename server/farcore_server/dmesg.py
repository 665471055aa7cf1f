"""GET /dmesg: the kernel log of a dump as text, read in a thread once a version, and kept."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final

from aiohttp import web

from farcore.errors import NoLogError
from farcore_server import conditional, kernellog
from farcore_server.catalogue import Catalogue
from farcore_server.kernellog import Text
from farcore_server.lookup import lookup
from farcore_server.opened import Opened
from farcore_server.problem import Problem

# Bytes of texts that are kept: a kernel's log has 20 KB to a few MB.
KEPT: Final = 16 << 20


class KernelLogs:
    """The handler, over one catalogue."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self._kept: OrderedDict[str, Text] = OrderedDict()
        self._reading: dict[str, asyncio.Task[Text]] = {}

    async def dmesg(self, request: web.Request) -> web.Response:
        """The log; where the dump's own cannot be read, the text beside it, which its first line says."""
        opened = await lookup(self.catalogue, request.match_info["id"])
        dump = opened.dump
        if (unchanged := conditional.current(request, dump)) is not None:
            return unchanged
        text = self._kept.get(dump.etag) or await self._read(opened)
        opened.demand_unchanged()
        headers = conditional.fields(dump)
        if text.name is not None:
            # Another file's bytes, which change without the dump.
            headers |= {"Cache-Control": "no-store"}
            del headers["ETag"]
        headers["Farcore-Log"] = text.source
        return web.Response(body=text.content, content_type="text/plain", charset="utf-8", headers=headers)

    async def _read(self, opened: Opened) -> Text:
        """The text, read once for all who ask at the same time."""
        dump = opened.dump
        task = self._reading.get(dump.etag)
        if task is None:
            task = asyncio.create_task(asyncio.to_thread(kernellog.read, dump, opened.files))
            self._reading[dump.etag] = task
            task.add_done_callback(lambda _: self._reading.pop(dump.etag, None))
        try:
            text = await asyncio.shield(task)
        except NoLogError as error:
            detail = f"{_sentence(error)}; no vmcore-dmesg.txt lies beside the dump."
            raise Problem(404, "no-log", "No kernel log", detail, dump=dump.id) from error
        if text.name is None:
            self._keep(dump.etag, text)
        return text

    def _keep(self, etag: str, text: Text) -> None:
        self._kept[etag] = text
        while len(self._kept) > 1 and sum(len(each.content) for each in self._kept.values()) > KEPT:
            self._kept.popitem(last=False)


def _sentence(error: NoLogError) -> str:
    text = str(error)
    return text[:1].upper() + text[1:]
