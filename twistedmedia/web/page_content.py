"""The content of one page of a listing: its key, rendering in batches, and expected size."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol
from weakref import ref

from twisted.internet.defer import Deferred

from twistedmedia.packed import Packing, pieces_of
from twistedmedia.store.interface import Batch, Listed
from twistedmedia.web.large_responses import LargeResponse

_MAX_ESTIMATES = 256


@dataclass(frozen=True, slots=True)
class PageKey:
    """Identifies a page: at most `limit` names of `folders`, those after `after`. `route_path` is
    the path under which media are served.
    """

    folders: tuple[str, ...]
    after: str
    limit: int
    route_path: str


class PageRenderer(Protocol):
    """Renders the content of one page."""

    def render(self, batch: Batch) -> Iterable[bytes]:
        """Render `batch`, the next one of the page. Called in a thread."""


class PartialPage:
    """A page that is being rendered, batch by batch.

    It is compared with an older version of the page that is being sent. As long as both are equal,
    the new one takes no memory.
    """

    def __init__(
        self, listed: Listed, renderer: PageRenderer, sending: LargeResponse | None
    ) -> None:
        """`sending` is the older version."""
        self._listed = listed
        self._renderer = renderer
        self._content = Packing()
        # None if there is no older version, or it differs. Its readers may leave, so it is weak.
        self._sending = None if sending is None else ref(sending)
        self._equal_bytes = 0  # the length of the common beginning
        self.names = 0  # rendered so far
        self.max_names_left = 0

    @property
    def size(self) -> int:
        """How many bytes are rendered so far."""
        return self._equal_bytes + self._content.size

    @property
    def expected_size(self) -> int:
        """How many bytes of memory the page is expected to need, 0 if that is not known."""
        if self._sending is not None:
            return 0
        return self.size + self.size * self.max_names_left // max(1, self.names)

    @property
    def is_lost(self) -> bool:
        """Whether the older version, and with it the beginning of this page, is gone."""
        return self._sending is not None and self._sending() is None

    def render_batch(self) -> Deferred[memoryview | None]:
        """Read and render one batch. Fires with the content after the last batch, else with None.
        An equal page has the content of the older version.
        """
        sending = None if self._sending is None else self._sending()

        def use(batch: Batch) -> memoryview | None:  # in a thread of the store
            self._add(self._renderer.render(batch), sending)
            self.names += len(batch.entries)
            self.max_names_left = batch.left
            if batch.end is None:
                return None
            if sending is not None and self._equal_bytes == len(sending.content):
                return sending.content
            return self._content.end()

        return self._listed.read(use)

    def _add(self, pieces: Iterable[bytes], sending: LargeResponse | None) -> None:
        if sending is not None and self._sending is not None:
            part = b"".join(pieces)
            at = self._equal_bytes
            if bytes(sending.content[at : at + len(part)]) == part:
                self._equal_bytes += len(part)
                return
            self._sending = None
            self._equal_bytes = 0
            self._content.add(pieces_of(sending.content[:at]))
            pieces = [part]
        self._content.add(pieces)


class PageSizes:
    """Estimates the sizes of pages from the sizes of pages before."""

    def __init__(self) -> None:
        # For folders and `after`: bytes for each name, and the number of names as far as is known.
        self._known: OrderedDict[tuple[tuple[str, ...], str], tuple[float, int]] = OrderedDict()

    def record(self, key: PageKey, page: PartialPage) -> None:
        """Learn from `page`, which may be incomplete."""
        if page.names:
            where = (key.folders, key.after)
            names = page.names + page.max_names_left
            self._known[where] = (
                page.size / page.names,
                names if names < key.limit else sys.maxsize,
            )
            self._known.move_to_end(where)
            if len(self._known) > _MAX_ESTIMATES:
                self._known.popitem(last=False)

    def estimate(self, key: PageKey) -> int:
        """How many bytes the page will have, 0 if that is not known."""
        each, names = self._known.get((key.folders, key.after), (0.0, 0))
        return int(each * min(names, key.limit))
