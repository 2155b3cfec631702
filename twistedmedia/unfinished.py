"""Who has how many unfinished uploads."""

from __future__ import annotations

from collections import Counter

from twistedmedia.errors import TooManyUnfinished


class Unfinished:
    """Unfinished uploads by their ids, and whose they are. One caller may have `most`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._callers: dict[str, str] = {}
        self._counts: Counter[str] = Counter()

    def __contains__(self, upload: str) -> bool:
        return upload in self._callers

    def begin(self, upload: str, caller: str) -> None:
        """One more of `caller`'s.

        :raises TooManyUnfinished: when that is one too many.
        """
        if self._counts[caller] >= self._most:
            raise TooManyUnfinished(self._most)
        self.add(upload, caller)

    def add(self, upload: str, caller: str) -> None:
        """One of `caller`'s that is there, however many there are. Idempotent."""
        if upload not in self._callers:
            self._callers[upload] = caller
            self._counts[caller] += 1

    def end(self, upload: str) -> None:
        """It is unfinished no more, or was not. Idempotent."""
        caller = self._callers.pop(upload, None)
        if caller is not None:
            self._counts[caller] -= 1
            if not self._counts[caller]:
                del self._counts[caller]
