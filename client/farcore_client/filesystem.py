"""FarcoreFileSystem: fsspec's way to a server's dumps: ``fsspec.open("farcore://host:port/ID")``, for dask and the like.

``farcore+https://`` for TLS. fsspec's own caches are not used: pages are cached below, and its MMapCache can answer zeros.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

from fsspec.spec import AbstractFileSystem

from farcore.errors import FarcoreError
from farcore.source import Extent
from farcore_client.credentials import Credentials, token
from farcore_client.dumpurl import DumpUrl, ServerUrl
from farcore_client.errors import RefusedError
from farcore_client.file import RemoteFile
from farcore_client.loop import run
from farcore_client.remote import RemoteDump, connect
from farcore_client.session import Session

# Dumps that one file system keeps open, each with its cache.
_MOST_OPEN: Final = 8
_CACHE: Final = 64 << 20


class FarcoreFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """Read-only; a path is host:port/ID. Storage options: ``token_file``, ``cacert``, ``cert``, ``key``; else FARCORE_TOKEN."""

    protocol: ClassVar[tuple[str, ...]] = ("farcore",)
    scheme: ClassVar[Literal["http", "https"]] = "http"
    root_marker = ""

    def __init__(
        self,
        *,
        token_file: str | None = None,
        cacert: str | None = None,
        cert: str | None = None,
        key: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        shown = token(Path(token_file) if token_file else None, os.environ)
        self._credentials = Credentials(shown, *(Path(each) if each else None for each in (cacert, cert, key)))
        self._open_dumps: dict[str, RemoteDump] = {}

    def ls(self, path: str, detail: bool = True, **options: Any) -> list[Any]:
        """The dumps of the server ``host:port``, or the one that is named."""
        server, _, name = self._strip_protocol(path).strip("/").partition("/")
        if name:
            found = [self.info(path)]
        else:
            dumps = run(self._dumps(ServerUrl.parse(f"{self.scheme}://{server}")))
            found = [_entry(f"{server}/{dump['id']}", dump) for dump in dumps if isinstance(dump.get("id"), str)]
        return found if detail else [entry["name"] for entry in found]

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        """name, size, type, ETag, mtime; FileNotFoundError where there is no such dump."""
        path = self._strip_protocol(path).strip("/")
        if "/" not in path:
            return {"name": path, "size": 0, "type": "directory"}
        return _entry(path, self._remote(path).dump.members)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        """The bytes [start, end) of the vmcore, either of them None, or counted from the end."""
        (found,) = self.cat_ranges([path], [start], [end])
        return bytes(found)

    def cat_ranges(
        self,
        paths: Sequence[str],
        starts: int | Iterable[int | None] | None,
        ends: int | Iterable[int | None] | None,
        max_gap: int | None = None,
        on_error: str = "raise",
        **options: Any,
    ) -> list[Any]:
        """The ranges of each dump in one round trip."""
        lows, highs = (list(each) if isinstance(each, Iterable) else [each] * len(paths) for each in (starts, ends))
        wanted: dict[str, list[int]] = {}
        for number, path in enumerate(paths):
            wanted.setdefault(self._strip_protocol(path), []).append(number)
        found: list[Any] = [b""] * len(paths)
        for path, numbers in wanted.items():
            try:
                vmcore = self._remote(path).vmcore
                for number, view in zip(
                    numbers, vmcore.preadv([_extent(vmcore.size, lows[n], highs[n]) for n in numbers]), strict=True
                ):
                    found[number] = bytes(view)
            except (FarcoreError, OSError) as error:
                if on_error == "raise":
                    raise
                for number in numbers:
                    found[number] = error
        return found

    def _open(self, path: str, mode: str = "rb", **options: Any) -> RemoteFile:
        if mode not in ("rb", "r"):
            raise OSError("dumps are read, and never written to: open it with mode rb")
        return RemoteFile(self._remote(path), owned=False)

    def _remote(self, path: str) -> RemoteDump:
        path = self._strip_protocol(path).strip("/")
        remote = self._open_dumps.pop(path, None)
        if remote is None:
            server, _, name = path.partition("/")
            url = DumpUrl.parse(f"{self.scheme}://{server}/v1/dumps/{name}")
            try:
                remote = connect(url, self._credentials, cache_bytes=_CACHE)
            except RefusedError as error:
                if error.status != 404:
                    raise
                raise FileNotFoundError(str(error)) from error
        self._open_dumps[path] = remote
        while len(self._open_dumps) > _MOST_OPEN:
            self._open_dumps.pop(next(iter(self._open_dumps))).close()
        return remote

    async def _dumps(self, server: ServerUrl) -> list[dict[str, Any]]:
        async with Session(server, self._credentials) as session:
            return await session.dumps()


class SecureFarcoreFileSystem(FarcoreFileSystem):
    """The same over TLS."""

    protocol: ClassVar[tuple[str, ...]] = ("farcore+https",)
    scheme: ClassVar[Literal["http", "https"]] = "https"


def _entry(path: str, dump: Any) -> dict[str, Any]:
    return {
        "name": path,
        "size": dump.get("size"),
        "type": "file",
        "ETag": dump.get("etag"),
        "mtime": dump.get("modified"),
        "kernel_release": dump.get("kernel_release"),
    }


def _extent(size: int, start: int | None, end: int | None) -> Extent:
    low, high, _ = slice(start, end).indices(size)
    return Extent(low, max(0, high - low))
