"""Fifteen hundred who are as slow as they can be, and one who is not: it is served as ever."""

from __future__ import annotations

import resource
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from random import Random

import pytest

from tests.live.crowd import crowd
from tests.process.exchange import MULTIPART, form, part, request
from tests.process.running import Process, eventually

EACH = 500
PATIENCE_S = 20  # in which the head of a request has to come, or a reader has to take something
OPTIONS = (
    *("--header-timeout", f"{PATIENCE_S}s"),
    *("--stall", f"{PATIENCE_S}s"),  # the window in which content is measured is no longer, either
    *("--min-rate", "64"),
    *("--max-uploads", "1000"),
)
LATE_S = 0.1 * PATIENCE_S + 1  # at most, since they are looked at ten times
# Who sends on after a 408 is let go of a little later (`LINGER_S`).
STUBBORN_S = 5 + 2

SMALL = Random(71).randbytes(40_000)
LARGE_BYTES = 4 << 20
WINDOW_S = 3.0
WINDOWS = 4
AT_MOST = 2.0  # times the p99 that it takes when nobody else is there
FLOOR_S = 0.001  # less says nothing, on a machine that others use as well
CUT_OFF_S = 0.5  # the longest, in the moments in which hundreds are sent away

# That may stay. Of what has failed there are cycles, which the collector finds when there are more
# of them; and not all of it goes back to the kernel.
MEMORY_BYTES = 32 << 20

REQUESTS, CLIENTS = 10_000, 8


def window(service: Process, lasts_s: float = WINDOW_S) -> list[float]:
    """How long a small GET takes, again and again on a kept connection for some time; sorted."""
    took = []
    sent = request("GET", "/media/a/small.wav")
    with service.connect() as connection:
        end = time.monotonic() + lasts_s
        while (asked := time.monotonic()) < end:
            connection.send(sent)
            assert connection.answer().content == SMALL
            took.append(time.monotonic() - asked)
    return sorted(took)


def p99(took: list[float]) -> float:
    return took[len(took) * 99 // 100]


def shown(windows: list[list[float]]) -> str:
    return ", ".join(
        f"p50 {statistics.median(took) * 1000:.2f} p99 {p99(took) * 1000:.2f} "
        f"max {took[-1] * 1000:.1f} ms of {len(took)}"
        for took in windows
    )


def resident(service: Process) -> int:
    """The bytes of it that are in memory."""
    pages = Path(f"/proc/{service.pid}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * resource.getpagesize()


@pytest.mark.long
def test_1500_who_are_slow_delay_nobody_and_are_gone_when_patience_ends(
    serve: Callable[..., Process],
) -> None:
    """Case 24: 500 send a head and 500 a content, a byte a second each; 500 read nothing of what
    they have asked for. All at once.
    """
    service = serve(*OPTIONS)
    assert service.ask("PUT", "/media/a/small.wav", SMALL).status == 201
    assert service.ask("PUT", "/media/a/large.wav", bytes(LARGE_BYTES)).status == 201
    window(service, 0.5)
    alone = [window(service) for _ in range(WINDOWS)]
    memory, descriptors = resident(service), len(service.descriptors())

    with crowd(service.port, EACH) as slow:
        begun = time.monotonic()
        used = service.processor_time()
        beside = [window(service) for _ in range(WINDOWS)]
        share = (service.processor_time() - used) / (time.monotonic() - begun)
        health = service.ask("GET", "/health").json
        assert (health["connections"], health["uploads"]) == (3 * EACH + 1, EACH)
        crowded = resident(service), len(service.descriptors())
        assert time.monotonic() - begun < PATIENCE_S - 2, "it was measured too late"
        leaving = window(service, PATIENCE_S + LATE_S - (time.monotonic() - begun))
        fates = slow.fates()
        eventually("nobody is left", lambda: service.ask("GET", "/health").json["connections"] == 1)

    left = resident(service), len(service.descriptors())
    print(f"\nalone:   {shown(alone)}")
    print(f"beside:  {shown(beside)}; with all that it is busy for {share:.0%} of the time")
    print(f"leaving: {shown([leaving])}")
    for kind in ("heads", "contents"):
        for what, seconds in (("told", fates.told_s[kind]), ("gone", fates.gone_s[kind])):
            print(f"{kind} {what} after {min(seconds):.1f} to {max(seconds):.1f} s")
    print(
        f"memory: {memory >> 20} MiB before, {crowded[0] >> 20} with all of them, "
        f"{left[0] >> 20} after; {(crowded[0] - memory) / (3 * EACH) / 1024:.1f} KiB each\n"
        f"descriptors: {descriptors} before, {crowded[1]} with all of them, {left[1]} after"
    )

    assert fates.told == {"heads 408": EACH, "contents 408": EACH}
    assert service.log.count(f"took nothing for {PATIENCE_S} s") == EACH
    for kind in ("heads", "contents"):
        assert len(fates.gone_s[kind]) == EACH
        assert min(fates.told_s[kind]) >= PATIENCE_S - 0.1
        assert max(fates.told_s[kind]) < PATIENCE_S + LATE_S + 1  # it looks once a second
        assert max(fates.gone_s[kind]) < PATIENCE_S + LATE_S + STUBBORN_S + 1
    assert service.tree() == ["a", "a/large.wav", "a/small.wav"]

    usual, crowded_p99 = (
        statistics.median(p99(took) for took in windows) for windows in (alone, beside)
    )
    assert crowded_p99 < max(AT_MOST * usual, FLOOR_S)
    assert leaving[-1] < CUT_OFF_S
    assert left[0] < memory + MEMORY_BYTES
    assert left[1] <= descriptors


def test_ten_thousand_requests_of_which_a_third_is_cut_off_leave_nothing_open(
    serve: Callable[..., Process],
) -> None:
    """Case 25."""
    service = serve("--no-durable")
    assert service.ask("PUT", "/media/a/large.wav", bytes(LARGE_BYTES)).status == 201
    content = Random(72).randbytes(50_000)
    whole = [
        request("PUT", "/media/leaving/a.wav", content),
        request(
            "POST", "/media", form(part("leaving", "a.wav", content)), {"Content-Type": MULTIPART}
        ),
        request("GET", "/media/a/large.wav"),
    ]
    statuses: Counter[int] = Counter()

    def client(seed: int) -> None:
        random = Random(seed)
        with ExitStack() as open_:
            kept = open_.enter_context(service.connect())
            for n in range(REQUESTS // CLIENTS):
                if n % 3 == 0:
                    leaving = service.connect()
                    sent = random.choice(whole)
                    leaving.send(sent if sent is whole[2] else sent[: random.randrange(len(sent))])
                    (leaving.reset if random.random() < 0.5 else leaving.close)()
                elif n % 3 == 1:
                    fields = {"Range": f"bytes={random.randrange(LARGE_BYTES)}-"}
                    statuses[kept.ask("GET", "/media/a/large.wav", headers=fields).status] += 1
                else:
                    statuses[kept.ask("PUT", f"/media/a/{seed}/{n}.wav", b"x").status] += 1

    with service.unchanged_descriptors():
        threads = [threading.Thread(target=client, args=(seed,)) for seed in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert statuses.keys() == {206, 201}
    assert statuses.total() > REQUESTS * 0.66
    assert not (service.root / "leaving").exists()
