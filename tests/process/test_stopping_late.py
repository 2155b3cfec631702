"""A stopping service ends in time, even if its disk hangs or its threads are busy."""

from __future__ import annotations

import hashlib
import signal
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.process import blocked
from tests.process.exchange import head, request
from tests.process.running import Process, drafts_in, eventually, running
from tests.process.test_stopping import (
    MARGIN_S,
    WAYS,
    begin_uploads,
    request_stop,
    stored_below,
)
from tests.process.test_uploading import CONTENT, SENT, wait_for_bytes
from tests.process.uploading import LENGTH, PART, TUS, encoded, metadata

GRACE_S = 1.0
# Time to end after the grace on a busy machine, with any clients, and with any disk (10 s at most).
CLIENTS_S, DISK_S = MARGIN_S, 12.0
PUBLISH_S = 5.0  # limit of a publish after the grace
NEVER = "1h"  # a grace


@contextmanager
def hanging(tmp_path: Path, call: str, grace: str = f"{GRACE_S:g}s") -> Iterator[Process]:
    """A service on a disk that can hang in `call`. It is killed with the context."""
    service = blocked.start(call, tmp_path / "area" / "media", "--grace", grace)
    try:
        yield service
    finally:
        service.kill()


def assert_ended(service: Process) -> None:
    """Check that the service was ended by the signal, and in order."""
    assert service.wait() == -signal.SIGTERM
    assert service.log.rstrip().endswith("Server Shut Down.")
    assert "Traceback" not in service.log


# The call that hangs, and a request or job that the log has to name.
ROWS = [
    ("writev", "upload {upload} of 'a/part.wav'; media-writers: "),
    ("fsync", "'a/whole.wav'"),
    ("fsync", "upload {upload} of 'a/part.wav'"),
    ("fsync", "media-writers: "),
    ("statvfs", "media-writers: "),
    ("statvfs", "media-watcher: 1 x probe_storage"),
    ("unlink", "media-writers: 1 x delete"),
]


@pytest.mark.parametrize("call", dict.fromkeys(call for call, _ in ROWS))
def test_a_service_ends_even_if_its_disk_hangs(tmp_path: Path, call: str) -> None:
    """Case 29. The log names what was still in progress."""
    with hanging(tmp_path, call) as service, ExitStack() as open_:
        assert service.ask("PUT", "/media/a/deleted.wav", b"x").status == 201
        upload = begin_all(service, open_, call)
        signalled_s = request_stop(service)
        assert_ended(service)
        assert GRACE_S <= time.monotonic() - signalled_s < GRACE_S + DISK_S
        late = [line for line in service.log.splitlines() if "still running: " in line]
        for _, named in (row for row in ROWS if row[0] == call):
            assert any(named.format(upload=upload) in line for line in late), service.log
    with running(service.root):  # this sweeps what was left
        assert drafts_in(service.root) == []


def begin_all(service: Process, open_: ExitStack, call: str) -> str:
    """Begin requests of all kinds, and make the disk hang in `call`. Returns the id of a resumable
    upload.
    """
    # Of undeclared length, so that each part is synced.
    fields = dict([TUS, ("Upload-Defer-Length", "1"), *metadata("part.wav", "a")])
    upload: str = service.ask("POST", "/uploads", b"", fields).json["upload"]
    begin_uploads(service, open_)
    part, *others = (open_.enter_context(service.connect()) for _ in range(4))
    length = ("Content-Length", str(len(CONTENT)))
    sent = head("PATCH", upload, [TUS, PART, ("Upload-Offset", "0"), length]) + CONTENT[:SENT]
    part.send(sent)
    wait_for_bytes(service, upload)
    blocked.hang(service)
    part.send(CONTENT[SENT:])
    for other, sent in zip(
        others,
        (
            request("PUT", "/media/a/whole.wav", CONTENT),
            head("DELETE", "/media/a/deleted.wav"),
            head("GET", "/health"),
        ),
        strict=True,
    ):
        other.send(sent)
    # A busy service may read one of them after the call of another has begun to hang.
    blocked.wait_for_calls(service, 2 if call == "statvfs" else 1)
    if call in ("writev", "fsync"):
        count = len(WAYS) + 2  # with the part and the whole file
        eventually(
            "all uploads wait", lambda: service.ask("GET", "/health").json["uploads"] == count
        )
    return upload.rpartition("/")[2]


def test_a_second_signal_ends_a_service_whose_disk_hangs(tmp_path: Path) -> None:
    with hanging(tmp_path, "fsync", NEVER) as service, ExitStack() as open_:
        begin_all(service, open_, "fsync")
        request_stop(service)
        signalled_s = time.monotonic()
        service.signal(signal.SIGTERM)
        assert_ended(service)
        assert time.monotonic() - signalled_s < DISK_S


def test_a_publish_that_a_slow_disk_completes_in_time_succeeds(tmp_path: Path) -> None:
    """A complete request is carried out (docs/http.md, Clients that close early)."""
    with hanging(tmp_path, "fsync") as service, service.connect() as connection:
        blocked.hang(service)
        connection.send(request("PUT", "/media/a/whole.wav", CONTENT))
        blocked.wait_for_calls(service, 1)
        signalled_s = request_stop(service)
        assert connection.is_ended()
        time.sleep(PUBLISH_S / 2)  # the time of a slow disk
        blocked.answer(service)
        answered = time.monotonic()
        assert_ended(service)
        assert answered - signalled_s > GRACE_S
        assert time.monotonic() - answered < MARGIN_S
        assert stored_below(service.root) == {"a/whole.wav": CONTENT}
        assert "still running" not in service.log


def test_digests_that_take_minutes_end_with_the_grace(serve: Callable[..., Process]) -> None:
    """A service compares a file with the digest that a client declares: before the first byte of a
    PUT, when the name of a small one turns out to be taken, and when a resumable upload begins.
    """
    service = serve("--grace", f"{GRACE_S:g}s")
    large = service.root / "a" / "large.wav"
    large.parent.mkdir()
    with large.open("wb") as file:
        file.truncate(1 << 40)  # takes no space, but minutes to read
    sha256 = hashlib.sha256(b"other")
    digest = f"sha-256=:{b64encode(sha256.digest()).decode()}:"
    name = metadata("large.wav", "a")[0][1]
    asking = [
        request("PUT", "/media/a/large.wav", CONTENT, {"Repr-Digest": digest}),
        request("PUT", "/media/a/large.wav", b"other", {"Repr-Digest": digest}),
        request(
            "POST",
            "/uploads",
            b"",
            dict(
                [TUS, LENGTH, ("Upload-Metadata", f"{name},sha256 {encoded(sha256.hexdigest())}")]
            ),
        ),
    ]
    with ExitStack() as open_:
        connections = [open_.enter_context(service.connect()) for _ in asking]
        used_s = service.processor_time()  # its start takes about a second
        for connection, sent in zip(connections, asking, strict=True):
            connection.send(sent)
        eventually("threads compute", lambda: service.processor_time() - used_s > 0.5)
        signalled_s = request_stop(service)
        assert_ended(service)
        assert GRACE_S <= time.monotonic() - signalled_s < GRACE_S + CLIENTS_S
        assert "still running" not in service.log
