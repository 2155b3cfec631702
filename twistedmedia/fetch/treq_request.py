"""One GET request by treq, without what treq adds to it.

treq encodes URLs again, keeps cookies and sends headers of its own. Here the URL goes out as it is,
there are no cookies, and the headers are those that the agent below treq sends.
"""

from __future__ import annotations

from collections.abc import Mapping
from http.cookiejar import CookieJar
from typing import Any

from hyperlink import EncodedURL
from treq.client import HTTPClient
from treq.cookies import IndexableCookieJar
from twisted.internet.defer import Deferred
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent

from twistedmedia.fetch.urls import Url

_USER_AGENT = "twistedmedia"


def request_headers(url: Url, headers: Mapping[str, str]) -> Headers:
    """All headers of a request for `url`: the usual ones, then `headers`."""
    fields = {
        "Host": url.authority,
        "User-Agent": _USER_AGENT,
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        **headers,
    }
    return Headers({name.encode(): [value.encode("latin-1")] for name, value in fields.items()})


def get(agent: IAgent, url: Url, reactor: Any) -> Deferred[Any]:
    """Request `url` through `agent`. Fires with a `treq` response whose content is unread."""
    return HTTPClient(agent, _NO_COOKIES).request(
        "GET",
        _ExactUrl(url),
        headers=_NO_HEADERS,
        cookies=_EMPTY_JAR,
        allow_redirects=False,
        unbuffered=True,
        reactor=reactor,
    )


class _ExactUrl(EncodedURL):
    """A URL that treq sends unchanged. treq's own encoding breaks signed URLs, fails for IPv6
    addresses, and takes a third of the time of a request.
    """

    def __init__(self, url: Url) -> None:
        self._exact = str(url)

    def to_uri(self) -> _ExactUrl:
        """It is a URI already."""
        return self

    def to_text(self, with_password: bool = False) -> str:
        """The URL in ASCII."""
        return self._exact


class _NoCookies(IndexableCookieJar):
    """A jar that stays empty, so that requests do not affect each other."""

    def add_cookie_header(self, request: Any) -> None:
        """Sends no cookies."""

    def extract_cookies(self, response: Any, request: Any) -> None:
        """Keeps no cookies."""


_NO_COOKIES = _NoCookies()
_EMPTY_JAR = CookieJar()
_NO_HEADERS = Headers()
