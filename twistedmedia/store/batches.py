"""Listings that a store reads in batches of names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

from twistedmedia.store.interface import Batch

T = TypeVar("T")

# Names in a batch, some 5 ms of work. After each batch, another page may have its turn.
BATCH = 128


class BatchedListing:
    """`interface.Listed` over an iterator of batches."""

    def __init__(
        self,
        batches: Iterator[Batch],
        run: Callable[[Callable[[], Batch], Callable[[Batch], Any]], Deferred[Any]],
    ) -> None:
        """`run` calls a function where the store works, and then another one with its result."""
        self._batches = batches
        self._run = run

    def read(self, use: Callable[[Batch], T]) -> Deferred[T]:
        return self._run(lambda: next(self._batches), use)
