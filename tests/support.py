"""Shared by in-process tests: a time limit, a wait for a condition, and a shorthand for names."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import deferLater

from twistedmedia.names import MediaName, media_name

TIMEOUT_S = 60.0


def asynchronous(test: Callable[..., Awaitable[None]]) -> Callable[..., Any]:
    """Run an `async def` test on the reactor. It fails after `TIMEOUT_S`; pytest-twisted alone has
    no time limit.
    """

    @pytest_twisted.ensureDeferred
    @functools.wraps(test)
    async def bounded(*args: Any, **kwargs: Any) -> None:
        running: Deferred[None] = ensureDeferred(test(*args, **kwargs))
        await running.addTimeout(TIMEOUT_S, reactor)

    return bounded


async def until(condition: Callable[[], object]) -> None:
    """Wait until `condition` is true."""
    while not condition():
        await deferLater(reactor, 0.01)


def named(text: str) -> MediaName:
    """Make a media name: `named("prompts/en/hello.mp3")`."""
    directory, _, filename = text.rpartition("/")
    return media_name(directory, filename)
