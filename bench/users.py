"""
The load of many users, each of whom asks for one page after the other: siege, or this module.

The generator here is meant to run in a process of its own, and has each user keep one connection.
"""

from __future__ import annotations

import json
import resource
import selectors
import shutil
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from client import Answer, UnexpectedAnswerError
from figures import percentile

_RECEIVE_BYTES = 1 << 16
_LINGER_S = 30.0  # for those who are waiting when the time is over


@dataclass
class Seen:
    """What the users saw: how long each transaction took, how many ended within the *seconds*, and
    how many failed.
    """

    seconds: float = 0.0
    in_time: int = 0
    failed: int = 0
    client_cpu_s: float = 0.0
    times_s: list[float] = field(default_factory=list)

    def figures(self) -> dict[str, float]:
        """As the tables show them, in the words of siege."""
        ordered = sorted(self.times_s) or [0.0]
        return {
            "transactions": self.in_time,
            "rate /s": self.in_time / self.seconds,
            "longest s": ordered[-1],
            "shortest s": ordered[0],
            "p50 ms": 1000 * percentile(ordered, 50),
            "p99 ms": 1000 * percentile(ordered, 99),
            "failed": self.failed,
            "client CPU s": self.client_cpu_s,
        }


class _User:
    def __init__(self, port: int) -> None:
        self._address = ("127.0.0.1", port)
        self.socket = socket.create_connection(self._address, 30)
        self.begun = 0.0
        self.answer = Answer()

    def ask(self, target: str) -> None:
        self.answer = Answer()
        self.begun = time.monotonic()
        self.socket.sendall(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())

    def again(self) -> None:
        self.socket.close()
        self.socket = socket.create_connection(self._address, 30)


def visit(port: int, users: int, seconds: float, target: str) -> Seen:
    """
    Have *users* ask for *target* for some *seconds*, each when the answer before has come. Those
    who wait then are waited for: their times count, and their transactions for no rate.

    :param target: with ``{n}`` where each request is to have a number of its own.
    """
    seen = Seen()
    visitors = [_User(port) for _ in range(users)]
    cpu = resource.getrusage(resource.RUSAGE_SELF)
    start = time.monotonic()
    number = 0
    with selectors.DefaultSelector() as selector:
        for visitor in visitors:
            selector.register(visitor.socket, selectors.EVENT_READ, visitor)
            number += 1
            visitor.ask(target.replace("{n}", str(number)))
        end = start + seconds
        waiting = users
        while waiting and (now := time.monotonic()) < end + _LINGER_S:
            for key, _ in selector.select(end + _LINGER_S - now):
                visitor = key.data
                try:
                    if not visitor.answer.feed(visitor.socket.recv(_RECEIVE_BYTES)):
                        continue
                    seen.times_s.append(time.monotonic() - visitor.begun)
                    seen.in_time += time.monotonic() < end
                except (OSError, UnexpectedAnswerError):
                    seen.failed += 1
                    selector.unregister(visitor.socket)
                    visitor.again()
                    selector.register(visitor.socket, selectors.EVENT_READ, visitor)
                if time.monotonic() < end:
                    number += 1
                    visitor.ask(target.replace("{n}", str(number)))
                else:
                    selector.unregister(visitor.socket)
                    waiting -= 1
    seen.failed += waiting
    seen.seconds = seconds
    for visitor in visitors:
        visitor.socket.close()
    used = resource.getrusage(resource.RUSAGE_SELF)
    seen.client_cpu_s = used.ru_utime + used.ru_stime - cpu.ru_utime - cpu.ru_stime
    return seen


def siege(port: int, users: int, seconds: int, target: str) -> dict[str, float]:
    """The same by siege, which is to be installed; a connection for each transaction."""
    program = shutil.which("siege")
    assert program is not None
    with tempfile.TemporaryDirectory() as home:
        urls = Path(home) / "urls.txt"
        count = 20_000 if "{n}" in target else 1
        lines = (f"http://127.0.0.1:{port}{target.replace('{n}', str(n))}" for n in range(count))
        urls.write_text("\n".join(lines) + "\n")
        said = subprocess.run(
            [program, f"-c{users}", f"-t{seconds}S", "-b", "-j", "-q", "-f", str(urls)],
            capture_output=True,
            check=True,
            env={"HOME": home, "PATH": "/usr/bin:/bin"},
        ).stdout.decode()
    result = json.loads(said[said.index("{") :])
    return {
        "transactions": result["transactions"],
        "rate /s": result["transaction_rate"],
        "longest s": result["longest_transaction"],
        "shortest s": result["shortest_transaction"],
        "failed": result["failed_transactions"],
    }
