"""The pages of listings that are queued, rendered and sent. All waiting requests share one page.

A page can have megabytes, and rendering it can take a second of computing. So callers take turns,
batch by batch. A page counts in the share of a caller from when its size can be estimated. Equal
pages are one object in memory (`web.large_responses`).
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.server import Request

from twistedmedia.errors import RETRY_AFTER_S, BadRequest, Busy
from twistedmedia.fairness.shares import LONGEST_WAIT_S, Share
from twistedmedia.http.connection import MediaChannel
from twistedmedia.http.timeouts import PeriodicScan
from twistedmedia.library.caller import ANY_CALLER
from twistedmedia.library.library import Library
from twistedmedia.web.arguments import caller_of
from twistedmedia.web.fair_scheduler import FairScheduler
from twistedmedia.web.large_responses import SMALL_BYTES, LargeResponse, LargeResponses
from twistedmedia.web.page_content import PageKey, PageRenderer, PageSizes, PartialPage

# Rendering threads compete for the interpreter's lock, which the event loop needs as well.
_MAX_RENDERING = 2
# How many requests get the page, or its failure, in one turn of the event loop.
_RESOLVED_PER_TURN = 16
# How many pages one caller may wait for. All clients behind an untrusted proxy are one caller.
_MAX_PAGES_PER_CALLER = 64
# A page of at most this many names is short. It is the default limit of a request.
_SHORT_NAMES = 1_000
# How long a page may wait for memory after the last rendering that held memory.
_MEMORY_SOON_S = 0.5
# How many pages may wait for memory, since each of them retries periodically.
_MAX_WAITING_FOR_MEMORY = 256


class ListingPages:
    """The pages of a library's directories."""

    def __init__(
        self,
        library: Library,
        responses: LargeResponses,
        renderer_for: Callable[[PageKey], PageRenderer],
    ) -> None:
        self.library = library
        self.memory = responses.memory
        self.renderer_for = renderer_for
        self.sizes = PageSizes()
        self.scheduler = FairScheduler(_MAX_RENDERING)
        self._responses = responses
        self._joinable: dict[PageKey, _Rendering] = {}  # not started
        self._started: dict[PageKey, _Rendering] = {}
        self._waiting_for_memory: dict[_Rendering, int] = {}  # and how many bytes each needs
        self._memory_released_s = -_MEMORY_SOON_S
        self._retries: PeriodicScan | None = None
        self._pages_awaited: Counter[str] = Counter()  # by caller
        # Pages that are being sent. They are in no reference cycle, so the last reader frees them.
        self._sending: WeakValueDictionary[PageKey, LargeResponse] = WeakValueDictionary()

    def get(self, request: Request, key: PageKey) -> Deferred[LargeResponse]:
        """Render the page, or wait for it together with other requests.

        Its directory is read after this call, so the page has every change that was acknowledged
        before. Cancelling ends the waiting.

        Fails with `NotFound` if the directory does not exist, with `Busy` if there is no memory for
        the page, and with `BadRequest` if the page is larger than all memory for responses.

        :raises Busy: if the caller waits for too many pages.
        """
        caller = caller_of(request).key
        rendering = self._joinable.get(key)
        is_another = rendering is None or caller not in rendering.callers
        if is_another and self._pages_awaited[caller] >= _MAX_PAGES_PER_CALLER:
            raise Busy(RETRY_AFTER_S)
        if rendering is None:
            assert request.site is not None, "it is being rendered"
            rendering = _Rendering(self, key, request.site.reactor)
            self._joinable[key] = rendering
        return rendering.add_request(caller, request.channel)

    # Called by renderings

    def caller_joined(self, caller: str, rendering: _Rendering) -> None:
        """Note that one more caller waits for the page."""
        self._pages_awaited[caller] += 1
        if rendering.key not in self._started:  # else it is scheduled when that one has ended
            self._waiting_for_memory.pop(rendering, None)
            self.scheduler.add(caller, rendering)

    def caller_left(self, caller: str, rendering: _Rendering) -> None:
        """Note that a caller does not wait for the page any more."""
        self._pages_awaited[caller] -= 1
        if not self._pages_awaited[caller]:
            del self._pages_awaited[caller]
        self.scheduler.remove(caller, rendering)

    def schedule(self, rendering: _Rendering) -> None:
        """Have the next step done in the next turn of any of its callers."""
        for caller in list(rendering.callers):
            # The step may have begun in the turn of a caller before.
            if not (rendering.is_busy or rendering in self._waiting_for_memory):
                is_started = rendering.key in self._started
                self.scheduler.add(caller, rendering, is_started=is_started)

    def unschedule(self, rendering: _Rendering) -> None:
        """Remove it from the queues of all its callers."""
        for caller in rendering.callers:
            self.scheduler.remove(caller, rendering)

    def wait_for_memory(
        self, caller: str, rendering: _Rendering, size: int, waited_s: float, clock: IReactorTime
    ) -> bool:
        """Let the rendering wait for `size` bytes of memory, if it may. It has waited for
        `waited_s`. Returns whether it waits, which it may in two cases:

        - The caller is within its share, as `Shares.may_wait` says, and the wait is not too long.
        - A rendering holds memory, or did until just now. The caller has no page in its share, and
          no other page that waits for memory.
        """
        others = [
            needed for other, needed in self._waiting_for_memory.items() if caller in other.callers
        ]
        if waited_s < LONGEST_WAIT_S and self.memory.may_wait(caller, size, sum(others)):
            may_wait = True
        else:
            is_soon = clock.seconds() - self._memory_released_s < _MEMORY_SOON_S or any(
                started.holds_memory for started in self._started.values()
            )
            may_wait = is_soon and not (others or self.memory.held_by(caller))
        may_wait = may_wait and len(self._waiting_for_memory) < _MAX_WAITING_FOR_MEMORY
        if may_wait:
            self._waiting_for_memory[rendering] = size
            if self._retries is None:
                self._retries = PeriodicScan(clock, _MEMORY_SOON_S / 5, self._on_retry)
            self._retries.begin()
        return may_wait

    def _on_retry(self, _: float) -> bool:
        waiting, self._waiting_for_memory = self._waiting_for_memory, {}
        for rendering in waiting:
            self.schedule(rendering)
        if not self._waiting_for_memory and self._retries is not None:
            self._retries.end()
        return False

    def memory_released(self, now_s: float) -> None:
        """Note that a rendering that held memory has ended. Readers of its page may be fast."""
        self._memory_released_s = now_s

    @property
    def has_waiting(self) -> bool:
        """Whether any rendering waits for its turn, or for memory."""
        return not self.scheduler.is_empty or bool(self._waiting_for_memory)

    def started(self, rendering: _Rendering) -> None:
        """Note that it reads its directory from now on. New requests start another rendering."""
        self._joinable.pop(rendering.key, None)
        self._started[rendering.key] = rendering

    def sending(self, key: PageKey) -> LargeResponse | None:
        """The version of the page that is being sent now, if any."""
        return self._sending.get(key)

    def response(self, key: PageKey, content: memoryview) -> LargeResponse:
        """The response with `content`, shared with a page that is being sent if it is the same."""
        page = self._sending.get(key)
        if page is None or page.content is not content:
            page = self._sending[key] = LargeResponse(content, "a listing", self._responses)
        return page

    def ended(self, rendering: _Rendering) -> None:
        """Note that it has ended, or that nothing waits for it any more."""
        self._waiting_for_memory.pop(rendering, None)
        key = rendering.key
        for renderings in (self._joinable, self._started):
            if renderings.get(key) is rendering:
                del renderings[key]
        following = self._joinable.get(key)
        if following is not None and key not in self._started:
            self.schedule(following)


