"""debuginfod: a vmlinux by its build-id, from the servers of DEBUGINFOD_URLS, kept where debuginfod-find keeps its files.

The web API is elfutils' (debuginfod(8), "WEBAPI"): GET URL/buildid/ID/debuginfo. Its own client library is not used: a program
that has it need not be installed, and its Python binding does not exist.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

import aiohttp

from farcore import __version__
from farcore.errors import FarcoreError
from farcore_client.notice import notice
from farcore_client.printable import readable

# The largest vmlinux with DWARF (allyesconfig) has about 3 GiB; a server that sends without end is cut there.
MAX_SIZE: Final = 8 << 30
CONNECT: Final = 15.0  # seconds
# Seconds without a byte: a server may first unpack a package of a gigabyte.
SILENCE: Final = 90.0
_PIECE: Final = 1 << 20

Progress = Callable[[int, int | None], None]
# Raises for a file that is not to be kept.
Accept = Callable[[Path], None]


class DownloadError(FarcoreError, OSError):
    """A file that could not be fetched or kept."""


def servers(environment: Mapping[str, str]) -> list[str]:
    """The URLs in DEBUGINFOD_URLS, less what is no web address (elfutils also has words such as ima:enforcing there)."""
    words = environment.get("DEBUGINFOD_URLS", "").split()
    return [word.rstrip("/") for word in words if word.startswith(("http://", "https://"))]


def cache(environment: Mapping[str, str]) -> Path:
    """The folder of debuginfod-find's files (debuginfod_find_debuginfo(3))."""
    if named := environment.get("DEBUGINFOD_CACHE_PATH"):
        return Path(named)
    if home := environment.get("XDG_CACHE_HOME"):
        return Path(home) / "debuginfod_client"
    return Path(environment.get("HOME") or "~").expanduser() / ".cache" / "debuginfod_client"


async def fetch(build_id: str, asked: Sequence[str], folder: Path, accept: Accept) -> Path | None:
    """The file with the symbols of ``build_id``, from ``folder`` or the first server that has it; None where none has.

    It is kept only whole, and once ``accept`` has seen it. DownloadError where it cannot be written.
    """
    kept = folder / build_id / "debuginfo"
    # A failed search of elfutils' own leaves an empty file.
    with suppress(OSError):
        if kept.stat().st_size:
            return kept
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT, sock_read=SILENCE)
    headers = {"User-Agent": f"farcore/{__version__}"}
    async with aiohttp.ClientSession(timeout=timeout, headers=headers, trust_env=True) as client:
        for server in asked:
            if await _from(client, server, build_id, kept, accept):
                return kept
    return None


async def _from(client: aiohttp.ClientSession, server: str, build_id: str, kept: Path, accept: Accept) -> bool:
    """Whether ``server`` had it; then it is in place, whole."""
    url = f"{server}/buildid/{build_id}/debuginfo"
    try:
        async with client.get(url) as answer:
            if answer.status == 404:
                return False
            if answer.status != 200:
                notice(f"{server} answers {answer.status} to the question for a vmlinux; going on without it")
                return False
            notice(f"fetching the vmlinux of build-id {build_id} from {server}")
            await _kept(answer, kept, accept)
    except (aiohttp.ClientError, TimeoutError) as error:
        notice(f"{server} did not give the vmlinux ({str(error) or 'it was silent'}); going on without it")
        return False
    return True


async def _kept(answer: aiohttp.ClientResponse, kept: Path, accept: Accept) -> None:
    shown = _progress if sys.stderr.isatty() else _silent
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=kept.parent, prefix="debuginfo.", delete=False) as part:
            try:
                await _copied(answer, part, shown)
                accept(Path(part.name))
                os.replace(part.name, kept)
            except BaseException:
                os.unlink(part.name)
                raise
    except OSError as error:
        if isinstance(error, (aiohttp.ClientError, TimeoutError, FarcoreError)):
            raise
        raise DownloadError(f"{kept} cannot be written: {error.strerror}; DEBUGINFOD_CACHE_PATH names another place") from error


async def _copied(answer: aiohttp.ClientResponse, part: IO[bytes], shown: Progress) -> None:
    done = 0
    # Of what is packed on the way (Content-Encoding) the header tells the packed size.
    total = answer.content_length if "Content-Encoding" not in answer.headers else None
    async for piece in answer.content.iter_chunked(_PIECE):
        done += len(piece)
        if done > MAX_SIZE:
            raise DownloadError(f"the vmlinux has more than {readable(MAX_SIZE)}; is this a debuginfod?")
        part.write(piece)
        shown(done, total)
    part.flush()


def _progress(done: int, total: int | None) -> None:
    end = "\n" if done == total else ""
    whole = f" of {readable(total)}" if total else ""
    print(f"\r  {readable(done)}{whole} ", end=end, file=sys.stderr, flush=True)


def _silent(done: int, total: int | None) -> None:
    pass
