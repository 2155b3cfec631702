"""Names whose look-up hangs: the resolver of a service is given some that are never answered."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.exchange import Connection, request
from tests.process.running import Process, running

# Imported by Python itself at its start, from the folder that PYTHONPATH names. Names end with it
# that hang; another is this machine's.
HANGING = """
import socket, time

resolve = socket.getaddrinfo

def hang(host, *args, **kwargs):
    if host.endswith(".hangs.test"):
        time.sleep(60)
        raise socket.gaierror(socket.EAI_AGAIN, "no server has answered")
    return resolve("127.0.0.1" if host == "here.test" else host, *args, **kwargs)

socket.getaddrinfo = hang
"""


TIMEOUT_S = 5  # whoever waits for a look-up that hangs waits as long, or longer


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[Process]:
    """A service whose resolver hangs, and which may fetch from itself."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(HANGING, encoding="utf-8")
    # Open, so that it answers by the other name as well.
    options = ["--fetch-allow", "127.0.0.0/8", "--fetch-timeout", f"{TIMEOUT_S}s", "--open"]
    more = {"PYTHONPATH": str(tmp_path / "site")}
    with running(tmp_path / "service" / "media", *options, more=more) as service:
        yield service


@pytest.mark.parametrize("count", [10, 60])
def test_look_ups_that_hang_delay_nothing_else(hanging: Process, count: int) -> None:
    """Case 29, for look-ups: neither a write, nor a fetch by address, nor one by another name."""
    assert hanging.ask("PUT", "/media/a/b.wav", b"x" * 5000).status == 201
    asking = [Connection(hanging.port) for _ in range(count)]
    for number, each in enumerate(asking):
        each.send(request("GET", f"/fetch?url=http://{number}.hangs.test/"))
    begun = time.monotonic()
    for number, host in enumerate(("127.0.0.1", "here.test")):
        assert hanging.ask("PUT", f"/media/a/c{number}.wav", b"y").status == 201
        url = f"http://{host}:{hanging.port}/media/a/b.wav"
        answer = hanging.ask("GET", f"/fetch?url={url}")
        assert (answer.status, answer.json["size"]) == (200, 5000)
        assert hanging.ask("DELETE", f"/media/a/c{number}.wav").json["deleted"] is True
    assert time.monotonic() - begun < TIMEOUT_S
    for each in asking:
        assert each.answer().brief == (504, 513)
        each.close()


def test_the_service_ends_while_look_ups_hang(hanging: Process) -> None:
    """At the end of `running`, in time; the program is to be one that hangs, for sure."""
    with hanging.connect() as asking:
        asking.send(request("GET", "/fetch?url=http://a.hangs.test/"))
        assert asking.answer().brief == (504, 513)
