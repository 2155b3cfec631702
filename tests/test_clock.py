"""The clock of a reactor: after `use_monotonic_time` steps of the wall clock move no timers."""

from __future__ import annotations

import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from twistedmedia.service.options import Options
from twistedmedia.service.tap import makeService

# Runs with a wall clock that the code can step.
STEPPED = """
import time
real = time.time
offset = lambda: 0.0
time.time = lambda: real() + offset()
"""
TIMERS = """
from importlib import import_module
import sys
import_module(f"twisted.internet.{sys.argv[1]}").install()
from twisted.internet import reactor, task
from twistedmedia import use_monotonic_time

def step():
    global offset
    offset = lambda: float(sys.argv[2])

def stop():
    reactor.stop() if len(beats) >= 4 else reactor.callLater(0.1, stop)

beats = []
beating = task.LoopingCall(lambda: beats.append(time.monotonic()))
beating.clock = reactor
begun = time.monotonic()
early = reactor.callLater(0.4, lambda: reactor.callLater(0.4, stop))
gone = reactor.callLater(0.1, print, "was cancelled")
gone.cancel()
never = reactor.callLater(50, print, "fired at once")
use_monotonic_time(reactor)
use_monotonic_time(reactor)
assert 49 < never.getTime() - reactor.seconds() < 51
beating.start(0.1)
reactor.callLater(0.2, step)
reactor.run()
lasted = time.monotonic() - begun
assert lasted > 0.75, lasted  # a timer on the wall clock would wait for a day
assert len(beats) <= 2 + lasted / 0.1, beats
"""


@pytest.mark.parametrize("step_s", [86_400, -86_400])
@pytest.mark.parametrize(
    "reactor", ["epollreactor", "pollreactor", "selectreactor", "asyncioreactor"]
)
def test_timers_fire_in_time_although_the_wall_clock_is_stepped(reactor: str, step_s: int) -> None:
    """Case 88. Also timers that were scheduled before the reactor got its clock."""
    code = STEPPED + TIMERS
    done = subprocess.run(
        [sys.executable, "-c", code, reactor, str(step_s)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_service_sets_the_clock_of_its_reactor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case 88."""
    from twisted.internet import reactor

    monkeypatch.chdir(tmp_path)
    options = Options()
    options.parseOptions([])
    makeService(options)
    assert reactor.seconds is time.monotonic


COMMAND = """
import random
import sys
random.random = lambda: 1.0  # so it waits for 0.5 s, then for 1 s
from twistedmedia.client.command import main
begun = time.monotonic()
offset = lambda: -86_400.0 if time.monotonic() > begun + 0.3 else 0.0
sys.exit(main.main(["--url", sys.argv[1], "--retries", "2", "put", sys.argv[2], "a"]))
"""


class Busy(BaseHTTPRequestHandler):
    """A service that is always busy."""

    def do_GET(self) -> None:
        content = b'{"code": 514, "reason": "busy"}'
        self.send_response(503)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        self.close_connection = True

    do_HEAD = do_PUT = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


def test_the_command_tries_again_although_the_wall_clock_is_stepped(
    tmp_path: Path,
) -> None:
    """Case 88."""
    file = tmp_path / "a.wav"
    file.write_bytes(b"RIFF")
    with HTTPServer(("127.0.0.1", 0), Busy) as busy:
        serving = Thread(target=busy.serve_forever)
        serving.start()
        try:
            done = subprocess.run(
                [
                    sys.executable,
                    "-c",
                    STEPPED + COMMAND,
                    f"http://127.0.0.1:{busy.server_port}/",
                    str(file),
                ],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        finally:
            busy.shutdown()
            serving.join()
    assert done.returncode == 1, done
    assert done.stderr.count("trying again") == 2, done
