"""A fetch: hop after hop to the final response, with limits on everything that an upstream sends.

Its result is a `Response`, whose content is read as it arrives. A failure is one of our errors, and
closes the connection.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.web.http_headers import Headers
from twisted.web.iweb import IPolicyForHTTPS, IResponse

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
from twistedmedia.fetch import treq_request
from twistedmedia.fetch.agent import PolicyAgent
from twistedmedia.fetch.content import UpstreamContent, too_large
from twistedmedia.fetch.freshness import lifetime_s
from twistedmedia.fetch.hops import Hop, Phase
from twistedmedia.fetch.policy import Policy, origin_only
from twistedmedia.fetch.resolver import Resolver
from twistedmedia.fetch.timings import Timings
from twistedmedia.fetch.upstream_errors import translate, was_cancelled
from twistedmedia.fetch.urls import Url, resolve
from twistedmedia.http.body import Body, BodyMemory

BUSY_RATE = 16 << 10  # bytes a second
MAX_REDIRECTS = 10  # podcast hosts chain trackers: six and more are common
_MAX_LIFETIME_S = 1 << 31  # RFC 9111, 1.2.2
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_NOT_ASCII = re.compile(rb"[\x80-\xff]")


@dataclass(frozen=True, slots=True)
class Upstream:
    """The service that is fetched when a request names no URL. The policy does not apply to its own
    origin on the first hop. `authorization` is sent to that origin only.
    """

    url: Url
    authorization: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """Limits of one fetch: seconds in all, seconds to the final headers, and bytes of content. None
    if the caller counts the bytes.
    """

    total_s: float
    head_s: float
    max_bytes: int | None = None


class Fetcher:
    """Fetches the URLs that a policy allows."""

    def __init__(
        self,
        reactor: Any,
        *,
        resolver: Resolver,
        verifier: IPolicyForHTTPS,
        policy: Policy,
        upstream: Upstream | None = None,
        connections: int,
        memory: BodyMemory,
        busy_rate: float = BUSY_RATE,
        queue: LoopQueue | None = None,
    ) -> None:
        """At most `connections` fetches run at once, and an eighth as many more for callers that
        have few. `verifier` checks the certificates of hosts. `memory` is for unread content. A
        fetch that is faster than `busy_rate`, in bytes a second, keeps its place while other
        callers have none. Requests to upstreams and their responses take turns in `queue`, which
        may be that of a site.
        """
        self.queue = queue = queue or LoopQueue(reactor)
        self.reactor = reactor
        self._memory = memory
        self._upstream = upstream
        self.slots = Slots(connections, busy_rate, reactor)
        self._agent = PolicyAgent(reactor, policy, resolver, verifier, connections, queue)
        # Under another policy, so its connections are kept apart from those to other URLs.
        self._upstream_agent = self._agent
        if upstream is not None:
            own = origin_only(upstream.url.host, upstream.url.port)
            self._upstream_agent = PolicyAgent(reactor, own, resolver, verifier, connections, queue)

    @property
    def fetches(self) -> int:
        """The number of running fetches."""
        return self.slots.used

    @property
    def upstream(self) -> Url | None:
        """The URL that is fetched when a request names none."""
        return None if self._upstream is None else self._upstream.url

    @asynccontextmanager
    async def open(
        self,
        url: Url | None,
        limits: FetchLimits,
        headers: Mapping[str, str] | None = None,
        caller: str = "",
    ) -> AsyncIterator[Response]:
        """Fetch `url`, or the upstream's own if it is None, on behalf of `caller`. Yields the
        response when its headers are complete. The fetch ends with the context.

        :raises AddressRefused: if the policy does not allow the URL.
        :raises UpstreamFailed: if the upstream sends no valid response.
        :raises UpstreamTooSlow: if a time limit is exceeded.
        :raises Busy: if there is no free place, or the fetch lost its place to another caller.
        """
        fetch = _Fetch(self.reactor, self._memory, self._agent, self.queue, limits, caller=caller)
        place = ensureDeferred(self.slots.take(caller, fetch))
        in_turn = not place.called  # several waiting fetches may get their slots at once
        with await place:
            try:
                if url is not None:
                    yield await fetch.respond(self._agent, url, headers or {}, in_turn=in_turn)
                else:
                    own = self._upstream
                    assert own is not None, "no URL, and no upstream"
                    credentials = {"Authorization": own.authorization} if own.authorization else {}
                    agent = self._upstream_agent
                    yield await fetch.respond(agent, own.url, credentials, in_turn=in_turn)
            finally:
                fetch.end()

    async def close(self) -> None:
        """Close the idle connections."""
        await self._agent.close()
        if self._upstream_agent is not self._agent:
            await self._upstream_agent.close()


class Response:
    """A final response. `body` is its content, an async iterator of lists of chunks, which raises
    an error if the content is cut short or invalid. `length` is the declared size in bytes, None
    without one. `lifetime_s` is how long the response and all redirects to it stay fresh. `begun_s`
    is when the fetch got its place, by the reactor's clock; `timings` count from then.
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
        """The value of a header. The values of several lines are joined into a list."""
        return _header(self._headers, name)

    @property
    def timings(self) -> Timings:
        """What the fetch has cost until now."""
        return self._fetch.timings()


