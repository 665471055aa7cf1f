"""TLS as the settings ask for it: 1.2 and later, and a client's certificate where a CA for them is named."""

from __future__ import annotations

import ssl
from pathlib import Path

from farcore.errors import SettingsError
from farcore_server.settings import Settings


def ssl_context(settings: Settings) -> ssl.SSLContext | None:
    """The context to serve with, None for plain HTTP; SettingsError for a file that cannot be used."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    for path in (settings.tls_cert, settings.tls_key, settings.tls_client_ca):
        _demand_readable(path)
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key, password=_refuse)
    except ssl.SSLError as error:
        reason = _reason(error)
        raise SettingsError(f"{settings.tls_cert} and {settings.tls_key} are no certificate and its key: {reason}") from error
    if settings.tls_client_ca:
        try:
            context.load_verify_locations(settings.tls_client_ca)
        except ssl.SSLError as error:
            raise SettingsError(f"{settings.tls_client_ca}: no certificates of CAs: {_reason(error)}") from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _refuse() -> str:
    # OpenSSL would ask on the terminal, which a service has not.
    raise SettingsError("the key of --tls-key is encrypted: write it out with `openssl pkey -in KEY -out PLAIN`")


def _demand_readable(path: Path | None) -> None:
    # ssl's own errors for these do not say which file it was.
    try:
        if path:
            path.open("rb").close()
    except OSError as error:
        raise SettingsError(f"{path}: this file for TLS cannot be read: {error.strerror}") from error


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or "it is not PEM").replace("_", " ").lower()
