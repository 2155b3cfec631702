"""The finished uploads by caller, and which of them are dropped when there are too many."""

from __future__ import annotations

import threading
from collections import OrderedDict, defaultdict
from collections.abc import Iterable

# Each takes its files, and some 300 bytes of memory.
MOST_FINISHED = 100_000


class FinishedUploads:
    """The ids of finished uploads. Thread-safe.

    If there are more than `most`, the oldest one of the caller that has most is to be dropped. So
    no caller displaces the uploads of others.
    """

    def __init__(self, most: int = MOST_FINISHED) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._callers: dict[bytes, str] = {}
        self._expected: set[bytes] = set()
        self._by_caller: defaultdict[str, OrderedDict[bytes, None]] = defaultdict(OrderedDict)
        # The callers by how many uploads they have, to find the largest share without a search.
        self._by_count: defaultdict[int, dict[str, None]] = defaultdict(dict)
        self._largest = 0  # no caller has more

    def __len__(self) -> int:
        return len(self._callers)

    def expect(self, uploads: Iterable[str]) -> None:
        """Announce uploads that are older than all added ones. `add_expected` gives their callers
        later.
        """
        with self._lock:
            self._expected.update(map(bytes.fromhex, uploads))
            self._expected.difference_update(self._callers)

    def add_expected(self, upload: str, caller: str) -> None:
        """Add an expected upload of `caller`, as the oldest of all. Does nothing if it was removed
        meanwhile.
        """
        key = bytes.fromhex(upload)
        with self._lock:
            if key in self._expected:
                self._expected.remove(key)
                self._add(key, caller)
                self._by_caller[caller].move_to_end(key, last=False)

    def add(self, upload: str, caller: str) -> None:
        """Add an upload of `caller`, as the newest of all. Idempotent."""
        key = bytes.fromhex(upload)
        with self._lock:
            if key not in self._callers:
                self._expected.discard(key)
                self._add(key, caller)

    def remove(self, upload: str) -> None:
        """Remove an upload, added or expected. Idempotent."""
        key = bytes.fromhex(upload)
        with self._lock:
            self._expected.discard(key)
            caller = self._callers.pop(key, None)
            if caller is not None:
                of_caller = self._by_caller[caller]
                del of_caller[key]
                self._resized(caller, len(of_caller) + 1, len(of_caller))

    def all(self) -> list[str]:
        """The ids of all uploads, including the expected ones."""
        with self._lock:
            return [key.hex() for key in (*self._callers, *self._expected)]

    def callers(self) -> list[str]:
        """The callers that have finished uploads."""
        with self._lock:
            return list(self._by_caller)

    def oldest(self, caller: str) -> str | None:
        """The upload that `caller` finished first, if there is one."""
        with self._lock:
            return next(iter(self._by_caller[caller])).hex() if caller in self._by_caller else None

    def surplus(self) -> str | None:
        """The upload to be dropped next, if there are too many."""
        with self._lock:
            if len(self._callers) <= self._most:
                return None
            while self._largest not in self._by_count:
                self._largest -= 1
            caller = next(iter(self._by_count[self._largest]))
            return next(iter(self._by_caller[caller])).hex()

    def _add(self, key: bytes, caller: str) -> None:
        self._callers[key] = caller
        of_caller = self._by_caller[caller]
        of_caller[key] = None
        self._resized(caller, len(of_caller) - 1, len(of_caller))

    def _resized(self, caller: str, before: int, after: int) -> None:
        self._by_count[before].pop(caller, None)
        if not self._by_count[before]:
            del self._by_count[before]
        if after:
            self._by_count[after][caller] = None
            self._largest = max(self._largest, after)
        else:
            del self._by_caller[caller]
