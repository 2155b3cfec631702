"""Services for the tests: one for all that need no options, others by their options."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest

from tests.process.nasty import Nasty
from tests.process.running import Process, eventually, running

_NUMBERS = count(1)


@pytest.fixture(scope="session", autouse=True)
def sigint_is_not_ignored() -> None:
    """A shell has its background jobs ignore SIGINT, and so would the services that they start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A service with the default options, for all tests; beside its root lies a folder whose name
    only begins like it (case 34).
    """
    area = tmp_path_factory.mktemp("service") / "area"
    (area / "media-evil").mkdir(parents=True)
    (area / "media-evil" / "secret.mp3").write_bytes(b"beside the root")
    with running(area / "media") as process:
        yield process


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Call it with options for a service of the test's own."""
    with ExitStack() as services:

        def start(*options: str, root: str = "media") -> Process:
            return services.enter_context(running(tmp_path / "area" / root, *options))

        yield start


@pytest.fixture
def folder(request: pytest.FixtureRequest) -> Iterator[str]:
    """A directory that no other test uses. What is in it afterwards goes: others look at all there
    is.
    """
    name = f"{request.function.__name__[:80]}-{next(_NUMBERS)}"
    yield name
    if "service" in request.fixturenames:
        shutil.rmtree(request.getfixturevalue("service").root / name, ignore_errors=True)


@pytest.fixture(scope="session")
def nasty() -> Iterator[Nasty]:
    """An upstream that does everything wrong."""
    upstream = Nasty()
    yield upstream
    upstream.stop()


@pytest.fixture
def no_connection_is_left(nasty: Nasty) -> Iterator[None]:
    """After a test the upstream has no connection but those that are kept for the next one."""
    assert nasty.busy == 0
    yield
    eventually("no upstream is asked for anything any more", lambda: nasty.busy == 0)
