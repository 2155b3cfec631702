"""A crowd of clients that are as slow as they can be, in a process of its own.

`python -m tests.live.crowd PORT EACH` says `all are there` when they are, and in the end a line of
JSON: what became of them. Its readers stay as long as it does.
"""

from __future__ import annotations

import heapq
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

from tests.live.support import clean_environment
from tests.process.exchange import head, request
from tests.process.test_readers import NARROW_BYTES

ALL_ARE_THERE = "all are there"
PACE_S = 1.0  # in which who sends sends a byte


@dataclass
class Fates:
    """After how many seconds each of a kind was told something, and was gone; and how often each
    thing was told.
    """

    told_s: dict[str, list[float]] = field(default_factory=lambda: {"heads": [], "contents": []})
    gone_s: dict[str, list[float]] = field(default_factory=lambda: {"heads": [], "contents": []})
    told: dict[str, int] = field(default_factory=dict)


class Crowd:
    """Such a process, all of whose clients are there."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdout is not None
        self._says: IO[str] = process.stdout
        assert self._says.readline().strip() == ALL_ARE_THERE

    def fates(self) -> Fates:
        """Once all who send are gone."""
        return Fates(**json.loads(self._says.readline()))


@contextmanager
def crowd(port: int, each: int) -> Iterator[Crowd]:
    """`each` clients of each kind at a service; those that are left go with the context."""
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, str(port), str(each)],
        cwd=Path(__file__).parents[2],
        env=clean_environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield Crowd(process)
        finally:
            process.kill()


def main(port: int, each: int) -> None:
    """`each` send a head, as many a content, and as many read nothing of what they ask for."""
    fates = Fates()
    begun: dict[socket.socket, tuple[str, float]] = {}
    turns: list[tuple[float, int, socket.socket]] = []
    for n in range(each):
        for kind, sent in (
            ("heads", head("GET", "/media/a/small.wav").removesuffix(b"\r\n") + b"X: "),
            ("contents", head("PUT", f"/media/a/{n}.wav", [("Content-Length", "9000")])),
            ("readers", request("GET", "/media/a/large.wav")),
        ):
            end = socket.socket()
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, NARROW_BYTES)
            end.connect(("127.0.0.1", port))
            end.sendall(sent)
            end.setblocking(False)
            begun[end] = kind, time.monotonic()
            if kind != "readers":
                turns.append((time.monotonic() + PACE_S, len(turns), end))
    print(ALL_ARE_THERE, flush=True)
    heapq.heapify(turns)
    while turns:
        at, number, end = heapq.heappop(turns)
        time.sleep(max(0.0, at - time.monotonic()))
        kind, since = begun[end]
        lasted = time.monotonic() - since
        try:
            if answer := _answer(end):
                fates.told_s[kind].append(lasted)
                told = f"{kind} {answer.partition(b' ')[2][:3].decode()}"
                fates.told[told] = fates.told.get(told, 0) + 1
            end.send(b"x")  # whatever it was told
        except ConnectionError:
            fates.gone_s[kind].append(lasted)
        else:
            heapq.heappush(turns, (at + PACE_S, number, end))
    print(json.dumps(asdict(fates)), flush=True)
    signal.pause()


def _answer(end: socket.socket) -> bytes:
    """What has come; nothing, too, when no more will."""
    try:
        return end.recv(4096)
    except BlockingIOError:
        return b""


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
