"""Fixtures: a client, and a fake service for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.protocol import Factory

from tests.client.fake import Fake
from tests.support import until
from twistedmedia.client import ClientError, ClientTimeouts, MediaClient, Retries


@pytest.fixture(scope="session", autouse=True)
def _reserve_descriptor() -> None:
    """Listen once: from the first port on, Twisted keeps one descriptor in reserve."""
    factory: Any = Factory()
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    pytest_twisted.blockon(port.stopListening())


class Talk:
    """A client and its `fake` service. `waits` are the failures before retries, each with the
    seconds that the client would wait; with these retries it does not wait.
    """

    def __init__(self, fake: Fake, **options: Any) -> None:
        self.fake = fake
        self.waits: list[tuple[ClientError, float]] = []
        self.client = MediaClient(
            reactor,
            options.pop("url", fake.url),
            retries=options.pop("retries", Retries(times=3, random=lambda: 0.0)),
            timeouts=options.pop("timeouts", ClientTimeouts(stall_s=5, response_s=5)),
            on_retry=lambda error, wait_s: self.waits.append((error, wait_s)),
            **options,
        )

    @property
    def failures(self) -> list[str]:
        """The types of the failures that were followed by a retry."""
        return [type(error).__name__ for error, _ in self.waits]

    async def gives_up_in(self, method: str) -> float:
        """Wait until the service has received a whole request, and make the client's wait for the
        response time out now. Returns the seconds that were left.
        """
        await until(lambda: any(each.is_whole for each in self.fake.asked(method)))
        calls = reactor.getDelayedCalls()
        [call] = [call for call in calls if getattr(call.func, "__name__", "") == "_on_timeout"]
        left_s: float = call.getTime() - reactor.seconds()
        call.reset(0)
        return left_s


@asynccontextmanager
async def talking(
    interface: str = "127.0.0.1", tls: Any = None, **options: Any
) -> AsyncIterator[Talk]:
    """A `Talk`. At its end all prepared faults must have happened, and all connections are closed.
    The `url` may contain `{port}`.
    """
    async with Fake().listening(interface, tls) as fake:
        if "url" in options:
            options["url"] = options["url"].format(port=fake.port)
        talk = Talk(fake, **options)
        try:
            yield talk
            assert fake.did_all, "a prepared fault did not happen"
        finally:
            await talk.client.close()


@pytest.fixture
def talk() -> Callable[..., Any]:
    return talking
