"""Items that wait, by key. The keys take turns, however many items each of them has."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class RoundRobin(Generic[K, T]):
    """A queue with turns. Adding and taking cost the same however many items and keys there are."""

    def __init__(self) -> None:
        self._items: dict[K, deque[T]] = {}
        self._round: deque[K] = deque()  # the keys of `_items`; the first one has the next turn

    def __bool__(self) -> bool:
        """Whether an item waits."""
        return bool(self._round)

    @property
    def keys(self) -> int:
        """How many keys have items that wait."""
        return len(self._round)

    @property
    def items(self) -> int:
        """How many items wait. Costs as much as there are keys."""
        return sum(map(len, self._items.values()))

    def items_of(self, key: K) -> int:
        """How many items of `key` wait."""
        return len(self._items.get(key, ()))

    def add(self, key: K, item: T) -> None:
        """Let `item` wait behind the other items of `key`."""
        items = self._items.get(key)
        if items is None:
            self._items[key] = deque((item,))
            self._round.append(key)
        else:
            items.append(item)

    def next(self) -> T:
        """Take the item whose turn it is. There must be one."""
        key = self._round.popleft()
        items = self._items[key]
        item = items.popleft()
        if items:
            self._round.append(key)
        else:
            del self._items[key]
        return item
