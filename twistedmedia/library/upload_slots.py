"""Slots for uploads and imports: how many may run at once, shared fairly among callers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from twisted.logger import Logger

from twistedmedia.fairness.shares import Holder, Share
from twistedmedia.fairness.slots import Slots
from twistedmedia.library.caller import Caller


class UploadSlot:
    """The slot of one upload or import, a `shares.Holder`. Its pace is that of the content. It logs
    when it gives way. A `with` statement releases it.
    """

    _log = Logger()
    _share: Share

    def __init__(self, kind: str, caller: Caller, content: Holder) -> None:
        """`kind` is "upload" or "import", for the log."""
        self._kind = kind
        self._caller = caller
        self._content = content

    def pace(self) -> float | None:
        return self._content.pace()

    def give_way(self) -> None:
        self._log.warn(
            "gave way: the slowest {what} of {source}, to a caller that has fewer",
            what=self._kind,
            source=self._caller.address,
        )
        self._content.give_way()

    async def take(self, slots: Slots) -> Self:
        """Take one of `slots`. The wait may be cancelled.

        :raises Busy: as `Slots.take`.
        """
        self._share = await slots.take(self._caller.key, self)
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._share.release()
        del self._share  # it refers to this slot

    @contextmanager
    def lent_to(self, content: Holder) -> Iterator[None]:
        """Measure the pace of `content` instead while the context lasts."""
        before, self._content = self._content, content
        try:
            yield
        finally:
            self._content = before
