"""Sends requests to the service, with timeouts, limits and retries."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from twistedmedia import __version__
from twistedmedia.client.bodies import FileContent, ResponseContent
from twistedmedia.client.client_limits import MAX_RESPONSE_BYTES, MIN_BYTES_PER_S
from twistedmedia.client.exceptions import ClientError, InvalidResponse
from twistedmedia.client.failures import translate
from twistedmedia.client.idle_timeouts import ClientTimeouts, IdleTimer, MinRate
from twistedmedia.client.local_files import LocalFile
from twistedmedia.client.private_apis import ExactURL
from twistedmedia.client.responses import ServiceResponse, refusal
from twistedmedia.client.retries import Backoff, Retries
from twistedmedia.client.streams import StreamSource

T = TypeVar("T")

_USER_AGENT = f"twistedmedia/{__version__}".encode()


class FileSource:
    """The content of a request: `length` bytes of a file from offset `start` on.

    `on_sent` is called with the offset up to which the file is sent. `callback_error` is the
    exception that `on_sent` has raised.
    """

    callback_error: Exception | None = None

    def __init__(
        self, file: LocalFile, start: int, length: int, on_sent: Callable[[int], None]
    ) -> None:
        self._file = file
        self._start = start
        self._length = length
        self._on_sent = on_sent

    def producer(self, timer: IdleTimer, stall_s: float, response_s: float) -> IBodyProducer:
        """The body producer for one request. After each piece but the last, `timer` allows
        `stall_s` seconds for the next one; after the last, `response_s` for the response.
        """
        end = self._start + self._length
        offset = self._start

        def on_sent(size: int) -> None:
            nonlocal offset
            offset += size
            timer.reset(stall_s if offset < end else response_s)
            try:
                self._on_sent(offset)
            except Exception as error:
                self.callback_error = error
                raise

        content: IBodyProducer = FileContent(self._file, self._start, self._length, on_sent)
        return content


Content = bytes | FileSource | StreamSource | None


class Requester:
    """Sends requests through one agent to the service at the URL `service`, which errors name."""

    def __init__(
        self,
        reactor: Any,
        service: str,
        agent: IAgent,
        *,
        timeouts: ClientTimeouts,
        retries: Retries,
        on_retry: Callable[[ClientError, float], None],
        clock: Callable[[], float],
    ) -> None:
        """`on_retry` is called before each retry, with the failure and the seconds until the retry.
        `clock` returns the time since 1970 in seconds.
        """
        self.reactor = reactor
        self.timeouts = timeouts
        self.retries = retries
        self._service = service
        self._http = HTTPClient(_IdentityAgent(agent))
        self._on_retry = on_retry
        self._clock = clock

    async def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        content: Content = None,
        *,
        expected: tuple[int, ...] = (200,),
        response_s: float | None = None,
        max_bytes: int = MAX_RESPONSE_BYTES,
    ) -> ServiceResponse:
        """Send a request once. Returns the response, whose status is one of the `expected` ones.
        The response must begin within `response_s` seconds, and have at most `max_bytes` bytes.

        :raises Refused: when the status is another one.
        :raises Unreachable: when no complete response arrived.
        :raises InvalidResponse: when the response is too large.
        """
        timer = IdleTimer(self.reactor)
        try:
            response = await self._send(timer, method, url, headers, content, response_s)
            result = await self._read(timer, response, max_bytes)
        except Exception as error:  # noqa: BLE001 - translated, and raised again
            raise self._translate(error, timer, content) from None
        if result.status not in expected:
            raise self._refusal(result, url, response)
        return result

    async def receive(
        self,
        url: str,
        headers: Mapping[str, str],
        on_head: Callable[[ServiceResponse], Awaitable[None]],
        on_content: Callable[[list[bytes]], Awaitable[None]],
    ) -> None:
        """GET `url` once. Calls `on_head` with a 200 or 206 response without its content, then
        `on_content` with pieces of the content, one call after the other.

        :raises Refused: when the status is another one.
        :raises Unreachable: when the content did not arrive completely.
        """
        timer = IdleTimer(self.reactor)
        content: ResponseContent | None = None
        try:
            response = await self._send(timer, "GET", url, headers, None, None)
            if response.code not in (200, 206):
                refused = await self._read(timer, response, MAX_RESPONSE_BYTES)
                raise self._refusal(refused, url, response)
            content = ResponseContent()
            response.deliverBody(content)
            await on_head(ServiceResponse(response.code, _fields(response)))
            rate = self._min_rate()
            while pieces := await rate.watch(timer, content.read()):
                await on_content(pieces)
        except Exception as error:  # noqa: BLE001 - translated, and raised again
            raise self._translate(error, timer, None) from None
        finally:
            if content is not None:
                content.abandon()

    async def retry(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Call `attempt` until it succeeds, or fails for good. Returns its result.

        :raises ClientError: the error of the last attempt.
        """
        backoff = Backoff(self.retries)
        while True:
            try:
                return await attempt()
            except ClientError as error:
                await self.wait_or_raise(error, backoff.wait_s(error))

    async def wait_or_raise(self, error: ClientError, wait_s: float | None) -> None:
        """Wait before the next attempt, or raise `error` if `wait_s` is None."""
        if wait_s is None:
            raise error
        self._on_retry(error, wait_s)
        await deferLater(self.reactor, wait_s)

    def _send(
        self,
        timer: IdleTimer,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        content: Content,
        response_s: float | None,
    ) -> Awaitable[IResponse]:
        limit_s = self.timeouts.response_s if response_s is None else response_s
        data: bytes | IBodyProducer | None
        if isinstance(content, FileSource | StreamSource):
            data = content.producer(timer, self.timeouts.stall_s, limit_s)
        else:
            data = content
        requested: Deferred[Any] = self._http.request(
            method,
            ExactURL(url),
            headers=Headers({name: [value] for name, value in (headers or {}).items()}),
            data=data,
            allow_redirects=False,  # content and names for this service are never sent elsewhere
            unbuffered=True,
            reactor=self.reactor,
        )
        return timer.watch(requested, limit_s)

    async def _read(self, timer: IdleTimer, response: IResponse, max_bytes: int) -> ServiceResponse:
        content = ResponseContent()
        response.deliverBody(content)
        received = bytearray()
        rate = self._min_rate()
        try:
            while pieces := await rate.watch(timer, content.read()):
                received += b"".join(pieces)
                if len(received) > max_bytes:
                    raise InvalidResponse("the response is larger than any response of the service")
        finally:
            content.abandon()
        return ServiceResponse(response.code, _fields(response), bytes(received))

    def _refusal(self, result: ServiceResponse, url: str, response: IResponse) -> ClientError:
        return refusal(result, url, response.phrase.decode("latin-1"), self._clock())

    def _translate(self, error: Exception, timer: IdleTimer, content: Content) -> Exception:
        if isinstance(content, FileSource | StreamSource) and content.callback_error is not None:
            return content.callback_error
        return translate(error, self._service, cancelled=timer.cancelled, expired=timer.expired)

    def _min_rate(self) -> MinRate:
        return MinRate(self.reactor, MIN_BYTES_PER_S, self.timeouts.stall_s)


@implementer(IAgent)
class _IdentityAgent:
    """Sets User-Agent, and requests content without a coding. treq would request gzip, but a Range
    counts the bytes of the content as it is sent.
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
        requested: Deferred[IResponse] = self._agent.request(method, uri, headers, bodyProducer)
        return requested.addCallback(_check_coding)


def _check_coding(response: IResponse) -> IResponse:
    codings = response.headers.getRawHeaders(b"Content-Encoding", [])
    if any(coding.strip().lower() not in (b"", b"identity") for coding in codings):
        content = ResponseContent()
        response.deliverBody(content)
        content.abandon()
        raise InvalidResponse("the response has a content coding that was not requested")
    return response


def _fields(response: IResponse) -> dict[str, str]:
    fields = {
        name.decode("latin-1").lower(): ", ".join(value.decode("latin-1") for value in values)
        for name, values in response.headers.getAllRawHeaders()
    }
    if isinstance(response.length, int):  # Twisted removes Content-Length from the headers
        fields.setdefault("content-length", str(response.length))
    return fields
