"""slowhttptest, a program that holds connections by being slow, with 1,000 of them."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from tests.live.support import clean_environment
from tests.live.test_slow import p99, shown
from tests.process.exchange import Connection, request
from tests.process.running import Process, eventually

CONNECTIONS = 1000
A_SECOND = 200
LASTS_S = 12
MEASURED_S = 9.0  # after 5 of which all have connected
# The program connects from 127.0.0.1, and a normal client from somewhere else.
NORMAL = "127.0.0.3"
SMALL = Random(24).randbytes(2_000)
LARGE_BYTES = 4 << 20
AT_MOST = 3.0  # times the p99 of a client that is alone
AT_MOST_S = 0.05  # whatever that is: the program takes a core of its own

_COLOURS = re.compile(r"\x1b\[[\d;]*[A-Za-z]")

MODES = {
    "headers": ["-H", "-i", "1", "-x", "24"],
    "body": ["-B", "-i", "1", "-s", "8192", "-x", "10"],
    "range": ["-R", "-a", "5", "-b", "3000", "-t", "HEAD"],
    "read": ["-X", "-w", "512", "-y", "1024", "-n", "1", "-z", "32", "-k", "3"],
}


def window(port: int, seconds: float) -> list[float]:
    """How long a small GET takes, again and again on a kept connection; sorted."""
    took = []
    sent = request("GET", "/media/a/small.wav")
    end = socket.create_connection(("127.0.0.1", port), 20.0, source_address=(NORMAL, 0))
    with Connection(end) as connection:
        until = time.monotonic() + seconds
        while (asked := time.monotonic()) < until:
            connection.send(sent)
            assert connection.answer().content == SMALL
            took.append(time.monotonic() - asked)
            time.sleep(0.004)
    return sorted(took)


@pytest.mark.parametrize("mode", MODES)
def test_a_thousand_slow_connections_delay_nobody(
    serve: Callable[..., Process], tmp_path: Path, mode: str
) -> None:
    """Case 24."""
    service = serve()
    assert service.ask("PUT", "/media/a/small.wav", SMALL).status == 201
    assert service.ask("PUT", "/media/a/large.wav", bytes(LARGE_BYTES)).status == 201
    window(service.port, 0.5)
    alone = window(service.port, 2.0)
    target = "/media" if mode == "body" else "/media/a/large.wav"
    command = ["slowhttptest", *MODES[mode], "-c", str(CONNECTIONS), "-r", str(A_SECOND)]
    command += ["-l", str(LASTS_S), "-p", "5", "-u", f"http://127.0.0.1:{service.port}{target}"]
    with (tmp_path / "said").open("wb") as said:
        program = subprocess.Popen(
            command, cwd=tmp_path, env=clean_environment(), stdout=said, stderr=said
        )
        try:
            beside = window(service.port, MEASURED_S)
            assert program.wait(LASTS_S * 3) == 0
        finally:
            program.kill()
            program.wait()
    text = _COLOURS.sub("", (tmp_path / "said").read_text(encoding="utf-8", errors="replace"))
    print(f"\nalone:  {shown([alone])}\nbeside: {shown([beside])}")
    # The program asks for itself, too: every line says whether it was served.
    served = re.findall(r"service available: +(YES|NO)", text)
    assert served, text
    assert set(served) == {"YES"}, text
    assert p99(beside) < max(AT_MOST * p99(alone), AT_MOST_S)
    eventually("all are gone", lambda: service.ask("GET", "/health").json["connections"] == 1, 60)
