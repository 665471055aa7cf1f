"""The one gate: whoever asks for anything but the two health routes is looked at here, before anything else happens.

With a token file a request needs a token, as Bearer (RFC 6750) or as the password of Basic (RFC 7617: browsers, curl -n,
wget). Without credentials the gate asks one thing, that Host names this machine as only its own users would: a web
page whose name has been made to resolve to 127.0.0.1 (DNS rebinding) names itself there.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Any, Final, Literal

from aiohttp import web

from farcore_server.problem import Problem
from farcore_server.settings import Hosts
from farcore_server.tokens import TokenFile

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware

OPEN_PATHS: Final = frozenset({"/healthz", "/readyz"})

_CHALLENGE: Final = 'Bearer realm="farcore"{error}, Basic realm="farcore", charset="UTF-8"'
_CREDENTIALS: Final = re.compile(r"([A-Za-z]+) +([A-Za-z0-9._~+/-]+=*) *", re.ASCII)
_HOST: Final = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::(?P<port>[0-9]{0,5}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Granted:
    """Go on; ``name`` is whose token it was, None where the server asks for none. ``version`` is Access.version then."""

    name: str | None
    version: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Denied:
    """Answer this instead; the fields are a Problem's."""

    status: Literal[401, 403, 421]
    slug: str
    title: str
    detail: str
    headers: Mapping[str, str] = field(default_factory=dict)


class Access:
    """Who may ask, as of now: a token that is revoked is refused from the next request on."""

    def __init__(self, tokens: TokenFile | None, hosts: Hosts = "loopback") -> None:
        self.tokens, self.hosts = tokens, hosts
        self._ended = False

    @property
    def version(self) -> int:
        """Grows when what was granted before must be asked for again."""
        return self.tokens.version if self.tokens else 0

    def holds(self, version: int) -> bool:
        """Whether what was granted at ``version`` is granted still."""
        return not self._ended and self.version == version

    def end(self) -> None:
        """Another has taken its place: nothing that this one grants may be repeated."""
        self._ended = True

    def check(self, authorization: str | None, host: str | None) -> Granted | Denied:
        """The verdict on a request with these two header values, None for a header that is missing."""
        if self.tokens is None:
            return Granted(None) if self.hosts == "any" or _is_own(host, self.hosts) else _misdirected(self.hosts)
        if authorization is None:
            return _unauthorized("This server wants a token: send it as `Authorization: Bearer TOKEN`, or as a password.")
        try:
            token = _token(authorization)
        except ValueError as error:
            return _unauthorized(f"The Authorization header cannot be used: {error}.")
        version = self.version  # before the look: a change after it is one that the grant does not know
        name = self.tokens.verify(token)
        if name is None:
            return _unauthorized("The token is not known here, or was revoked.", ', error="invalid_token"')
        return Granted(name, version)


# request[GRANT] is the Granted of a request that came through. RequestKey: aiohttp 3.14 and later.
GRANT: Final[Any] = web.RequestKey("grant", Granted) if hasattr(web, "RequestKey") else "grant"


def access_middleware(access: Access) -> Middleware:
    """Asks ``access`` before any handler, and before a 404 or 405 could tell what exists; stands under problem_middleware."""

    @web.middleware
    async def gate(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in OPEN_PATHS:
            verdict = access.check(_joined(request, "Authorization"), _authority(request))
            if isinstance(verdict, Denied):
                raise Problem(verdict.status, verdict.slug, verdict.title, verdict.detail, headers=verdict.headers)
            request[GRANT] = verdict
        return await handler(request)

    return gate


def _joined(request: web.Request, name: str) -> str | None:
    # Two lines of a header that may come once make a value (RFC 9110, 5.3) that no check takes.
    values = request.headers.getall(name, [])
    return ", ".join(values) if values else None


def _authority(request: web.Request) -> str | None:
    # RFC 9112, 3.2.2: where the request line has a whole URL, its authority counts and Host does not.
    if request.raw_path.startswith("/"):
        return _joined(request, "Host")
    return request.raw_path.partition("://")[2].partition("/")[0]


def _token(authorization: str) -> str:
    # ValueError: a clause for a person, which never repeats what was sent.
    if not (match := _CREDENTIALS.fullmatch(authorization)):
        raise ValueError("expected `Bearer TOKEN` or `Basic BASE64`, once")
    scheme, credentials = match[1].lower(), match[2]
    if scheme == "bearer":
        return credentials
    if scheme != "basic":
        raise ValueError("its scheme is neither Bearer nor Basic")
    try:
        _, colon, password = base64.b64decode(credentials, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise ValueError("after Basic it must have USER:TOKEN, in UTF-8 and base64") from None
    if not colon:
        raise ValueError("there is no colon between user and token (any user will do)")
    return password


def _is_own(host: str | None, hosts: Hosts) -> bool:
    # Strict: what is not understood is not ours. Any port: `ssh -L 9000:localhost:8787` is to go on working.
    match = _HOST.fullmatch(host or "")
    if match is None or int(match["port"] or 0) > 65535:
        return False
    if match["v6"]:
        address = _address(match["v6"])
        return isinstance(address, IPv6Address) and (hosts == "address" or address == IPv6Address("::1"))
    name = match["name"].removesuffix(".").lower()
    address = _address(name)
    return name == "localhost" or (isinstance(address, IPv4Address) and (hosts == "address" or address.is_loopback))


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _unauthorized(detail: str, error: str = "") -> Denied:
    headers = {"WWW-Authenticate": _CHALLENGE.format(error=error)}
    return Denied(401, "unauthorized", "A token is needed", detail, headers)


def _misdirected(hosts: Hosts) -> Denied:
    wanted = "localhost or an address" if hosts == "address" else "localhost, 127.0.0.1 or [::1]"
    detail = f"Without a token file this server answers to a Host of {wanted} alone: ask for that, or serve with --token-file."
    return Denied(421, "misdirected", "Not a name of this server", detail)