class _Rendering:
    """The rendering of one page, and the requests that wait for it.

    It is a `Job`, and a `shares.Holder` that does not give way.
    """

    def __init__(self, pages: ListingPages, key: PageKey, clock: IReactorTime) -> None:
        self.key = key
        self.callers: Counter[str] = Counter()  # of the requests
        self.is_busy = False  # a batch is being rendered, or the rendering has ended
        self._pages = pages
        self._clock = clock
        self._requests: dict[Deferred[LargeResponse], tuple[str, Any]] = {}  # caller and channel
        self._share: Share | None = None
        self._waits_since_s: float | None = None  # for memory
        self._page: PartialPage | None = None

    @property
    def is_short(self) -> bool:
        """Whether the page has few names."""
        return self.key.limit <= _SHORT_NAMES

    @property
    def holds_memory(self) -> bool:
        """Whether memory is released when the rendering ends."""
        return self._share is not None

    def add_request(self, caller: str, channel: Any) -> Deferred[LargeResponse]:
        """Wait for the page, which will be sent on `channel`."""
        waiting: Deferred[LargeResponse] = Deferred(self._on_cancelled)
        self._requests[waiting] = (caller, channel)
        self.callers[caller] += 1
        if self.callers[caller] == 1:
            self._pages.caller_joined(caller, self)
        return waiting

    def step(self, caller: str) -> None:
        self._pages.unschedule(self)
        if not self._has_memory(caller):
            self._pages.schedule(self)  # other callers may have memory for the page
            self._pages.scheduler.step_ended(caller, 0.0)
            return
        self.is_busy = True
        began_s = self._clock.seconds()
        # `step` must not raise, whatever the store does.
        maybeDeferred(self._render).addBoth(self._on_rendered, caller, began_s)

    def pace(self) -> float | None:
        return math.inf

    def give_way(self) -> None:
        raise AssertionError("it ends by itself soon")

    def _render(self) -> Deferred[memoryview | None]:
        if self._page is None:
            self._pages.started(self)
            key = self.key
            # The scheduler gave the callers their turns. If the store gave this read a turn of one
            # of them again, the other callers would wait for all reads of that one.
            listed = self._pages.library.list_directory(
                ANY_CALLER, key.folders, key.after, key.limit
            )
            self._page = PartialPage(
                listed, self._pages.renderer_for(key), self._pages.sending(key)
            )
        return self._page.render_batch()

    def _on_rendered(
        self, content: memoryview | Failure | None, caller: str, began_s: float
    ) -> None:
        self.is_busy = False
        if isinstance(content, Failure):
            self._end(content)
        else:
            assert self._page is not None, "it was rendered"
            size, max_bytes = self._page.size, self._pages.memory.total
            self._pages.sizes.record(self.key, self._page)
            if size > max_bytes:
                reason = (
                    f"the page has at least {size} bytes, and all responses in memory may have "
                    f"{max_bytes}; ask for fewer names with 'limit'"
                )
                self._end(Failure(BadRequest(reason)))
            elif content is not None:
                self._end(self._pages.response(self.key, content))
            elif self._requests:
                self._pages.schedule(self)
            else:
                self._end(None)
        self._pages.scheduler.step_ended(caller, self._clock.seconds() - began_s)

    def _has_memory(self, caller: str) -> bool:
        """Put the memory that the page is expected to need into the share of a caller.

        Returns whether the page has its memory, or needs none. If not, the page waits for memory,
        or the requests of `caller` are refused.
        """
        expected = self._expected_size()
        if expected <= SMALL_BYTES:
            return True
        if self._pages.has_waiting:
            # Most clients that closed their sending side are gone, which only a write would show.
            # They get a response (RFC 9112, 9.6), but no other request waits for a large page that
            # they asked for.
            self._refuse(
                [each for each, (_, channel) in self._requests.items() if _is_closed(channel)]
            )
            if caller not in self.callers:
                return False
        share = self._share
        if share is not None and share.caller in self.callers and share.amount >= expected:
            return True
        self._release()
        now_s = self._clock.seconds()
        waited_s = 0.0 if self._waits_since_s is None else now_s - self._waits_since_s
        try:
            self._share = self._pages.memory.take(caller, self, expected, waited_s=waited_s)
        except Busy:
            self._page = None  # its memory would be in no share
            self._waits_since_s = now_s - waited_s
            if not self._pages.wait_for_memory(caller, self, expected, waited_s, self._clock):
                self._refuse(
                    [each for each, (owner, _) in self._requests.items() if owner == caller]
                )
            return False
        self._waits_since_s = None
        return True

    def _expected_size(self) -> int:
        """How many bytes of memory the page is expected to need, 0 if that is not known."""
        if self._page is not None and self._page.is_lost:
            self._page = None
        if self._page is not None:
            expected = self._page.expected_size
        elif self._pages.sending(self.key) is not None:
            expected = 0  # the page may be equal
        else:
            expected = self._pages.sizes.estimate(self.key)
        return min(expected, self._pages.memory.total)

    def _refuse(self, requests: list[Deferred[LargeResponse]]) -> None:
        """Fail `requests`, because the service is busy."""
        for each in requests:
            self._remove(each)
        if not self.callers:
            self._end(None)
        self._resolve(deque(requests), Failure(Busy(RETRY_AFTER_S)))

    def _remove(self, waiting: Deferred[LargeResponse]) -> None:
        caller, _ = self._requests.pop(waiting)
        self.callers[caller] -= 1
        if not self.callers[caller]:
            del self.callers[caller]
            self._pages.caller_left(caller, self)

    def _on_cancelled(self, waiting: Deferred[LargeResponse]) -> None:
        if waiting in self._requests:  # else it is being resolved
            self._remove(waiting)
            if not (self._requests or self.is_busy):
                self._end(None)

    def _end(self, outcome: LargeResponse | Failure | None) -> None:
        """End the rendering. All waiting requests get `outcome`."""
        self.is_busy = True
        for caller in self.callers:
            self._pages.caller_left(caller, self)
        self.callers.clear()
        waiting = deque(self._requests)
        self._requests.clear()
        self._page = None
        if self._share is not None:
            self._pages.memory_released(self._clock.seconds())
        self._release()
        if outcome is not None:  # its readers take the memory that was released
            self._resolve(waiting, outcome)
        self._pages.ended(self)

    def _release(self) -> None:
        if self._share is not None:
            self._share.release()
            self._share = None

    def _resolve(
        self, waiting: deque[Deferred[LargeResponse]], outcome: LargeResponse | Failure
    ) -> None:
        for _ in range(min(_RESOLVED_PER_TURN, len(waiting))):
            each = waiting.popleft()
            if not each.called:  # the callback of one may have cancelled another
                each.callback(outcome)
        if waiting:
            self._clock.callLater(0, self._resolve, waiting, outcome)


def _is_closed(channel: Any) -> bool:
    """Whether the peer closed its sending side."""
    return isinstance(channel, MediaChannel) and channel.closing.is_half_closed
