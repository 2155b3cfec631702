"""Pages of listings: rendered once for all who ask at the same time, and bounded in total.

A page can be megabytes, and rendering it a second of computing. So callers take turns, batch by
batch, and a page is in the share of a caller from the time when its size can be estimated. Equal
pages are one object in memory (`web.large`).
"""

from __future__ import annotations

import math
import sys
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol
from weakref import WeakValueDictionary, ref

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
from twistedmedia.packed import Packing, pieces_of
from twistedmedia.store.interface import Batch, Listed
from twistedmedia.web.arguments import caller_of
from twistedmedia.web.large_responses import SMALL_BYTES, LargeResponse, LargeResponses
from twistedmedia.web.rendering import FairScheduler

# All threads compute with the same lock, which the event loop needs as well.
_RENDERED_AT_ONCE = 2
# So many readers begin to be sent a page in one turn of the loop.
_TOLD_A_TURN = 16
# For so many pages one caller may wait. What comes from behind a proxy is one caller's.
_MOST_WAITING = 64
# Pages of so many names are short: those that clients ask for unless they say how many.
_FEW_NAMES = 1_000
# A page waits for memory as long as that after the last page that was rendered.
_SOON_S = 0.5
# So many pages wait for memory: each is tried again and again.
_MOST_ASIDE = 256
# Of so many pages the size is remembered.
_MOST_SIZES = 256


@dataclass(frozen=True, slots=True)
class Which:
    """Which page: of `folders`, the names after `after`, at most `limit` of them. `mounted` is the
    path under which media are served.
    """

    folders: tuple[str, ...]
    after: str
    limit: int
    mounted: str


class Text(Protocol):
    """Makes the content of a page."""

    def of(self, batch: Batch) -> Iterable[bytes]:
        """The part of the content that shows `batch`, the next one. Called in a thread."""


