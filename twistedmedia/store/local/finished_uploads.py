"""Whose the finished uploads are, and which of them go when there are too many."""

from __future__ import annotations

import threading
from collections import OrderedDict, defaultdict
from collections.abc import Iterable

# Each costs its files, and some 300 bytes of memory.
MOST_FINISHED = 100_000


class FinishedUploads:
    """Finished uploads by their ids. Thread-safe.

    There may be `most` of them. When there are more, the oldest one of the caller that has most
    goes: nobody pushes out what others have finished.
    """

    def __init__(self, most: int = MOST_FINISHED) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._callers: dict[bytes, str] = {}
        self._expected: set[bytes] = set()
        self._of: defaultdict[str, OrderedDict[bytes, None]] = defaultdict(OrderedDict)
        # The callers that have so many, so that the largest share is found without a look at all.
        self._with: defaultdict[int, dict[str, None]] = defaultdict(dict)
        self._largest = 0  # no caller has more

    def __len__(self) -> int:
        return len(self._callers)

    def expect(self, uploads: Iterable[str]) -> None:
        """These were finished before all that are here. `add_expected` will tell whose they are."""
        with self._lock:
            self._expected.update(map(bytes.fromhex, uploads))
            self._expected.difference_update(self._callers)

    def add_expected(self, upload: str, caller: str) -> None:
        """An upload that was expected is `caller`'s, and older than all that are here. Does nothing
        if it was removed meanwhile.
        """
        key = bytes.fromhex(upload)
        with self._lock:
            if key in self._expected:
                self._expected.remove(key)
                self._add(key, caller)
                self._of[caller].move_to_end(key, last=False)

    def add(self, upload: str, caller: str) -> None:
        """An upload of `caller` is finished, after all that are here. Idempotent."""
        key = bytes.fromhex(upload)
        with self._lock:
            if key not in self._callers:
                self._expected.discard(key)
                self._add(key, caller)

    def remove(self, upload: str) -> None:
        """An upload is gone, or was not here. Idempotent."""
        key = bytes.fromhex(upload)
        with self._lock:
            self._expected.discard(key)
            caller = self._callers.pop(key, None)
            if caller is not None:
                of_caller = self._of[caller]
                del of_caller[key]
                self._resized(caller, len(of_caller) + 1, len(of_caller))

    def all(self) -> list[str]:
        """Their ids, and those of the expected ones."""
        with self._lock:
            return [key.hex() for key in (*self._callers, *self._expected)]

    def callers(self) -> list[str]:
        """Whose they are."""
        with self._lock:
            return list(self._of)

    def oldest(self, caller: str) -> str | None:
        """The one that `caller` finished first, if there is one."""
        with self._lock:
            return next(iter(self._of[caller])).hex() if caller in self._of else None

    def surplus(self) -> str | None:
        """The upload that is to go, if there are more than may be."""
        with self._lock:
            if len(self._callers) <= self._most:
                return None
            while self._largest not in self._with:
                self._largest -= 1
            caller = next(iter(self._with[self._largest]))
            return next(iter(self._of[caller])).hex()

    def _add(self, key: bytes, caller: str) -> None:
        self._callers[key] = caller
        of_caller = self._of[caller]
        of_caller[key] = None
        self._resized(caller, len(of_caller) - 1, len(of_caller))

    def _resized(self, caller: str, before: int, after: int) -> None:
        self._with[before].pop(caller, None)
        if not self._with[before]:
            del self._with[before]
        if after:
            self._with[after][caller] = None
            self._largest = max(self._largest, after)
        else:
            del self._of[caller]