class _Fetch:
    """A running fetch. It is a `shares.Holder`."""

    def __init__(
        self,
        reactor: Any,
        memory: BodyMemory,
        agent: PolicyAgent,
        queue: LoopQueue,
        limits: FetchLimits,
        *,
        caller: str,
    ) -> None:
        """`agent` makes the requests that redirects lead to."""
        self.lifetime_s = _MAX_LIFETIME_S
        self._reactor = reactor
        self._memory = memory
        self._agent = agent
        self._queue = queue
        self._limits = limits
        self._caller = caller
        self._clock = reactor.seconds
        self.begun_s: float = self._clock()  # set again when it has its place
        self._redirected_s: float | None = None  # since then, to the last redirect
        self._hop = Hop(self._clock, caller)
        self._requesting: Deferred[Any] | None = None
        self._content: UpstreamContent | None = None
        self._error: MediaError | None = None  # why it was ended early
        self._deadlines: list[IDelayedCall] = []

    def pace(self) -> float | None:
        """The recent rate of the upstream, in bytes a second. Without a response it is None in the
        first seconds, and 0 after that.
        """
        if self._content is not None:
            return self._content.body.pace()
        return None if self._clock() - self.begun_s < RECENT_S else 0.0

    def give_way(self) -> None:
        """Another caller gets the place."""
        self._end_early(Busy(RETRY_AFTER_S))

    async def respond(
        self, agent: PolicyAgent, url: Url, headers: Mapping[str, str], *, in_turn: bool
    ) -> Response:
        """Returns the final response, after redirects. `agent` makes the first request, in the
        caller's turn if `in_turn`. Later requests wait for their turns.
        """
        self.begun_s = self._clock()
        self._add_deadline(self._limits.total_s)
        has_own = self._limits.head_s < self._limits.total_s
        head_deadline = self._add_deadline(self._limits.head_s) if has_own else None
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._request(agent, url, headers, in_turn=in_turn)
            self._shorten_lifetime(response)
            location = _location(response)
            if location is None:
                if head_deadline is not None:
                    head_deadline.cancel()
                return self._final(response, url)
            if response.length != 0:  # without content, its connection can be reused
                self._hop.abort()
            self._redirected_s = self._clock() - self.begun_s
            target = _redirect_target(location, url)
            if target.origin != url.origin:  # credentials are dropped, also for the way back
                headers = {name: headers[name] for name in headers if name != "Authorization"}
            url, agent, in_turn = target, self._agent, True
        raise UpstreamFailed(f"redirects more than {MAX_REDIRECTS} times")

    def end(self) -> None:
        """End what is still running."""
        for deadline in self._deadlines:
            if deadline.active():
                deadline.cancel()
        if self._content is not None:
            self._content.stop()
        self._hop.abort()

    def timings(self) -> Timings:
        """What the fetch has cost until now, or to the end of the content."""
        ends = {phase: at - self.begun_s for phase, at in self._hop.phase_ends.items()}
        ended = None if self._content is None else self._content.ended
        return Timings(
            self._redirected_s,
            ends.get(Phase.LOOKUP),
            ends.get(Phase.CONNECT),
            ends.get(Phase.TLS),
            ends.get(Phase.FIRST_BYTE),
            (self._clock() if ended is None else ended) - self.begun_s,
        )

    async def _request(
        self, agent: PolicyAgent, url: Url, headers: Mapping[str, str], *, in_turn: bool
    ) -> IResponse:
        """Makes one hop. Returns the response when its head is complete."""
        caller = self._caller
        # The look-up of the service's own upstream must not wait for others of the caller.
        lookup_caller = caller if agent is self._agent else ""
        for is_retry in (False, True):
            hop = self._hop = Hop(self._clock, caller, lookup_caller, new_connection=is_retry)
            try:
                if in_turn or is_retry:
                    self._requesting = ensureDeferred(self._queue.turn(caller))
                    await self._requesting
                fields = treq_request.request_headers(url, headers)
                one_hop = agent.agent(url, hop, fields)
                self._requesting = treq_request.get(one_hop, url, self._reactor)
                response: IResponse = await self._requesting
            except Exception as error:
                hop.abort()
                if self._error is not None:
                    raise self._error from error
                if was_cancelled(error):
                    raise CancelledError from error
                if hop.is_reused and not hop.has_response:
                    continue  # the upstream has just closed the idle connection
                raise translate(error, hop) from error
            finally:
                self._requesting = None
            return response
        raise AssertionError("a new connection was used before")

    def _final(self, response: IResponse, url: Url) -> Response:
        limit = self._limits.max_bytes
        length = response.length if isinstance(response.length, int) else None
        if not 200 <= response.code <= 999 or (length is not None and length < 0):
            raise UpstreamFailed("does not respond in HTTP")
        if limit is not None and length is not None and length > limit:
            raise too_large(limit)
        content = self._content = UpstreamContent(
            self._reactor, self._hop, length, self._memory, limit
        )
        response.deliverBody(content)
        return Response(self, url, response.code, response.headers, length, content.body)

    def _shorten_lifetime(self, response: IResponse) -> None:
        headers = response.headers
        fresh = lifetime_s(*(_header(headers, name) for name in ("cache-control", "age", "vary")))
        self.lifetime_s = min(self.lifetime_s, fresh)

    def _add_deadline(self, seconds: float) -> IDelayedCall:
        call: IDelayedCall = self._reactor.callLater(seconds, self._on_deadline)
        self._deadlines.append(call)
        return call

    def _on_deadline(self) -> None:
        what = "no response" if self._content is None else "not all of its content"
        self._end_early(UpstreamTooSlow(f"{what} came in time"))

    def _end_early(self, error: MediaError) -> None:
        self._error = error
        if self._requesting is not None:
            self._requesting.cancel()
        elif self._content is not None:
            self._content.fail(error)  # if it has not ended


def _redirect_target(location: str, url: Url) -> Url:
    try:
        target = resolve(location, url)
    except ValueError as error:
        raise UpstreamFailed(f"redirects to a URL that cannot be fetched: {error}") from error
    if url.scheme == "https" and target.scheme == "http":
        raise UpstreamFailed("redirects from https to http")
    return target


def _header(headers: Headers, name: str) -> str | None:
    values = headers.getRawHeaders(name.encode())
    return b", ".join(values).decode("latin-1") if values else None


def _location(response: IResponse) -> str | None:
    """The Location of a redirect, None for other responses."""
    values: list[bytes] | None = response.headers.getRawHeaders(b"location")
    if response.code not in _REDIRECTS or not values:
        return None
    if len(set(values)) > 1:
        raise UpstreamFailed("redirects to more than one URL")
    try:
        return values[0].decode("utf-8")
    except UnicodeDecodeError:  # as browsers do
        return _NOT_ASCII.sub(lambda byte: b"%%%02X" % byte[0][0], values[0]).decode("ascii")
