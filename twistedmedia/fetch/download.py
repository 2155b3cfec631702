"""The whole content behind a URL, for an import: a transfer that breaks off is resumed."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from types import TracebackType
from typing import Self

from twisted.internet.task import deferLater

from twistedmedia.errors import Busy, UpstreamBrokeOff, UpstreamFailed, UpstreamTooSlow
from twistedmedia.fairness.pace import RECENT_S
from twistedmedia.fetch.fetcher import Fetcher, FetchLimits, Response
from twistedmedia.fetch.timings import Timings
from twistedmedia.fetch.urls import Url

# How long to wait before each attempt to resume: a service that restarts needs a moment.
RESUME_AFTER_S = (0.2, 1.0, 3.0)

_FOR_A_WHILE = frozenset({502, 503, 504})  # what proxies say of a service that restarts
_STRONG = re.compile(r'"[\x21\x23-\x7e\x80-\xff]*"')  # RFC 9110, 8.8.3
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)")


class Download:
    """The content of a URL: an async context manager, in which it is an async iterator of lists of
    chunks. `length` is how many bytes they will be, None when the upstream does not say.

    To enter it raises `UpstreamFailed` also when the response is another than 200 with the whole
    content.
    """

    def __init__(self, fetcher: Fetcher, url: Url, terms: FetchLimits, caller: str = "") -> None:
        """The fetch counts as one of `caller`."""
        self.length: int | None = None
        self.received = 0
        self._fetcher = fetcher
        self._url = url
        self._terms = terms
        self._caller = caller
        self._begun: float = fetcher.reactor.seconds()
        self._asked_s: float | None = self._begun  # since then a response is waited for
        self._fetching = AsyncExitStack()
        self._response: Response
        self._timings = Timings()
        self._etag: str | None = None
        self._skip = 0  # bytes of the response that came before, from another one
        self._attempts = iter(RESUME_AFTER_S)

    @property
    def timings(self) -> Timings:
        """What it has cost: the phases of the first response, and all the time until now."""
        return replace(self._timings, total=self._spent_s)

    async def __aenter__(self) -> Self:
        try:
            await self._begin()
        except BaseException:
            await self._fetching.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._fetching.aclose()

    def pace(self) -> float | None:
        """How many bytes a second the upstream sent lately, as `shares.Holder` says."""
        if self._asked_s is None:
            return self._response.body.pace()
        waited_s = self._fetcher.reactor.seconds() - self._asked_s
        return 0.0 if waited_s >= RECENT_S else None

    async def _begin(self) -> None:
        response = await self._open({})
        if response.status != 200:
            raise UpstreamFailed(f"responds with status {response.status}")
        self.length = response.length
        self._timings = response.timings
        etag = response.header("etag")
        self._etag = etag if etag is not None and _STRONG.fullmatch(etag) else None

    def __aiter__(self) -> AsyncIterator[list[bytes]]:
        return self

    async def __anext__(self) -> list[bytes]:
        while True:
            try:
                chunks = await self._response.body.read()
            except UpstreamBrokeOff as error:
                await self._resume(error)
                continue
            if not chunks:
                self._check_length()
                raise StopAsyncIteration
            if self._skip:
                chunks = self._new(chunks)
            if chunks:
                self.received += sum(map(len, chunks))
                return chunks

    async def _resume(self, broke_off: UpstreamBrokeOff) -> None:
        """Have the content go on where it has ended.

        :raises UpstreamFailed: when that cannot be, or has been tried as often as it is worth.
        """
        error: Exception = UpstreamBrokeOff(self.received)
        self._asked_s = self._fetcher.reactor.seconds()
        if self._etag is None:
            raise error from broke_off
        for pause_s in self._attempts:
            await self._fetching.aclose()
            await deferLater(self._fetcher.reactor, min(pause_s, self._left_s))
            wanted = {"Range": f"bytes={self.received}-", "If-Range": self._etag}
            try:
                response = await self._open(wanted)
            except (UpstreamFailed, UpstreamTooSlow, Busy) as again:
                error = again
                continue
            if response.status not in _FOR_A_WHILE:
                self._skip = self._overlap(response)
                return
            error = UpstreamFailed(f"responds with status {response.status} when it is to resume")
        raise error

    def _overlap(self, response: Response) -> int:
        """How many bytes of `response` have come before."""
        same = response.header("etag") == self._etag
        if response.status == 200 and same:
            return self.received  # it knows no ranges, but has the same content
        where = _CONTENT_RANGE.fullmatch(response.header("content-range") or "")
        changed = not same and response.header("etag") is not None
        if response.status != 206 or where is None or changed:
            raise UpstreamFailed(f"broke off after {self.received} bytes, and cannot resume")
        total = self.length if where[3] == "*" else int(where[3])
        if int(where[1]) != self.received or int(where[2]) + 1 != total:
            raise UpstreamFailed("resumes with another part than was asked for")
        if self.length not in (None, total):
            raise UpstreamFailed("resumes with content of another length")
        self.length = total
        return 0

    def _check_length(self) -> None:
        """A response that resumed another can be whole and yet not the rest of it."""
        if self._skip or self.length not in (None, self.received):
            raise UpstreamFailed("resumes with content of another length")

    async def _open(self, headers: Mapping[str, str]) -> Response:
        await self._fetcher.queue.turn(self._caller)
        if self._left_s == 0:
            raise UpstreamTooSlow("not all of its content came in time")
        terms = replace(self._terms, total_s=self._left_s)
        opening = self._fetcher.open(self._url, terms, headers, self._caller)
        self._response = await self._fetching.enter_async_context(opening)
        self._asked_s = None
        return self._response

    def _new(self, chunks: list[bytes]) -> list[bytes]:
        data = b"".join(chunks)
        skipped = min(self._skip, len(data))
        self._skip -= skipped
        return [data[skipped:]] if skipped < len(data) else []

    @property
    def _left_s(self) -> float:
        return max(0.0, self._terms.total_s - self._spent_s)

    @property
    def _spent_s(self) -> float:
        now: float = self._fetcher.reactor.seconds()
        return now - self._begun
