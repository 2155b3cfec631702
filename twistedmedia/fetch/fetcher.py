"""One fetch: hop after hop to the response, with limits on everything an upstream could overdo.

What comes of it is a `Response`, whose content is read piece by piece. Whatever goes wrong is one
of our errors, and closes the connection.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http.cookiejar import CookieJar
from typing import Any

from hyperlink import EncodedURL
from treq.client import HTTPClient
from treq.cookies import IndexableCookieJar
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IPolicyForHTTPS, IResponse

from twistedmedia.errors import (
    RETRY_AFTER_S,
    Busy,
    MediaError,
    UpstreamFailed,
    UpstreamTooSlow,
)
from twistedmedia.fairness.loop_queue import LoopQueue
from twistedmedia.fairness.pace import RECENT_S
from twistedmedia.fairness.slots import Slots
from twistedmedia.fetch.agent import PolicyAgent
from twistedmedia.fetch.content import UpstreamContent, too_large
from twistedmedia.fetch.freshness import lifetime_s
from twistedmedia.fetch.hops import Hop
from twistedmedia.fetch.policy import Policy, origin_only
from twistedmedia.fetch.resolver import Resolver
from twistedmedia.fetch.timings import Timings
from twistedmedia.fetch.upstream_errors import translate, was_cancelled
from twistedmedia.fetch.urls import Url, resolve
from twistedmedia.http.body import Body, BodyMemory

BUSY_RATE = 16 << 10  # bytes a second
MAX_REDIRECTS = 10  # podcast hosts chain trackers: six and more are common
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_NOT_ASCII = re.compile(rb"[\x80-\xff]")
_USER_AGENT = "twistedmedia"


@dataclass(frozen=True, slots=True)
class Upstream:
    """The service whose page `GET /` shows. Its own origin is open, wherever it is, on the first
    hop. `authorization` is sent to that origin and to no other.
    """

    url: Url
    authorization: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """How long a fetch may take, in all and to the final headers, in seconds, and how many bytes of
    content it may bring; None where somebody else counts them.
    """

    total_s: float
    head_s: float
    max_bytes: int | None = None


class Fetcher:
    """Fetches what may be fetched."""

    def __init__(
        self,
        reactor: Any,
        *,
        resolver: Resolver,
        trust: IPolicyForHTTPS,
        policy: Policy,
        upstream: Upstream | None = None,
        connections: int,
        memory: BodyMemory,
        busy_rate: float = BUSY_RATE,
        queue: LoopQueue | None = None,
    ) -> None:
        """At most `connections` fetches go on at once, and an eighth as many again of callers that
        have few. `memory` is what content may take that nobody has read. `busy_rate`, in bytes a
        second, keeps the place of a fetch while other callers have none. Requests to upstreams and
        their responses take turns in `queue`, which may be that of a site.
        """
        self.queue = queue = queue or LoopQueue(reactor)
        self.reactor = reactor
        self._memory = memory
        self._upstream = upstream
        self.slots = Slots(connections, busy_rate, reactor)
        self._csrf = PolicyAgent(reactor, policy, resolver, trust, connections, queue)
        # Connections that only the upstream may have are kept apart from those of strangers' URLs.
        self._own = self._csrf
        if upstream is not None:
            own = origin_only(upstream.url.host, upstream.url.port)
            self._own = PolicyAgent(reactor, own, resolver, trust, connections, queue)

    @property
    def fetches(self) -> int:
        """How many are going on."""
        return self.slots.used

    @property
    def upstream(self) -> Url | None:
        """The URL that is fetched when none is named."""
        return None if self._upstream is None else self._upstream.url

    @asynccontextmanager
    async def open(
        self,
        url: Url | None,
        terms: FetchLimits,
        headers: Mapping[str, str] | None = None,
        caller: str = "",
    ) -> AsyncIterator[Response]:
        """Fetch `url`, or the upstream's own if it is None. The response is there when its headers
        are; with the context ends the fetch. It counts as one of `caller`.

        :raises AddressRefused: when it may not be fetched.
        :raises UpstreamFailed: when nothing comes that could be read as a response.
        :raises UpstreamTooSlow: when the terms are not kept.
        :raises Busy: if there is no place for one more, or if the fetch had to give its place to
            another caller.
        """
        fetch = _Fetch(self.reactor, self._memory, self._csrf, self.queue, terms, caller)
        own = self._upstream
        place = ensureDeferred(self.slots.take(caller, fetch))
        in_turn = not place.called  # several that waited may get their places at once
        with await place:
            try:
                if url is not None:
                    yield await fetch.respond(self._csrf, url, headers or {}, in_turn=in_turn)
                else:
                    assert own is not None, "no URL, and no upstream"
                    credentials = {"Authorization": own.authorization} if own.authorization else {}
                    yield await fetch.respond(self._own, own.url, credentials, in_turn=in_turn)
            finally:
                fetch.end()

    async def close(self) -> None:
        """Close the connections that no fetch uses."""
        await self._csrf.close()
        if self._own is not self._csrf:
            await self._own.close()


class Response:
    """A final response. `body` is its content, an async iterator of lists of chunks; what may be
    wrong with that is raised there. `length` is the declared size in bytes, None without one.
    `lifetime_s` is how long all that led to it stays true. `begun_s` is when the fetch got its
    place, by the clock of the reactor. `timings` count from then.
    """

    def __init__(
        self, fetch: _Fetch, url: Url, status: int, headers: Headers, length: int | None, body: Body
    ) -> None:
        self.url = url
        self.status = status
        self.length = length
        self.body = body
        self.lifetime_s = fetch.lifetime_s
        self.begun_s = fetch.begun_s
        self._fetch = fetch
        self._headers = headers

    def header(self, name: str) -> str | None:
        """The value of a header, a list of all values when it came more than once."""
        return _header(self._headers, name)

    @property
    def timings(self) -> Timings:
        """What it has cost until now."""
        return self._fetch.timings()


class _Fetch:
    """A fetch under way: a `shares.Holder`."""

    def __init__(
        self,
        reactor: Any,
        memory: BodyMemory,
        csrf: PolicyAgent,
        queue: LoopQueue,
        terms: FetchLimits,
        caller: str,
    ) -> None:
        """`csrf` makes the requests to where redirects lead."""
        self.lifetime_s = 1 << 31
        self._reactor = reactor
        self._memory = memory
        self._csrf = csrf
        self._queue = queue
        self._terms = terms
        self._caller = caller
        self._clock = reactor.seconds
        self.begun_s: float = self._clock()  # so far; the wait for a place does not count
        self._redirected: float | None = None
        self._hop = Hop(self._clock, caller)
        self._requesting: Deferred[Any] | None = None
        self._content: UpstreamContent | None = None
        self._broken: MediaError | None = None  # why it was broken off
        self._deadlines: list[IDelayedCall] = []

    def pace(self) -> float | None:
        """How many bytes a second the upstream sent lately. None in the first seconds in which it
        has not responded, 0 then.
        """
        if self._content is not None:
            return self._content.body.pace()
        return None if self._clock() - self.begun_s < RECENT_S else 0.0

    def give_way(self) -> None:
        """Another caller has the place."""
        self._break_off(Busy(RETRY_AFTER_S))

    async def respond(
        self, guard: PolicyAgent, at: Url, headers: Mapping[str, str], *, in_turn: bool
    ) -> Response:
        """The final response, after redirects; `guard` makes the first request. It begins now, or
        when it is the caller's turn, as each further request does.
        """
        self.begun_s = self._clock()
        self._deadline(self._terms.total_s)
        own = self._terms.head_s < self._terms.total_s
        head = self._deadline(self._terms.head_s) if own else None
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._request(guard, at, headers, in_turn=in_turn)
            self._age(response)
            location = _location(response)
            if location is None:
                if head is not None:
                    head.cancel()
                return self._final(response, at)
            if response.length != 0:  # else its connection is kept
                self._hop.abort()
            self._redirected = self._clock() - self.begun_s
            to = _followed(location, at)
            if to.origin != at.origin:  # credentials do not come along, nor back
                headers = {name: headers[name] for name in headers if name != "Authorization"}
            at, guard, in_turn = to, self._csrf, True
        raise UpstreamFailed(f"redirects more than {MAX_REDIRECTS} times")

    def end(self) -> None:
        """Whatever is still under way is not wanted any more."""
        for deadline in self._deadlines:
            if deadline.active():
                deadline.cancel()
        if self._content is not None:
            self._content.stop()
        self._hop.abort()

    def timings(self) -> Timings:
        """What it has cost until now, or to the end of the content."""

        def since(moment: float | None) -> float | None:
            return None if moment is None else moment - self.begun_s

        hop = self._hop
        ended = None if self._content is None else self._content.ended
        return Timings(
            self._redirected,
            since(hop.lookup),
            since(hop.connect),
            since(hop.tls),
            since(hop.first_byte),
            (self._clock() if ended is None else ended) - self.begun_s,
        )

    async def _request(
        self, guard: PolicyAgent, at: Url, headers: Mapping[str, str], *, in_turn: bool
    ) -> IResponse:
        """One hop: the response when its head is complete."""
        caller = self._caller
        # Whatever a caller has looked up, it does not hold up the pages of the service's upstream.
        looks_up_for = caller if guard is self._csrf else ""
        for anew in (False, True):
            hop = self._hop = Hop(self._clock, caller, looks_up_for, anew=anew)
            try:
                if in_turn or anew:
                    self._requesting = ensureDeferred(self._queue.turn(caller))
                    await self._requesting
                agent = guard.agent(at, hop, _sent(at, headers))
                self._requesting = _ask(agent, at, self._reactor)
                response: IResponse = await self._requesting
            except Exception as error:
                hop.abort()
                if self._broken is not None:
                    raise self._broken from error
                if was_cancelled(error):
                    raise CancelledError from error
                if hop.reused and hop.first_byte is None:
                    continue  # the upstream has closed it just now
                raise translate(error, hop) from error
            finally:
                self._requesting = None
            return response
        raise AssertionError("a new connection was used before")

    def _final(self, response: IResponse, at: Url) -> Response:
        limit = self._terms.max_bytes
        length = response.length if isinstance(response.length, int) else None
        if not 200 <= response.code <= 999 or (length is not None and length < 0):
            raise UpstreamFailed("does not respond in HTTP")
        if limit is not None and length is not None and length > limit:
            raise too_large(limit)
        content = self._content = UpstreamContent(
            self._reactor, self._hop, length, self._memory, limit
        )
        response.deliverBody(content)
        return Response(self, at, response.code, response.headers, length, content.body)

    def _age(self, response: IResponse) -> None:
        headers = response.headers
        fresh = lifetime_s(*(_header(headers, name) for name in ("cache-control", "age", "vary")))
        self.lifetime_s = min(self.lifetime_s, fresh)

    def _deadline(self, seconds: float) -> IDelayedCall:
        call: IDelayedCall = self._reactor.callLater(seconds, self._too_late)
        self._deadlines.append(call)
        return call

    def _too_late(self) -> None:
        what = "no response" if self._content is None else "not all of its content"
        self._break_off(UpstreamTooSlow(f"{what} came in time"))

    def _break_off(self, error: MediaError) -> None:
        self._broken = error
        if self._requesting is not None:
            self._requesting.cancel()
        elif self._content is not None:
            self._content.fail(error)  # if it has not ended


def _followed(location: str, at: Url) -> Url:
    try:
        to = resolve(location, at)
    except ValueError as error:
        raise UpstreamFailed(f"redirects to a URL that cannot be fetched: {error}") from error
    if at.scheme == "https" and to.scheme == "http":
        raise UpstreamFailed("redirects from https to http")
    return to


def _header(headers: Headers, name: str) -> str | None:
    values = headers.getRawHeaders(name.encode())
    return b", ".join(values).decode("latin-1") if values else None


def _location(response: IResponse) -> str | None:
    """Where it redirects to, if it does."""
    values: list[bytes] | None = response.headers.getRawHeaders(b"location")
    if response.code not in _REDIRECTS or not values:
        return None
    if len(set(values)) > 1:
        raise UpstreamFailed("redirects to more than one URL")
    try:
        return values[0].decode("utf-8")
    except UnicodeDecodeError:  # as browsers do
        return _NOT_ASCII.sub(lambda byte: b"%%%02X" % byte[0][0], values[0]).decode("ascii")


class _Exact(EncodedURL):
    """A URL that treq sends as it is. By itself it would encode it anew, which signed URLs do not
    survive, which fails for IPv6 addresses, and which takes a third of the time of a request.
    """

    def __init__(self, url: Url) -> None:
        self._exact = str(url)

    def to_uri(self) -> _Exact:
        """It is one."""
        return self

    def to_text(self, with_password: bool = False) -> str:
        """In ASCII."""
        return self._exact


class _NoCookies(IndexableCookieJar):
    """What one request is told to remember is no business of the next one's."""

    def add_cookie_header(self, request: Any) -> None:
        """None is sent."""

    def extract_cookies(self, response: Any, request: Any) -> None:
        """None is kept."""


_NO_COOKIES = _NoCookies()
_NONE_MORE = CookieJar()
_NO_HEADERS = Headers()  # the guard's agent has them


def _sent(url: Url, headers: Mapping[str, str]) -> Headers:
    """All headers of a request for `url`, those that are of this one only last."""
    sent = {
        "Host": url.authority,
        "User-Agent": _USER_AGENT,
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        **headers,
    }
    return Headers({name.encode(): [value.encode("latin-1")] for name, value in sent.items()})


def _ask(agent: IAgent, url: Url, reactor: Any) -> Deferred[Any]:
    return HTTPClient(agent, _NO_COOKIES).request(
        "GET",
        _Exact(url),
        headers=_NO_HEADERS,
        cookies=_NONE_MORE,
        allow_redirects=False,
        unbuffered=True,
        reactor=reactor,
    )
