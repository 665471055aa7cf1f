"""Uses dumps that lie on another machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from farcore_client.credentials import Credentials
    from farcore_client.file import RemoteFile


def open(url: str, credentials: Credentials | None = None, cache: str | None = None) -> RemoteFile:  # noqa: A001
    """The dump at ``url`` (http://host:port/v1/dumps/ID) as a binary file, with ``size``, ``pread`` and ``physical[a:b]``.

    Without ``credentials`` the token is FARCORE_TOKEN's, if there is one. ``cache``: DIR or DIR,SIZE (8G), where what is read
    stays for later sessions; by default FARCORE_CACHE's, "" for none. Any FarcoreError of a server that cannot be had.
    """
    from farcore_client.file import open_url  # late: numpy and aiohttp come with it

    return open_url(url, credentials, cache)
