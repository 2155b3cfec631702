"""`kill -9` at random moments. `tests/live` does it more often."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from random import randrange

from tests.process.exchange import head, request
from tests.process.killing import kill_rounds
from tests.process.running import Process, start


def test_what_was_acknowledged_survives_kill_9_and_nothing_half_done_does(tmp_path: Path) -> None:
    """Case 3."""
    kill_rounds(tmp_path / "area", rounds=5, seed=randrange(1 << 32))


def test_a_lock_of_a_killed_service_does_not_stop_the_next(
    tmp_path: Path, serve: Callable[..., Process]
) -> None:
    """Case 27: the lock goes with its process."""
    killed = start(tmp_path / "area" / "media")
    killed.kill()
    assert serve().ask("PUT", "/media/a/b.wav", b"x").status == 201


def test_sigterm_in_the_middle_of_uploads_leaves_nothing_and_ends_in_time(
    serve: Callable[..., Process],
) -> None:
    """Case 47."""
    service = serve("--grace", "1s")
    assert service.ask("PUT", "/media/kept/a.wav", b"x" * (1 << 20)).status == 201
    uploads = [service.connect() for _ in range(8)]
    for n, upload in enumerate(uploads):
        fields = [("Content-Length", "9000000"), ("Expect", "100-continue")]
        upload.send(head("PUT", f"/media/kept/{n}.wav", fields))
        assert upload.answer_head()[0] == 100  # so it is in progress
        upload.send(b"x" * (n * 400_000))
    reader = service.connect()
    reader.send(request("GET", "/media/kept/a.wav"))
    begun = time.monotonic()
    assert service.stop() == -signal.SIGTERM
    assert time.monotonic() - begun < 5
    for upload in uploads:
        assert upload.read_to_the_end() == b""
        upload.close()
    reader.close()
    assert service.tree() == ["kept", "kept/a.wav"]
    assert service.log.count("not stored: ") == 8
