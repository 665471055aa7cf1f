"""Pages for people: the templates, with everything a dump says escaped, and a policy that lets nothing run."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

from aiohttp import web

if TYPE_CHECKING:
    from jinja2 import Environment

HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "private, no-cache",
}
_UNITS: Final = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def page(name: str, **values: object) -> web.Response:
    """The template ``name`` (catalogue.html, dump.html) with these values."""
    return web.Response(text=_templates().get_template(name).render(**values), content_type="text/html", headers=HEADERS)


def readable(size: int | str) -> str:
    """A size for people: 233.0 MiB. Takes a "0x..." string as well."""
    amount = float(int(size, 16) if isinstance(size, str) else size)
    unit = 0
    while amount >= 1024 and unit < len(_UNITS) - 1:
        amount /= 1024
        unit += 1
    return f"{amount:,.1f} {_UNITS[unit]}" if unit else f"{int(amount)} bytes"


@cache
def _templates() -> Environment:
    # Imported at the first page: who only serves bytes, as a crash kernel does, can do without.
    from jinja2 import Environment, PackageLoader, StrictUndefined

    templates = Environment(
        loader=PackageLoader("farcore_server"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    templates.filters["bytes"] = readable
    return templates
