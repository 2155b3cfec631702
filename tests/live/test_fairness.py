"""Attacks on what is scarce, and a normal client beside them that notices nothing.

The attacks, the client and the bounds are those of `bench/fairness.py`.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.live.conftest import Disk
from tests.live.support import clean_environment
from tests.live.test_tus import TUS, begun, part_head
from tests.process.exchange import Connection, request
from tests.process.running import Process

FAIRNESS = Path(__file__).parents[2] / "bench" / "fairness.py"
# Each attack at ten times the size that was seen to do harm. The rest is in the whole form.
TENFOLD = {
    "waiting-head": 1500,
    "waiting-patch": 1500,
    "chunks-1": 400,
    "chunks-20": 80,
    "drained": 1500,
    "heads": 1000,
    "slow-puts": 640,
    "slow-imports": 320,
    "closed-readers": 1500,
    "leaving-readers": 10,
    "reservations": 10,
    "forms-4096": 160,
    "forms-1024": 40,
    "log-unread": 10,
}
WHOLE_S = 3600.0
ONE_S = 240.0

WAITING = 1000
UPLOADS, EACH = 1000, 10
MANY = ("--max-connections=12000", "--max-per-address=12000", "--max-uploads=1000")
ANSWERED_S = 60.0
UPLOAD_BYTES = 64 << 10
FIRST_BYTES = 1000


def measured(disk: Disk, timeout_s: float, *options: str) -> tuple[list[dict[str, Any]], str]:
    """The rows of the bench, and its table. The disk is in memory: a busy one must not decide."""
    figures = disk.path / "fairness.json"
    done = subprocess.run(
        [sys.executable, str(FAIRNESS), "--dir", str(disk.path), "--json", str(figures), *options],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert figures.exists(), done.stderr
    rows: list[dict[str, Any]] = json.loads(figures.read_text(encoding="ascii"))
    return rows, done.stdout


@pytest.mark.parametrize(("attack", "count"), TENFOLD.items(), ids=TENFOLD)
def test_a_normal_client_is_served_beside_an_attack(
    small_disk: Callable[..., Disk], attack: str, count: int
) -> None:
    """
    Cases 84 to 87 and 89 to 91.

    The bounds are ten times those of the bench: other programs must not decide.
    """
    disk = small_disk("size=3g")
    options = ("--quick", "--tolerance", "10", "--only", attack, "--count", str(count))
    (row,), table = measured(disk, ONE_S, *options)
    print(table)
    assert row["broken"] == []


@pytest.mark.long
def test_a_normal_client_is_served_beside_every_attack_of_every_size(
    small_disk: Callable[..., Disk],
) -> None:
    """Cases 84 to 87 and 89 to 91, measured for longer."""
    rows, table = measured(small_disk("size=3g"), WHOLE_S)
    print(table)
    assert len(rows) > 2 * len(TENFOLD)
    assert {(row["attack"], row["count"]): row["broken"] for row in rows if row["broken"]} == {}


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """As many as the hard limit allows, for this process and the service that it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard > UPLOADS * EACH + 500, "the hard limit of descriptors is too low for this test"
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def answers_of(asked: list[tuple[str, Connection]]) -> Counter[int]:
    """How often each status came. Every request must be answered, all of them in time."""
    end = time.monotonic() + ANSWERED_S
    told: Counter[int] = Counter()
    for number, (method, connection) in enumerate(asked):
        connection.socket.settimeout(max(0.1, end - time.monotonic()))
        try:
            told[connection.answer(method).status] += 1
        except (TimeoutError, ConnectionError) as failure:
            raise AssertionError(
                f"request {number} ({method}) of {len(asked)} was not answered: {failure};"
                f" those before it: {told}"
            ) from failure
    return told


def begin_part(connection: Connection, target: str) -> None:
    """Send the beginning of a PATCH with all of the content."""
    connection.send(part_head(target, 0, UPLOAD_BYTES) + bytes(FIRST_BYTES))


def end_part(connection: Connection) -> None:
    """Send the rest, unless the service has already answered and closed."""
    with suppress(ConnectionError):
        connection.send(bytes(UPLOAD_BYTES - FIRST_BYTES))


@pytest.mark.parametrize("method", ["HEAD", "PATCH"])
def test_of_a_thousand_requests_that_wait_for_one_upload_each_is_answered(
    serve: Callable[..., Process], many_descriptors: None, method: str
) -> None:
    """Case 84."""
    service = serve(*MANY, "--grace", "3s")
    with ExitStack() as open_:

        def connected() -> Connection:
            return open_.enter_context(service.connect(ANSWERED_S))

        target = begun(connected(), "a/waited-for.wav", UPLOAD_BYTES)
        first = connected()
        waiting = [connected() for _ in range(WAITING)]
        if method == "HEAD":
            sent = request("HEAD", target, None, TUS)
        else:
            sent = part_head(target, 0, FIRST_BYTES) + bytes(FIRST_BYTES)
        begin_part(first, target)
        for connection in waiting:
            connection.send(sent)
        end_part(first)
        told = answers_of([("PATCH", first), *((method, each) for each in waiting)])
        print(told)
        assert told.total() == WAITING + 1
        # The upload goes on.
        offset = int(service.ask("HEAD", target, None, TUS).headers["Upload-Offset"])
        if offset < UPLOAD_BYTES:
            with service.connect() as connection:
                rest = UPLOAD_BYTES - offset
                connection.send(part_head(target, offset, rest) + bytes(rest))
                assert connection.answer().status == 204
    assert (service.root / "a" / "waited-for.wav").stat().st_size == UPLOAD_BYTES
    assert service.ask("GET", "/health").json["uploads"] == 0


def test_of_ten_requests_for_each_of_a_thousand_uploads_each_is_answered(
    serve: Callable[..., Process], many_descriptors: None
) -> None:
    """Case 84: nine HEADs beside each PATCH that has not ended."""
    service = serve(*MANY, "--grace", "3s")
    with ExitStack() as open_:
        with service.connect() as connection:
            targets = [begun(connection, f"a/{n}.wav", UPLOAD_BYTES) for n in range(UPLOADS)]
        asked = []
        for target in targets:
            for number in range(EACH):
                connection = open_.enter_context(service.connect(ANSWERED_S))
                if number == 0:
                    begin_part(connection, target)
                    asked.append(("PATCH", connection))
                else:
                    connection.send(request("HEAD", target, None, TUS))
                    asked.append(("HEAD", connection))
        for method, connection in asked:
            if method == "PATCH":
                end_part(connection)
        told = answers_of(asked)
        print(told)
        assert told.total() == UPLOADS * EACH
    with service.connect() as connection:
        for target in targets:
            assert connection.ask("HEAD", target, None, TUS).status == 200
    assert service.ask("GET", "/health").json["uploads"] == 0
