"""Cross-origin resource sharing: what a browser is told about pages of other origins (Fetch
standard, 3.2). Pages of the origins that the operator names may do what our own may.

Whom a request must not come from: pages of other sites, in browsers of those who may be here.

There is no authentication, and a browser carries out what any page tells it. What keeps strangers
out is that a browser says whose page it was, and under which name it found us.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from twisted.web.server import Request

from twistedmedia.errors import Forbidden
from twistedmedia.http.addresses import NO_PROXIES, Proxies, parse_address, peer_host
from twistedmedia.http.request import SAFE_METHODS
from twistedmedia.json_response import Response
from twistedmedia.web.arguments import header

_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"
_MAY_SEND = (
    "Accept",
    "Cache-Control",
    "Content-Digest",
    "Content-Type",
    "If-Match",
    "If-Modified-Since",
    "If-None-Match",
    "If-Range",
    "If-Unmodified-Since",
    "Range",
    "Repr-Digest",
    "Tus-Resumable",
    "Upload-Checksum",
    "Upload-Defer-Length",
    "Upload-Length",
    "Upload-Metadata",
    "Upload-Offset",
    "Want-Repr-Digest",
    "X-HTTP-Method-Override",
    "X-Request-ID",  # of tus-js-client
    "X-Requested-With",
)
_MAY_SEE = ", ".join(
    (
        "Accept-Ranges",
        "Content-Disposition",
        "Content-Location",
        "Content-Range",
        "ETag",
        "Location",
        "Repr-Digest",
        "Retry-After",
        "Server-Timing",
        "Tus-Checksum-Algorithm",
        "Tus-Extension",
        "Tus-Max-Size",
        "Tus-Resumable",
        "Tus-Version",
        "Upload-Defer-Length",
        "Upload-Expires",
        "Upload-Length",
        "Upload-Metadata",
        "Upload-Offset",
    )
)
_REMEMBER_S = 7200  # the most that Chromium remembers; others cut it down themselves


# What else a page may ask to send: tracing and authorization headers, an app's own. A page needs a
# few; a head may have 256 lines.
_MOST_ASKED = 64
_TOKEN = re.compile(r"[!#$%&'+.^_`|~0-9a-z-]{1,128}", re.IGNORECASE | re.ASCII)

# As a browser writes one (RFC 6454, 6.2): no path, and no port where it is the scheme's own. Apps
# in web views and browsers' extensions have schemes of their own.
_ORIGIN = re.compile(
    r"([a-z][a-z0-9+.-]*)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?", re.ASCII
)
_OWN_PORTS = {"http": "80", "https": "443"}


def parse_origins(texts: Iterable[str]) -> frozenset[str]:
    """The origins that `texts` name, as browsers write them.

    :raises ValueError: when one is none.
    """
    return frozenset(_origin(text.strip()) for text in texts if text.strip())


def _origin(text: str) -> str:
    match = _ORIGIN.fullmatch(text.lower().removesuffix("/"))
    if match is None:
        raise ValueError(
            f"{text!r} is no origin; write it like https://app.example, http://app:81 or "
            "capacitor://localhost"
        )
    scheme, host, port = match.groups()
    own = port in (None, _OWN_PORTS.get(scheme))
    return f"{scheme}://{host}" + ("" if own else f":{port}")


def _granted(asked: str | None) -> str:
    """The headers that a page may send, with those that its browser has asked for."""
    usual = {name.lower() for name in _MAY_SEND}
    names = [name.strip(" \t") for name in (asked or "").split(",")]
    more = [name for name in names if _TOKEN.fullmatch(name) and name.lower() not in usual]
    return ", ".join([*_MAY_SEND, *dict.fromkeys(more[:_MOST_ASKED])])


class CorsPolicy:
    """Tells browsers that pages of some origins may ask, and see what is answered."""

    def __init__(self, origins: frozenset[str]) -> None:
        """`origins` as browsers write them: `https://app.example`."""
        self._origins = origins

    def answer(self, request: Request) -> Response | None:
        """Mark the answer to `request` for its page to see; the whole answer, if the browser only
        asks whether the page may ask.
        """
        if not self._origins:
            return None
        request.responseHeaders.addRawHeader("vary", "Origin")
        origin = header(request, "origin")
        if origin not in self._origins:
            return None
        request.setHeader("access-control-allow-origin", origin)
        if request.method != b"OPTIONS" or not header(request, "access-control-request-method"):
            request.setHeader("access-control-expose-headers", _MAY_SEE)
            return None
        return Response(
            204,
            {
                "Access-Control-Allow-Methods": _METHODS,
                "Access-Control-Allow-Headers": _granted(
                    header(request, "access-control-request-headers")
                ),
                "Access-Control-Max-Age": str(_REMEMBER_S),
            },
            b"",
        )


_PORT = re.compile(r":[0-9]*$")
_WEB = frozenset({"http", "https"})
# `none` is the user's own doing: an address typed, a bookmark (Fetch Metadata, 2.3).
_OWN = frozenset({"same-origin", "none"})


@dataclass(frozen=True, slots=True)
class CsrfPolicy:
    """Tells who is one. `is_open`: everybody who can connect may do everything, whatever name they
    know us by. Under which name trusted `proxies` are known is their business. Pages of `origins`
    are none, wherever they come from.
    """

    is_open: bool = False
    proxies: Proxies = NO_PROXIES
    origins: frozenset[str] = frozenset()

    def refuse(self, request: Request) -> None:
        """Refuse a request that a stranger's page has made.

        :raises Forbidden: saying why.
        """
        if request.method not in SAFE_METHODS and not self._is_from_own_pages(request):
            raise Forbidden("pages of another site may not change anything here")
        if not self.is_open:
            self._refuse_rebinding(request)

    def refuse_embedded(self, request: Request) -> None:
        """Refuse what a page of another site has a browser load into it: that costs somebody
        something, and its user has not asked for it. A link may lead here.

        :raises Forbidden: saying why.
        """
        is_link = header(request, "sec-fetch-dest") == "document"
        if not is_link and not self._is_from_own_pages(request):
            raise Forbidden("pages of another site may not have anything fetched")

    def _is_from_own_pages(self, request: Request) -> bool:
        return header(request, "origin") in self.origins or _is_from_own_site(request)

    def _refuse_rebinding(self, request: Request) -> None:
        """A name that leads to a loopback address, and is none of its own, is a stranger's, who has
        a browser take us for a part of his site.
        """
        local = getattr(request.getHost(), "host", None)
        if local is None or not _is_loopback(local):
            return
        host = header(request, "host")
        if host is None or _is_loopback(_PORT.sub("", host)):
            return
        peer = peer_host(getattr(request.client, "host", None))
        if not self.proxies.trusts(peer):
            raise Forbidden("on this address the Host has to be localhost, or a loopback address")


def _is_from_own_site(request: Request) -> bool:
    """Whether, as far as the browser says, no page of another site is behind it."""
    site = header(request, "sec-fetch-site")
    if site is not None:
        return site in _OWN
    # Older browsers, and all of them where there is no TLS. As the scheme may be a proxy's, http
    # and https are not told apart. A host of any other scheme is an app's or an extension's.
    origin = header(request, "origin")
    if origin is None:
        return True
    scheme, _, of = origin.lower().partition("://")  # `null` has none
    return scheme in _WEB and of != "" and of == (header(request, "host") or "").lower()


@lru_cache(1024)
def _is_loopback(host: str) -> bool:
    host = host.lower().removesuffix(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    address = parse_address(host.removeprefix("[").removesuffix("]"))
    return address is not None and address.is_loopback
