"""Cross-site requests: which ones are refused (CSRF), and which origins may make them (CORS).

Without authentication, a browser would carry out the requests of any page that it shows. So a
request that changes something is refused if the browser says that it comes from another site. On
loopback addresses the `Host` is checked as well, against DNS rebinding. Pages of the origins that
the operator names may do what pages of the service itself may (Fetch standard, 3.2).
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
_REQUEST_HEADERS = (
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
    "X-Request-ID",  # sent by tus-js-client
    "X-Requested-With",
)
_EXPOSED_HEADERS = ", ".join(
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
_MAX_AGE_S = 7200  # the maximum of Chromium; other browsers reduce it themselves

# How many other headers a preflight request is granted, such as those for tracing, authorization,
# or of an app. A page needs a few of them; a head may have 256 lines.
_MAX_OTHER_HEADERS = 64
_TOKEN = re.compile(r"[!#$%&'+.^_`|~0-9a-z-]{1,128}", re.IGNORECASE | re.ASCII)

# As browsers write it (RFC 6454, 6.2): without a path, and without the default port of the scheme.
# Apps in web views and browser extensions have schemes of their own.
_ORIGIN = re.compile(
    r"([a-z][a-z0-9+.-]*)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?", re.ASCII
)
_DEFAULT_PORTS = {"http": "80", "https": "443"}


def parse_origins(texts: Iterable[str]) -> frozenset[str]:
    """Parse origins, and write them as browsers do.

    :raises ValueError: if a text is not an origin.
    """
    return frozenset(_origin(text.strip()) for text in texts if text.strip())


def _origin(text: str) -> str:
    match = _ORIGIN.fullmatch(text.lower().removesuffix("/"))
    if match is None:
        raise ValueError(
            f"{text!r} is not an origin; write it like https://app.example, http://app:81 or "
            "capacitor://localhost"
        )
    scheme, host, port = match.groups()
    is_default = port in (None, _DEFAULT_PORTS.get(scheme))
    return f"{scheme}://{host}" + ("" if is_default else f":{port}")


def _allowed_headers(requested: str | None) -> str:
    """The headers that a page may send, including those that its browser has `requested`."""
    known = {name.lower() for name in _REQUEST_HEADERS}
    names = [name.strip(" \t") for name in (requested or "").split(",")]
    others = [name for name in names if _TOKEN.fullmatch(name) and name.lower() not in known]
    return ", ".join([*_REQUEST_HEADERS, *dict.fromkeys(others[:_MAX_OTHER_HEADERS])])


class CorsPolicy:
    """Lets pages of some origins make requests and read the responses."""

    def __init__(self, origins: frozenset[str]) -> None:
        """`origins` are written as browsers write them: `https://app.example`."""
        self._origins = origins

    def apply(self, request: Request) -> Response | None:
        """Set the CORS headers of the response, if the origin is allowed. Returns the complete
        response to a preflight request, otherwise None.
        """
        if not self._origins:
            return None
        request.responseHeaders.addRawHeader("vary", "Origin")
        origin = header(request, "origin")
        if origin not in self._origins:
            return None
        request.setHeader("access-control-allow-origin", origin)
        if request.method != b"OPTIONS" or not header(request, "access-control-request-method"):
            request.setHeader("access-control-expose-headers", _EXPOSED_HEADERS)
            return None
        return Response(
            204,
            {
                "Access-Control-Allow-Methods": _METHODS,
                "Access-Control-Allow-Headers": _allowed_headers(
                    header(request, "access-control-request-headers")
                ),
                "Access-Control-Max-Age": str(_MAX_AGE_S),
            },
            b"",
        )


_PORT = re.compile(r":[0-9]*$")
_WEB_SCHEMES = frozenset({"http", "https"})
# `none`: the user has typed the address or opened a bookmark (Fetch Metadata, 2.3).
_OWN_SITES = frozenset({"same-origin", "none"})


@dataclass(frozen=True, slots=True)
class CsrfPolicy:
    """Refuses DNS rebinding, and cross-site requests that change something, except from `origins`.

    With `is_open`, or for requests through trusted `proxies`, the `Host` is not checked.
    """

    is_open: bool = False
    proxies: Proxies = NO_PROXIES
    origins: frozenset[str] = frozenset()

    def check(self, request: Request) -> None:
        """Check the origin and the `Host` of a request.

        :raises Forbidden: if the request may not be made.
        """
        if request.method not in SAFE_METHODS and not self._is_from_own_pages(request):
            raise Forbidden("requests from pages of another site may not change anything")
        if not self.is_open:
            self._check_host(request)

    def check_embedded(self, request: Request) -> None:
        """Check the origin of a safe request that is expensive. A page of another site may link to
        it, but not load it (as an image, for example), which the user would not notice.

        :raises Forbidden: if a page of another site loads it.
        """
        is_link = header(request, "sec-fetch-dest") == "document"
        if not is_link and not self._is_from_own_pages(request):
            raise Forbidden("requests from pages of another site may not start a fetch")

    def _is_from_own_pages(self, request: Request) -> bool:
        return header(request, "origin") in self.origins or _is_from_own_site(request)

    def _check_host(self, request: Request) -> None:
        """On a loopback address, refuse any other `Host`. An attacker can have a name of his own
        site resolve to this address, so that browsers take the service for a part of that site.
        """
        local = getattr(request.getHost(), "host", None)
        if local is None or not _is_loopback(local):
            return
        host = header(request, "host")
        if host is None or _is_loopback(_PORT.sub("", host)):
            return
        peer = peer_host(getattr(request.client, "host", None))
        if not self.proxies.trusts(peer):
            raise Forbidden(
                "on a loopback address, the Host must be localhost or a loopback address"
            )


def _is_from_own_site(request: Request) -> bool:
    """Whether the browser does not say that the request comes from another site."""
    site = header(request, "sec-fetch-site")
    if site is not None:
        return site in _OWN_SITES
    # Older browsers send only this, and so do all browsers without TLS. http and https are equal,
    # since a proxy may change the scheme. Other schemes are those of apps and extensions.
    origin = header(request, "origin")
    if origin is None:
        return True
    scheme, _, host = origin.lower().partition("://")  # `null` has no scheme
    return scheme in _WEB_SCHEMES and host != "" and host == (header(request, "host") or "").lower()


@lru_cache(1024)
def _is_loopback(host: str) -> bool:
    host = host.lower().removesuffix(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    address = parse_address(host.removeprefix("[").removesuffix("]"))
    return address is not None and address.is_loopback
