"""Requests to the service: one, or as many as it takes."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from hyperlink import EncodedURL
from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from twistedmedia import __version__
from twistedmedia.client.bodies import FileContent, ResponseContent
from twistedmedia.client.bounds import LEAST_BYTES_PER_S, MAX_ANSWER_BYTES
from twistedmedia.client.exceptions import ClientError, InvalidResponse
from twistedmedia.client.failures import broken
from twistedmedia.client.idle_timeouts import ClientTimeouts, IdleTimer, LeastPace
from twistedmedia.client.local_files import LocalFile
from twistedmedia.client.responses import ServiceResponse, refusal
from twistedmedia.client.retries import Backoff, Retries
from twistedmedia.client.streams import SentStream

T = TypeVar("T")

_USER_AGENT = f"twistedmedia/{__version__}".encode()


class Requester:
    """Requests by one agent, with one patience, to `service`, whose URL errors name. `waiting` is
    told of each failure that is not to stand, and of the seconds until the next attempt.
    """

    def __init__(
        self,
        reactor: Any,
        service: str,
        agent: IAgent,
        timeouts: ClientTimeouts,
        retries: Retries,
        waiting: Callable[[ClientError, float], None],
    ) -> None:
        self.reactor = reactor
        self.timeouts = timeouts
        self.retries = retries
        self._service = service
        self._http = HTTPClient(_Identity(agent))
        self._waiting = waiting

    async def ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        content: bytes | SentFile | SentStream | None = None,
        *,
        hoped_for: tuple[int, ...] = (200,),
        answer_s: float | None = None,
        most_bytes: int = MAX_ANSWER_BYTES,
    ) -> ServiceResponse:
        """Make a request once. Returns the answer, whose status is one of those that are
        `hoped_for`. It has to begin within `answer_s` seconds, and has `most_bytes` at most.

        :raises Refused: when the status is another one.
        :raises Unreachable: when there was no whole answer.
        :raises Garbled: when the answer is larger than any answer is.
        """
        watch = IdleTimer(self.reactor)
        try:
            response = await self._respond(watch, method, url, headers, content, answer_s)
            answer = await self._whole(watch, response, most_bytes)
        except Exception as error:  # noqa: BLE001 - told apart, and raised again
            raise self._broken(error, watch, content) from None
        if answer.status not in hoped_for:
            raise refusal(answer, url, _text(response.phrase), time.time())
        return answer

    async def receive(
        self,
        url: str,
        headers: Mapping[str, str],
        begin: Callable[[ServiceResponse], Awaitable[None]],
        take: Callable[[list[bytes]], Awaitable[None]],
    ) -> None:
        """GET `url` once: `begin` is given the answer without its content when it is a 200 or a
        206, `take` the pieces of the content one after the other.

        :raises Refused: when the status is another one.
        :raises Unreachable: when the content did not come to its end.
        """
        watch = IdleTimer(self.reactor)
        content: ResponseContent | None = None
        try:
            response = await self._respond(watch, "GET", url, headers, None, None)
            if response.code not in (200, 206):
                answer = await self._whole(watch, response, MAX_ANSWER_BYTES)
                raise refusal(answer, url, _text(response.phrase), time.time())
            content = ResponseContent()
            response.deliverBody(content)
            await begin(ServiceResponse(response.code, _fields(response)))
            pace = self._pace()
            while pieces := await pace.over(watch, content.read()):
                await take(pieces)
        except Exception as error:  # noqa: BLE001 - told apart, and raised again
            raise self._broken(error, watch, None) from None
        finally:
            if content is not None:
                content.abandon()

    async def persist(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """What `attempt` returns, once it does not fail in a way that may pass.

        :raises ClientError: of the last attempt.
        """
        backoff = Backoff(self.retries)
        while True:
            try:
                return await attempt()
            except ClientError as error:
                await self.wait(error, backoff.wait_s(error))

    async def wait(self, error: ClientError, wait_s: float | None) -> None:
        """Wait before another attempt; raise `error` when there is to be none."""
        if wait_s is None:
            raise error
        self._waiting(error, wait_s)
        await deferLater(self.reactor, wait_s)

    def _broken(
        self, error: Exception, watch: IdleTimer, content: bytes | SentFile | SentStream | None
    ) -> Exception:
        if isinstance(content, SentFile | SentStream) and content.fault is not None:
            return content.fault
        return broken(error, self._service, cancelled=watch.cancelled, expired=watch.expired)

    def _respond(
        self,
        watch: IdleTimer,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        content: bytes | SentFile | SentStream | None,
        answer_s: float | None,
    ) -> Awaitable[IResponse]:
        limit_s = self.timeouts.answer_s if answer_s is None else answer_s
        data: bytes | IBodyProducer | None = None
        if isinstance(content, SentFile | SentStream):
            data = content.producer(watch, self.timeouts.stall_s, limit_s)
        else:
            data = content
        asked: Deferred[Any] = self._http.request(
            method,
            _Exact(url),
            headers=Headers({name: [value] for name, value in (headers or {}).items()}),
            data=data,
            allow_redirects=False,  # bytes and names meant for this service go nowhere else
            unbuffered=True,
            reactor=self.reactor,
        )
        return watch.over(asked, limit_s)

    def _pace(self) -> LeastPace:
        return LeastPace(self.reactor, LEAST_BYTES_PER_S, self.timeouts.stall_s)

    async def _whole(
        self, watch: IdleTimer, response: IResponse, most_bytes: int
    ) -> ServiceResponse:
        content = ResponseContent()
        response.deliverBody(content)
        received = bytearray()
        pace = self._pace()
        try:
            while pieces := await pace.over(watch, content.read()):
                received += b"".join(pieces)
                if len(received) > most_bytes:
                    raise InvalidResponse("the answer is larger than any answer of the service")
        finally:
            content.abandon()
        return ServiceResponse(response.code, _fields(response), bytes(received))


class SentFile:
    """The content of a request: `length` bytes of a file from `start` on. `moved` is called with
    how many bytes of the file are sent, those before `start` included. `fault` is what that has
    raised.
    """

    fault: Exception | None = None

    def __init__(
        self, file: LocalFile, start: int, length: int, moved: Callable[[int], None]
    ) -> None:
        self._file = file
        self._start = start
        self._length = length
        self._moved = moved

    def producer(self, watch: IdleTimer, stall_s: float, answer_s: float) -> IBodyProducer:
        """The same for Twisted's client. While it goes, `watch` waits for `stall_s`, and after
        that for `answer_s`.
        """
        end = self._start + self._length
        sent = self._start

        def moved(size: int) -> None:
            nonlocal sent
            sent += size
            watch.moved(stall_s if sent < end else answer_s)
            try:
                self._moved(sent)
            except Exception as error:
                self.fault = error
                raise

        content: IBodyProducer = FileContent(self._file, self._start, self._length, moved)
        return content


class _Exact(EncodedURL):
    """A URL that treq sends as it is. By itself it would encode it anew, and refuse hosts with an
    underscore.
    """

    def __init__(self, url: str) -> None:
        self._exact = url

    def to_uri(self) -> _Exact:
        """The same."""
        return self

    def to_text(self, with_password: bool = False) -> str:
        """The URL, in ASCII."""
        return self._exact


@implementer(IAgent)
class _Identity:
    """Says who asks, and asks for files as they are. treq would have them compressed, and Range
    means the bytes of what is sent.
    """

    def __init__(self, agent: IAgent) -> None:
        self._agent = agent

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        headers = Headers() if headers is None else headers.copy()
        headers.setRawHeaders(b"Accept-Encoding", [b"identity"])
        headers.setRawHeaders(b"User-Agent", [_USER_AGENT])
        asked: Deferred[IResponse] = self._agent.request(method, uri, headers, bodyProducer)
        return asked.addCallback(_as_it_is)


def _as_it_is(response: IResponse) -> IResponse:
    codings = response.headers.getRawHeaders(b"Content-Encoding", [])
    if any(coding.strip().lower() not in (b"", b"identity") for coding in codings):
        content = ResponseContent()
        response.deliverBody(content)
        content.abandon()
        raise InvalidResponse("the answer comes in a coding that was not asked for")
    return response


def _fields(response: IResponse) -> dict[str, str]:
    fields = {
        name.decode("latin-1").lower(): ", ".join(value.decode("latin-1") for value in values)
        for name, values in response.headers.getAllRawHeaders()
    }
    if isinstance(response.length, int):  # Twisted takes it from among the headers
        fields.setdefault("content-length", str(response.length))
    return fields


def _text(phrase: bytes) -> str:
    return phrase.decode("latin-1")