class Listings:
    """The pages of a library's directories."""

    def __init__(
        self, library: Library, responses: LargeResponses, text: Callable[[Which], Text]
    ) -> None:
        self.library = library
        self.memory = responses.memory
        self.text = text
        self.sizes = _Sizes()
        self.queue = FairScheduler(_RENDERED_AT_ONCE)
        self._responses = responses
        self._joinable: dict[Which, _Rendering] = {}  # they have not begun
        self._begun: dict[Which, _Rendering] = {}
        # They wait for memory: so many bytes.
        self._aside: dict[_Rendering, int] = {}
        self._ended_s = -_SOON_S  # when the last rendering that held memory ended
        self._rounds: PeriodicScan | None = None
        self._waits_for: Counter[str] = Counter()  # how many pages each caller waits for
        # Those that are being sent: a reference count ends them, since they are in no cycle.
        self._pages: WeakValueDictionary[Which, LargeResponse] = WeakValueDictionary()

    def page(self, request: Request, which: Which) -> Deferred[LargeResponse]:
        """The page as it is now: its folder is read after this call, so a change that was
        acknowledged before is in it. Cancelling ends the waiting.

        Fails with `NotFound` when there is no such directory, with `Busy` when there is no memory
        for the page, and with `BadRequest` when there never will be.

        :raises Busy: when the caller waits for too many pages.
        """
        caller = caller_of(request).key
        rendering = self._joinable.get(which)
        is_another = rendering is None or caller not in rendering.callers
        if is_another and self._waits_for[caller] >= _MOST_WAITING:
            raise Busy(RETRY_AFTER_S)
        if rendering is None:
            assert request.site is not None, "it is being rendered"
            rendering = _Rendering(self, which, request.site.reactor)
            self._joinable[which] = rendering
        return rendering.join(caller, request.channel)

    # What a rendering calls

    def joined(self, caller: str, rendering: _Rendering) -> None:
        """One more caller waits for it."""
        self._waits_for[caller] += 1
        if rendering.which not in self._begun:  # else it is queued when that has ended
            self._aside.pop(rendering, None)
            self.queue.add(caller, rendering)

    def left(self, caller: str, rendering: _Rendering) -> None:
        """A caller does not wait for it any more."""
        self._waits_for[caller] -= 1
        if not self._waits_for[caller]:
            del self._waits_for[caller]
        self.queue.remove(caller, rendering)

    def enqueue(self, rendering: _Rendering) -> None:
        """It is to go on, or to begin, in the next turn of any of its callers."""
        for caller in list(rendering.callers):
            # The first of them may have its turn at once.
            if not (rendering.is_busy or rendering in self._aside):
                self.queue.add(caller, rendering, is_begun=rendering.which in self._begun)

    def unqueue(self, rendering: _Rendering) -> None:
        """It has its turn."""
        for caller in rendering.callers:
            self.queue.remove(caller, rendering)

    def put_aside(
        self, caller: str, rendering: _Rendering, amount: int, waited_s: float, clock: IReactorTime
    ) -> bool:
        """Have it wait for an `amount` of memory, for which it has waited for `waited_s`. Whether
        it waits. It does in two cases:

        - The caller is within its share, as `Shares.may_wait` says, and the wait is not too long.
        - Another rendering holds memory, or held some until just now, and the caller has no page in
          its share, nor one aside.
        """
        others = [most for other, most in self._aside.items() if caller in other.callers]
        if waited_s < LONGEST_WAIT_S and self.memory.may_wait(caller, amount, sum(others)):
            may_wait = True
        else:
            is_soon = clock.seconds() - self._ended_s < _SOON_S or self._is_memory_rendered_into()
            may_wait = is_soon and not (others or self.memory.held_by(caller))
        may_wait = may_wait and len(self._aside) < _MOST_ASIDE
        if may_wait:
            self._aside[rendering] = amount
            if self._rounds is None:
                self._rounds = PeriodicScan(clock, _SOON_S / 5, self._try_again)
            self._rounds.begin()
        return may_wait

    def _is_memory_rendered_into(self) -> bool:
        return any(other.holds_memory for other in self._begun.values())

    def _try_again(self, _: float) -> bool:
        aside, self._aside = self._aside, {}
        for rendering in aside:
            self.enqueue(rendering)
        if not self._aside and self._rounds is not None:
            self._rounds.end()
        return False

    def note_released(self, now_s: float) -> None:
        """A rendering that held memory has ended. Its page is being sent, perhaps to readers that
        are fast.
        """
        self._ended_s = now_s

    @property
    def others_wait(self) -> bool:
        """Whether there are renderings that wait for their turn, or for memory."""
        return not self.queue.is_empty or bool(self._aside)

    def begin(self, rendering: _Rendering) -> None:
        """It reads its folder from now on: nobody may join it any more."""
        self._joinable.pop(rendering.which, None)
        self._begun[rendering.which] = rendering

    def sent(self, which: Which) -> LargeResponse | None:
        """The page that is being sent now, if there is one."""
        return self._pages.get(which)

    def held(self, which: Which, content: memoryview) -> LargeResponse:
        """The page that has this content."""
        page = self._pages.get(which)
        if page is None or page.content is not content:
            page = self._pages[which] = LargeResponse(content, "a listing", self._responses)
        return page

    def end(self, rendering: _Rendering) -> None:
        """It has ended, or nobody waits for it."""
        self._aside.pop(rendering, None)
        which = rendering.which
        for those in (self._joinable, self._begun):
            if those.get(which) is rendering:
                del those[which]
        following = self._joinable.get(which)
        if following is not None and which not in self._begun:
            self.enqueue(following)


