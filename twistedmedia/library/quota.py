"""Who has how many unfinished uploads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from twistedmedia.errors import TooManyUnfinished


class UploadQuota:
    """Unfinished uploads by their ids, and whose they are. One caller may have `most`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._callers: dict[str, str] = {}
        self._counts: Counter[str] = Counter()
        self._written_s: dict[str, float] = {}
        self._ended: set[str] | None = set()  # until `take_stock`

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

    def take_stock(self, found: Mapping[str, str]) -> None:
        """These, by their ids, were there at the start, and whose they are. Some may have ended
        while they were looked for.
        """
        ended, self._ended = self._ended or (), None
        for upload, caller in found.items():
            if upload not in ended:
                self.add(upload, caller)

    def wrote(self, upload: str, at_s: float) -> None:
        """Something was added to it at that time, by any clock."""
        if upload in self._callers:
            self._written_s[upload] = at_s

    def written_s(self, upload: str) -> float | None:
        """When something was last added to it, None if that was not noted."""
        return self._written_s.get(upload)

    def written_since(self, at_s: float) -> set[str]:
        """Those to which something was added at that time or later."""
        return {upload for upload, written_s in self._written_s.items() if written_s >= at_s}

    def end(self, upload: str) -> None:
        """It is unfinished no more, or was not. Idempotent."""
        if self._ended is not None:
            self._ended.add(upload)
        self._written_s.pop(upload, None)
        caller = self._callers.pop(upload, None)
        if caller is not None:
            self._counts[caller] -= 1
            if not self._counts[caller]:
                del self._counts[caller]
