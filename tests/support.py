"""What in-process tests share: a decorator that bounds them in time, a wait, and media names at
hand.
"""

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
    """Run an `async def` test on the reactor; it fails when it takes more than 20 s, which
    pytest-twisted by itself would not notice.
    """

    @pytest_twisted.ensureDeferred
    @functools.wraps(test)
    async def bounded(*args: Any, **kwargs: Any) -> None:
        running: Deferred[None] = ensureDeferred(test(*args, **kwargs))
        await running.addTimeout(TIMEOUT_S, reactor)

    return bounded


async def until(condition: Callable[[], object]) -> None:
    """Wait until `condition` is true, as long as the test may take."""
    while not condition():
        await deferLater(reactor, 0.01)


def named(text: str) -> MediaName:
    """The media name that is written `text`: `named("prompts/en/hello.mp3")`."""
    directory, _, filename = text.rpartition("/")
    return media_name(directory, filename)