class _Rendering:
    """A page that is to be rendered, or is being rendered, and the requests that wait for it. It is
    a job, and a `shares.Holder` that does not give way.
    """

    def __init__(self, listings: Listings, which: Which, clock: IReactorTime) -> None:
        self.which = which
        self.callers: Counter[str] = Counter()
        self.is_busy = False  # a batch is being rendered, or the page has ended
        self._listings = listings
        self._clock = clock
        self._waiting: dict[Deferred[LargeResponse], tuple[str, Any]] = {}
        self._share: Share | None = None
        self._waits_since_s: float | None = None  # if it waits for memory
        self._page: _PageInProgress | None = None

    @property
    def is_short(self) -> bool:
        """Whether the page has few names."""
        return self.which.limit <= _FEW_NAMES

    @property
    def holds_memory(self) -> bool:
        """Whether there is memory to be released when it ends."""
        return self._share is not None

    def join(self, caller: str, channel: Any) -> Deferred[LargeResponse]:
        """Wait for the page, which is to be sent on `channel`."""
        waiting: Deferred[LargeResponse] = Deferred(self._leave)
        self._waiting[waiting] = (caller, channel)
        self.callers[caller] += 1
        if self.callers[caller] == 1:
            self._listings.joined(caller, self)
        return waiting

    def step(self, caller: str) -> None:
        self._listings.unqueue(self)
        if not self._may_go_on(caller):
            self._listings.enqueue(self)  # others may have memory for the page
            self._listings.queue.ended(caller, 0.0)
            return
        self.is_busy = True
        began_s = self._clock.seconds()
        # It must not raise, whatever the store does.
        maybeDeferred(self._render).addBoth(self._stepped, caller, began_s)

    def pace(self) -> float | None:
        return math.inf

    def give_way(self) -> None:
        raise AssertionError("it ends by itself soon")

    def _render(self) -> Deferred[memoryview | None]:
        if self._page is None:
            self._listings.begin(self)
            which = self.which
            # The callers took turns already. In those of one of them it could wait for all that
            # this one reads, though others wait for the page as well.
            listed = self._listings.library.list_directory(
                ANY_CALLER, which.folders, which.after, which.limit
            )
            text, sent = self._listings.text(which), self._listings.sent(which)
            self._page = _PageInProgress(listed, text, sent)
        return self._page.render_batch()

    def _stepped(self, content: memoryview | Failure | None, caller: str, began_s: float) -> None:
        self.is_busy = False
        if isinstance(content, Failure):
            self._end(content)
        else:
            assert self._page is not None, "it was rendered"
            page, most = self._page, self._listings.memory.total
            self._listings.sizes.note(self.which, page.size, page.names, page.names_left)
            if page.size > most:
                reason = (
                    f"the page has {page.size} bytes or more, and this service keeps at most "
                    f"{most} in memory; ask for fewer names with 'limit'"
                )
                self._end(Failure(BadRequest(reason)))
            elif content is not None:
                self._end(self._listings.held(self.which, content))
            elif self._waiting:
                self._listings.enqueue(self)
            else:
                self._end(None)
        self._listings.queue.ended(caller, self._clock.seconds() - began_s)

    def _may_go_on(self, caller: str) -> bool:
        """Have the memory that the page is expected to need in the share of one of the callers."""
        expected = self._expected()
        if expected <= SMALL_BYTES:
            return True
        if self._listings.others_wait:
            # Those that closed their sending side are mostly gone, which only a write would show.
            # They are answered (RFC 9112, 9.6), but nobody waits for a large page of theirs.
            self._refuse(
                [each for each, (_, channel) in self._waiting.items() if _is_closed(channel)]
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
            self._share = self._listings.memory.take(caller, self, expected, waited_s=waited_s)
        except Busy:
            self._page = None  # it would be memory that nobody accounts for
            self._waits_since_s = now_s - waited_s
            if not self._listings.put_aside(caller, self, expected, waited_s, self._clock):
                self._refuse(
                    [each for each, (whose, _) in self._waiting.items() if whose == caller]
                )
            return False
        self._waits_since_s = None
        return True

    def _expected(self) -> int:
        """How many bytes of memory the page will need, 0 if that is not known."""
        if self._page is not None and self._page.is_lost:
            self._page = None
        if self._page is not None:
            expected = self._page.expected
        elif self._listings.sent(self.which) is not None:
            expected = 0  # it may be equal
        else:
            expected = self._listings.sizes.expected(self.which)
        return min(expected, self._listings.memory.total)

    def _refuse(self, those: list[Deferred[LargeResponse]]) -> None:
        """End the waiting of some: the service is busy."""
        for each in those:
            self._remove(each)
        if not self.callers:
            self._end(None)
        self._tell(deque(those), Failure(Busy(RETRY_AFTER_S)))

    def _remove(self, waiting: Deferred[LargeResponse]) -> None:
        caller, _ = self._waiting.pop(waiting)
        self.callers[caller] -= 1
        if not self.callers[caller]:
            del self.callers[caller]
            self._listings.left(caller, self)

    def _leave(self, waiting: Deferred[LargeResponse]) -> None:
        if waiting in self._waiting:  # else it is being told
            self._remove(waiting)
            if not (self._waiting or self.is_busy):
                self._end(None)

    def _end(self, outcome: LargeResponse | Failure | None) -> None:
        """It is not rendered any more. Those who wait are told the outcome."""
        self.is_busy = True
        for caller in self.callers:
            self._listings.left(caller, self)
        self.callers.clear()
        waiting = deque(self._waiting)
        self._waiting.clear()
        self._page = None
        if self._share is not None:
            self._listings.note_released(self._clock.seconds())
        self._release()
        if outcome is not None:  # the memory that was released is for its readers
            self._tell(waiting, outcome)
        self._listings.end(self)

    def _release(self) -> None:
        if self._share is not None:
            self._share.release()
            self._share = None

    def _tell(
        self, waiting: deque[Deferred[LargeResponse]], outcome: LargeResponse | Failure
    ) -> None:
        for _ in range(min(_TOLD_A_TURN, len(waiting))):
            each = waiting.popleft()
            if not each.called:  # one that was told may have had another one cancelled
                each.callback(outcome)
        if waiting:
            self._clock.callLater(0, self._tell, waiting, outcome)


class _PageInProgress:
    """A page of which some batches are rendered. As long as it is like the page that is being sent,
    it takes no memory.
    """

    def __init__(self, listed: Listed, text: Text, sent: LargeResponse | None) -> None:
        self._listed = listed
        self._text = text
        self._content = Packing()
        self._sent = None if sent is None else ref(sent)  # its readers may go
        self._equal_bytes = 0  # as many as it has in common with the one that is sent
        self.names = 0  # rendered so far
        self.names_left = 0  # at most

    @property
    def size(self) -> int:
        """How many bytes it has so far."""
        return self._equal_bytes + self._content.size

    @property
    def expected(self) -> int:
        """How many bytes of memory it will need, 0 if that is not known."""
        if self._sent is not None:
            return 0
        return self.size + self.size * self.names_left // max(1, self.names)

    @property
    def is_lost(self) -> bool:
        """Whether its beginning went with the page that was sent."""
        return self._sent is not None and self._sent() is None

    def render_batch(self) -> Deferred[memoryview | None]:
        """Read and render one batch. Fires with the content after the last one: that of the page
        that is being sent, if it is equal.
        """
        sent = None if self._sent is None else self._sent()

        def use(batch: Batch) -> memoryview | None:  # in the store's thread
            self._add(self._text.of(batch), sent)
            self.names += len(batch.entries)
            self.names_left = batch.left
            if batch.end is None:
                return None
            if sent is not None and self._equal_bytes == len(sent.content):
                return sent.content
            return self._content.end()

        return self._listed.read(use)

    def _add(self, pieces: Iterable[bytes], sent: LargeResponse | None) -> None:
        if sent is not None and self._sent is not None:
            part = b"".join(pieces)
            at = self._equal_bytes
            if bytes(sent.content[at : at + len(part)]) == part:
                self._equal_bytes += len(part)
                return
            self._sent = None
            self._equal_bytes = 0
            self._content.add(pieces_of(sent.content[:at]))
            pieces = [part]
        self._content.add(pieces)


class _Sizes:
    """How large pages were, to expect how large they will be."""

    def __init__(self) -> None:
        # For a folder and a name to begin after: bytes for each name, and how many names there are,
        # as far as is known.
        self._known: OrderedDict[tuple[tuple[str, ...], str], tuple[float, int]] = OrderedDict()

    def note(self, which: Which, size: int, names: int, left: int) -> None:
        """A page, or its beginning, of `names` has `size` bytes. At most `left` names follow."""
        most = names + left
        where = (which.folders, which.after)
        if names:
            self._known[where] = (size / names, most if most < which.limit else sys.maxsize)
            self._known.move_to_end(where)
            if len(self._known) > _MOST_SIZES:
                self._known.popitem(last=False)

    def expected(self, which: Which) -> int:
        """How many bytes a page will have, 0 if that is not known."""
        each, names = self._known.get((which.folders, which.after), (0.0, 0))
        return int(each * min(names, which.limit))


def _is_closed(channel: Any) -> bool:
    """Whether the peer closed its sending side."""
    return isinstance(channel, MediaChannel) and channel.closing.is_half_closed
