"""PlainUrl: of a file on any HTTP server, with whatever path and query it has; it is never left, as a dump's is not."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote

from farcore.errors import SettingsError
from farcore_client.dumpurl import ServerUrl

_URL: Final = re.compile(r"(?P<server>https?://[^/?#]*)(?P<path>/[^?#]*)(?P<query>\?[^#]*)?", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PlainUrl:
    """``path`` and ``query`` as they were written; the query may be a secret (a presigned URL), and is never shown."""

    server: ServerUrl
    path: str
    query: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"{self.server}{self.path}"

    @property
    def target(self) -> str:
        """What a request line asks for."""
        return self.path + self.query

    @property
    def name(self) -> str:
        """The last part of the path, safe as a file name."""
        name = unquote(self.path.rpartition("/")[2], errors="replace")
        return "".join(one if one.isprintable() and one != "/" else "_" for one in name)

    @classmethod
    def parse(cls, text: str) -> PlainUrl:
        """The URL; SettingsError says how it must be written."""
        if not re.fullmatch(r"[!-~]+", text):
            raise SettingsError("a URL has neither blanks nor characters outside ASCII: write http://HOST/FILE")
        found = _URL.fullmatch(text)
        if found is None:
            raise SettingsError("this is not the URL of a file: write http://HOST/FILE or https://HOST/FILE?QUERY")
        url = cls(ServerUrl.parse(found["server"]), found["path"], found["query"] or "")
        if url.name.strip(".") == "":
            raise SettingsError(f"{url} names no file: write the URL of one, or of a dump, {url.server}/v1/dumps/ID")
        return url
