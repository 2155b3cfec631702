"""Work on several files at once."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred

from tests.support import asynchronous
from twistedmedia.client.command.run import for_each


@asynchronous
async def test_no_more_than_the_given_number_run_at_once() -> None:
    gates: list[Deferred[None]] = []

    async def work(item: int) -> None:
        gates.append(Deferred())
        await gates[-1]

    running = ensureDeferred(for_each(range(5), work, jobs=3))
    assert len(gates) == 3
    gates[1].callback(None)
    assert len(gates) == 4
    for gate in (0, 2, 3, 4):
        gates[gate].callback(None)
    await running


@asynchronous
async def test_the_first_failure_cancels_the_others() -> None:
    ended: list[int] = []
    gate: Deferred[None] = Deferred()

    async def work(item: int) -> None:
        try:
            if item == 2:
                await gate
                raise ValueError("two")
            await Deferred()
        finally:
            ended.append(item)

    running = ensureDeferred(for_each(range(9), work, jobs=3))
    gate.callback(None)
    assert sorted(ended) == [0, 1, 2]
    with pytest.raises(ValueError, match="two"):
        await running


@asynchronous
async def test_an_immediate_failure_starts_no_other() -> None:
    begun: list[int] = []

    async def work(item: int) -> None:
        begun.append(item)
        raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        await for_each(range(9), work, jobs=3)
    assert begun == [0]


@asynchronous
async def test_a_cancellation_cancels_all() -> None:
    ended: list[int] = []

    async def work(item: int) -> None:
        try:
            await Deferred()
        finally:
            ended.append(item)

    running = ensureDeferred(for_each(range(9), work, jobs=2))
    running.cancel()
    with pytest.raises(CancelledError):
        await running
    assert ended == [0, 1]
