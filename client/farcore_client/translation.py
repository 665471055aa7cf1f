"""The one place where the errors of asyncio, ssl and aiohttp become ours: one sentence each, with what to do next."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import aiohttp

from farcore.errors import FarcoreError
from farcore_client.dumpurl import ServerUrl
from farcore_client.errors import ProtocolError, UnreachableError

_OURS: Final = 8787  # farcored's own port


@contextmanager
def translated(server: ServerUrl) -> Iterator[None]:
    """Raises UnreachableError or ProtocolError in place of what the libraries raise."""
    try:
        yield
    except TimeoutError as error:
        raise UnreachableError(
            f"{server.place} did not answer in time: is it up, and does a firewall let you through?"
        ) from error
    except (aiohttp.ClientError, OSError) as error:
        raise _ours(error, server) from error


def _ours(error: Exception, server: ServerUrl) -> FarcoreError:
    tls = _tls(error, server)
    if tls:
        return UnreachableError(tls)
    if isinstance(error, aiohttp.ClientResponseError):
        other = "https" if server.scheme == "http" else "http"
        return ProtocolError(f"what {server.place} answers is not HTTP: is this farcored's port, and not {other}://?")
    if isinstance(error, aiohttp.ServerDisconnectedError) or getattr(error, "errno", None) in (errno.ECONNRESET, errno.EPIPE):
        hint = "is it served by https://?" if server.scheme == "http" else "does it want a certificate (--cert, --key)?"
        return UnreachableError(f"{server.place} hung up without an answer; {hint}")
    if isinstance(error, aiohttp.ClientPayloadError):
        return UnreachableError(f"{server.place} cut the connection in the middle of its answer; try again")
    return UnreachableError(_unconnected(error, server))


def _tls(error: Exception, server: ServerUrl) -> str:
    # A sentence, or "" where TLS is not to blame. After the handshake aiohttp keeps only the text of an ssl.SSLError.
    known = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
    if isinstance(known, ssl.SSLCertVerificationError):
        return _distrusted(known, server)
    text = str(known)
    if not isinstance(known, ssl.SSLError) and "[SSL" not in text:
        return ""
    if "CERTIFICATE_REQUIRED" in text or "HANDSHAKE_FAILURE" in text:
        return f"{server} wants a client's certificate: give --cert FILE and --key FILE"
    if "ALERT_UNKNOWN_CA" in text or "ALERT_BAD_CERTIFICATE" in text:
        return f"{server} does not take the certificate of --cert: give one that its --tls-client-ca has signed"
    if "WRONG_VERSION_NUMBER" in text or "RECORD_LAYER_FAILURE" in text:
        return f"{server.place} speaks no TLS: write http://{server.place}"
    reason = (getattr(known, "reason", None) or text).replace("_", " ").lower()
    return f"TLS with {server.place} failed: {reason}; check --cacert, --cert and the server's certificate"


def _distrusted(error: ssl.SSLCertVerificationError, server: ServerUrl) -> str:
    why = (error.verify_message or "it cannot be verified").rstrip(".")
    # X509_V_ERR_HOSTNAME_MISMATCH and _IP_ADDRESS_MISMATCH.
    if error.verify_code in (62, 64):
        return f"the certificate of {server.place} is another name's ({why}): use a name that stands in it"
    return f"the certificate of {server.place} is not trusted ({why}): give --cacert FILE with the CA that signed it"


def _unconnected(error: Exception, server: ServerUrl) -> str:
    cause = getattr(error, "os_error", error)
    if isinstance(cause, socket.gaierror):
        return f"there is no address for the name {server.host}: {cause.strerror}; check the URL"
    number = getattr(cause, "errno", None)
    if number == errno.ECONNREFUSED:
        hint = "" if server.port == _OURS else f" (its usual port is {_OURS})"
        return f"nothing listens on {server.place}: check the URL{hint}, and whether farcored is running"
    why = os.strerror(number) if isinstance(number, int) and number > 0 else str(cause) or type(cause).__name__
    return f"{server.place} cannot be reached: {why}; check the URL and the network"
