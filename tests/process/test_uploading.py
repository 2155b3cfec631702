"""Resumable uploads over a socket, whatever is sent, and whatever becomes of the service."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from tests.process.exchange import Answer, Connection, head
from tests.process.running import Process, eventually, start
from tests.process.uploading import (
    DIRECTORY,
    HERE,
    LENGTH,
    OFFSET,
    PART,
    REST,
    ROWS,
    TUS,
    WHOLE,
    Row,
    metadata,
    sha1,
)

CONTENT = Random(47).randbytes(1_000_000)
SENT = 700_000  # of it: more than is handed on at once, and more than is left unread


def created(service: Process, name: str = f"{DIRECTORY}/new.wav", length: int = len(WHOLE)) -> str:
    """The URL of a new upload."""
    directory, _, filename = name.rpartition("/")
    fields = dict([TUS, ("Upload-Length", str(length)), *metadata(filename, directory)])
    answer = service.ask("POST", "/uploads", b"", fields)
    assert answer.status == 201, answer
    url: str = answer.json["upload"]
    return url


def patched(
    service: Process, upload: str, offset: int, content: bytes, *more: tuple[str, str]
) -> int:
    """The status of an answer to a part."""
    fields = dict([TUS, PART, ("Upload-Offset", str(offset)), *more])
    return service.ask("PATCH", upload, content, fields).status


def offset_of(service: Process, upload: str) -> int:
    answer = service.ask("HEAD", upload, headers=dict([TUS]))
    assert answer.status == 200, answer
    return int(answer.headers["Upload-Offset"])


@contextlib.contextmanager
def hanging(
    service: Process, upload: str, *more: tuple[str, str], sent: bytes = CONTENT[:SENT]
) -> Iterator[Connection]:
    """A part of CONTENT of which no more than `sent` comes."""
    fields = [TUS, PART, ("Upload-Offset", "0"), ("Content-Length", str(len(CONTENT))), *more]
    with service.connect() as connection:
        connection.send(head("PATCH", upload, fields) + sent)
        yield connection


def file_of(service: Process, upload: str) -> Path:
    return service.root / ".twistedmedia" / "uploads" / f"{upload.rpartition('/')[2]}.bytes"


def records_in(service: Process) -> list[str]:
    """What lies beside the bytes of uploads; marks of what did not count may stay for a while."""
    folder = service.root / ".twistedmedia" / "uploads"
    return sorted(path.name for path in folder.iterdir() if path.suffix not in (".bytes", ".mark"))


def wait_for_bytes(service: Process, upload: str) -> None:
    eventually("a part is written", lambda: file_of(service, upload).stat().st_size > 0)


# The table


@pytest.fixture(scope="module")
def upload(service: Process) -> Iterator[str]:
    """One of which a part is here, for all rows."""
    victim = service.root / DIRECTORY / "victim.json"
    victim.parent.mkdir()
    victim.write_bytes(b"{}")
    url = created(service, f"{DIRECTORY}/hostile.wav")
    assert patched(service, url, 0, HERE) == 204
    yield url
    service.ask("DELETE", url, headers=dict([TUS]))
    victim.unlink(missing_ok=True)
    victim.parent.rmdir()


@pytest.mark.parametrize("group", dict.fromkeys(row.group for row in ROWS))
def test_what_is_hostile_is_refused_and_nothing_of_it_is_kept(
    service: Process, upload: str, group: str
) -> None:
    """Cases 9, 32 and 37."""
    before = records_in(service)
    wrong = {}
    with service.unchanged():
        for row in ROWS:
            if row.group == group:
                answer = answered(service, row, upload)
                brief = answer.brief if answer.content else (answer.status, 200)
                if brief != (row.status, row.code):
                    wrong[row.name] = brief
                if row.status == 412:
                    assert answer.headers["Tus-Version"] == "1.0.0"
                assert offset_of(service, upload) == len(HERE), row
                assert file_of(service, upload).read_bytes() == HERE, row
    assert wrong == {}
    assert records_in(service) == before


def answered(service: Process, row: Row, upload: str) -> Answer:
    with service.connect() as connection:
        with contextlib.suppress(ConnectionError):
            connection.send(row.sent(upload))
        return connection.answer()


def test_after_all_that_the_upload_goes_on(service: Process) -> None:
    url = created(service, f"{DIRECTORY}-after/new.wav")
    assert patched(service, url, 0, HERE, ("Upload-Checksum", sha1(HERE))) == 204
    assert patched(service, url, *(len(HERE), REST)) == 204
    stored = service.ask("GET", f"/media/{DIRECTORY}-after/new.wav")
    assert stored.content == WHOLE
    assert service.ask("DELETE", f"/media/{DIRECTORY}-after/new.wav").json["deleted"] is True


def test_every_row_is_another_request() -> None:
    assert len({str(row) for row in ROWS}) == len(ROWS)
    assert len({row.sent("x") for row in ROWS}) == len(ROWS) > 100
    assert dict([LENGTH, OFFSET]) == {"Upload-Length": "11", "Upload-Offset": "5"}


# Names


def test_a_name_is_never_taken_from_another_file(service: Process, folder: str) -> None:
    """Case 4: neither at the start nor at the end."""
    name = f"{folder}/a.wav"
    url = created(service, name)
    assert patched(service, url, 0, HERE) == 204
    assert service.ask("PUT", f"/media/{name}", b"first").status == 201
    fields = dict([TUS, LENGTH, *metadata("a.wav", folder)])
    assert service.ask("POST", "/uploads", b"", fields).brief == (409, 501)
    fields = dict([TUS, PART, OFFSET])
    assert service.ask("PATCH", url, REST, fields).brief == (410, 501)
    assert service.ask("HEAD", url, headers=dict([TUS])).status == 410
    assert service.ask("GET", f"/media/{name}").content == b"first"
    assert not file_of(service, url).exists()
    assert service.ask("DELETE", url, headers=dict([TUS])).status == 204


# Clients that come again


def test_a_part_that_hangs_is_superseded_at_once(service: Process, folder: str) -> None:
    """Case 28: Wi-Fi was lost, and the old connection does not know it yet."""
    url = created(service, f"{folder}/a.wav", len(CONTENT))
    with hanging(service, url) as old:
        wait_for_bytes(service, url)
        begun = time.monotonic()
        offset = offset_of(service, url)
        assert time.monotonic() - begun < 15  # and not until the old one is too slow, after 30 s
        told = old.answer()
        assert told.brief == (409, 409)
        assert "newer request" in told.json["reason"]
        assert 0 < offset <= SENT
        assert patched(service, url, offset, CONTENT[offset:]) == 204
    assert (service.root / folder / "a.wav").read_bytes() == CONTENT


# Services that end


def test_kill_9_takes_no_byte_that_was_written_and_leaves_none_that_does_not_count(
    tmp_path: Path, serve: Callable[..., Process]
) -> None:
    """Cases 3, 13 and 27."""
    killed = start(tmp_path / "area" / "media")
    plain, checked, expired, live = (
        created(killed, f"killed/{name}.wav", len(CONTENT)) for name in "abcd"
    )
    checksum = ("Upload-Checksum", sha1(CONTENT))
    for url in (expired, live):
        assert patched(killed, url, 0, CONTENT[:10]) == 204
    with hanging(killed, plain), hanging(killed, checked, checksum):
        for url in (plain, checked):
            wait_for_bytes(killed, url)
        killed.kill()
    written = file_of(killed, plain).read_bytes()
    assert CONTENT.startswith(written)
    two_days_ago = time.time() - 2 * 24 * 3600
    os.utime(file_of(killed, expired), (two_days_ago, two_days_ago))

    service = serve()
    assert service.root == killed.root
    assert offset_of(service, plain) == len(written)
    assert offset_of(service, checked) == 0
    assert offset_of(service, live) == 10
    eventually("it has expired", lambda: not file_of(service, expired).exists())
    assert service.ask("HEAD", expired, headers=dict([TUS])).status == 404
    assert patched(service, plain, len(written), CONTENT[len(written) :]) == 204
    assert patched(service, checked, 0, CONTENT, checksum) == 204
    for name in "ab":
        assert (service.root / "killed" / f"{name}.wav").read_bytes() == CONTENT
    assert service.tree() == ["killed", "killed/a.wav", "killed/b.wav"]


def test_sigterm_keeps_the_bytes_of_uploads_and_ends_in_time(
    tmp_path: Path, serve: Callable[..., Process]
) -> None:
    """Case 47: to the last byte that had come."""
    stopped = start(tmp_path / "area" / "media", "--grace", "1s")
    plain = created(stopped, "stopped/a.wav", len(CONTENT))
    checked = created(stopped, "stopped/b.wav", len(CONTENT))
    checksum = ("Upload-Checksum", sha1(CONTENT))
    with hanging(stopped, plain) as first, hanging(stopped, checked, checksum) as second:
        for url in (plain, checked):
            eventually(
                "a part is written", lambda url=url: file_of(stopped, url).stat().st_size > 0
            )  # type: ignore[misc]
        begun = time.monotonic()
        assert stopped.stop() == -signal.SIGTERM
        assert time.monotonic() - begun < 15
        for connection in (first, second):
            assert connection.read_to_the_end() == b""
    assert "Traceback" not in stopped.log
    assert len(re.findall("broke off: ", stopped.log)) == 2

    service = serve()
    assert offset_of(service, plain) == SENT
    assert offset_of(service, checked) == 0
    assert patched(service, plain, SENT, CONTENT[SENT:]) == 204
    assert (service.root / "stopped" / "a.wav").read_bytes() == CONTENT
