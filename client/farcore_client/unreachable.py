"""Unreachable: why a server did not answer, as a sentence with what to do next. Pure, and quickly imported."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from typing import Final

from farcore_client.dumpurl import ServerUrl

_OURS: Final = 8787  # farcored's own port


def tls(error: Exception, server: ServerUrl) -> str:
    """A sentence, or "" where TLS is not to blame."""
    # After the handshake aiohttp keeps only the text of an ssl.SSLError.
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


def hung_up(server: ServerUrl) -> str:
    """For a connection that ended before there was an answer."""
    hint = "is it served by https://?" if server.scheme == "http" else "does it want a certificate (--cert, --key)?"
    return f"{server.place} hung up without an answer; {hint}"


def late(server: ServerUrl) -> str:
    """For an answer that did not come."""
    return f"{server.place} did not answer in time: is it up, and does a firewall let you through?"


def not_http(server: ServerUrl) -> str:
    """For an answer of something else."""
    other = "https" if server.scheme == "http" else "http"
    return f"what {server.place} answers is not HTTP: is this farcored's port, and not {other}://?"


def unconnected(error: Exception, server: ServerUrl) -> str:
    """For a connection that could not be made."""
    cause = getattr(error, "os_error", error)
    if isinstance(cause, socket.gaierror):
        return f"there is no address for the name {server.host}: {cause.strerror}; check the URL"
    number = getattr(cause, "errno", None)
    if number == errno.ECONNREFUSED:
        hint = "" if server.port == _OURS else f" (its usual port is {_OURS})"
        return f"nothing listens on {server.place}: check the URL{hint}, and whether farcored is running"
    why = os.strerror(number) if isinstance(number, int) and number > 0 else str(cause) or type(cause).__name__
    return f"{server.place} cannot be reached: {why}; check the URL and the network"
