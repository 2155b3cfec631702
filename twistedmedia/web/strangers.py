"""Whom a request must not come from: pages of other sites, in browsers of those who may be here.

There is no authentication, and a browser carries out what any page tells it. What keeps strangers
out is that a browser says whose page it was, and under which name it found us.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from twisted.web.server import Request

from twistedmedia.errors import Forbidden
from twistedmedia.web.requests import header
from twistedmedia.wire.hosts import address_of, peer_host
from twistedmedia.wire.proxies import NO_PROXIES, Proxies
from twistedmedia.wire.request import SAFE_METHODS

_PORT = re.compile(r":[0-9]*$")
_WEB = frozenset({"http", "https"})
# `none` is the user's own doing: an address typed, a bookmark (Fetch Metadata, 2.3).
_OWN = frozenset({"same-origin", "none"})


@dataclass(frozen=True, slots=True)
class Strangers:
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
    address = address_of(host.removeprefix("[").removesuffix("]"))
    return address is not None and address.is_loopback
