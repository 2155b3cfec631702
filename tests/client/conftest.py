"""A client and a fake service for a test."""

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
def _listened_once() -> None:
    """Listen once, because Twisted reserves a descriptor at the first port of a process."""
    factory: Any = Factory()
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    pytest_twisted.blockon(port.stopListening())


class Talk:
    """A client, a `fake` service, and the `waits` before the retries: failures and seconds. The
    default retries do not wait.
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
        """The class names of the failures that were retried."""
        return [type(error).__name__ for error, _ in self.waits]

    async def gives_up_in(self, method: str) -> float:
        """Wait until the service has received a request with its content, then let the timeout of
        the client expire. Returns the seconds that were left.
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
    """A client and a fake service. At the end, all planned misdeeds must have happened, and all
    connections are closed. The `url` may contain `{port}`.
    """
    async with Fake().listening(interface, tls) as fake:
        if "url" in options:
            options["url"] = options["url"].format(port=fake.port)
        talk = Talk(fake, **options)
        try:
            yield talk
            assert fake.did_all, "something was not asked for"
        finally:
            await talk.client.close()


@pytest.fixture
def talk() -> Callable[..., Any]:
    return talking
