"""Stopping with a grace, signals, the access log, and slow clients and disks."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random

import pytest

from tests.process import blocked
from tests.process.exchange import (
    MULTIPART,
    URLENCODED,
    Connection,
    chunked,
    form,
    head,
    part,
    request,
    urlencoded,
)
from tests.process.running import Process, drafts_in, eventually, start
from tests.process.test_readers import narrow

LARGE = Random(61).randbytes(8 << 20)  # more than the kernel buffers for a `narrow` reader
CONTENT = Random(62).randbytes(700_000)  # half of it is more than the test waits for
STOPS = "stopping: "
EXPECT = ("Expect", "100-continue")
# For the end itself, on a busy machine. Less than LINGER_S, and far less than the grace.
MARGIN_S = 4.0

A_FORM = form(part("a", "form.wav", CONTENT), part("a", "form.mp3", b"short"))
SOME_FIELDS = urlencoded(("directory", "a"), ("filename", "fields.wav"), ("body", CONTENT))
# Ways to store files: the head of a request, its content, and the files.
WAYS = {
    "put": (
        head("PUT", "/media/a/put.wav", [("Content-Length", str(len(CONTENT))), EXPECT]),
        CONTENT,
        {"a/put.wav": CONTENT},
    ),
    "chunked": (
        head("PUT", "/media/a/chunked.wav", [("Transfer-Encoding", "chunked"), EXPECT]),
        chunked([CONTENT[:100_000], CONTENT[100_000:]]),
        {"a/chunked.wav": CONTENT},
    ),
    "form": (
        head(
            "POST",
            "/media",
            [("Content-Type", MULTIPART), ("Content-Length", str(len(A_FORM))), EXPECT],
        ),
        A_FORM,
        {"a/form.wav": CONTENT, "a/form.mp3": b"short"},
    ),
    "fields": (
        head(
            "POST",
            "/media",
            [("Content-Type", URLENCODED), ("Content-Length", str(len(SOME_FIELDS))), EXPECT],
        ),
        SOME_FIELDS,
        {"a/fields.wav": CONTENT},
    ),
}


def begin_uploads(service: Process, open_: ExitStack, kept: bool = False) -> dict[str, Connection]:
    """Begin one upload of each way, and send half of it. With `kept`, on connections that had a
    request before.
    """
    uploads = {}
    for way, (sent, content, _) in WAYS.items():
        upload = uploads[way] = open_.enter_context(service.connect())
        if kept:
            assert upload.ask("GET", "/health").headers["Connection"] is None
        upload.send(sent)
        assert upload.answer_head()[0] == 100  # so it is in progress
        upload.send(content[: len(content) // 2])
    return uploads


def begin_download(service: Process, open_: ExitStack) -> Connection:
    """Begin to read `a/large.wav`, which exists, and receive the head of the response."""
    reader = open_.enter_context(narrow(service.port))
    reader.send(request("GET", "/media/a/large.wav"))
    assert reader.answer_head()[0] == 200
    return reader


def request_stop(service: Process, number: signal.Signals = signal.SIGTERM) -> float:
    """Send a signal, and wait until the service begins to stop. Returns the time of the signal."""
    signalled_s = time.monotonic()
    service.signal(number)
    eventually("it stops", lambda: STOPS in service.log)
    return signalled_s


def stored_below(root: Path) -> dict[str, bytes]:
    """The files below `root`, with their content."""
    names = [path.relative_to(root) for path in root.rglob("*.*") if path.is_file()]
    return {str(name): (root / name).read_bytes() for name in names}


# The end


def test_requests_in_progress_are_completed_before_the_service_ends(
    serve: Callable[..., Process],
) -> None:
    """Each response says `Connection: close`, unless its head was sent before."""
    service = serve()
    assert service.ask("PUT", "/media/a/large.wav", LARGE).status == 201
    expected = {"a/large.wav": LARGE}
    with ExitStack() as open_:
        uploads = begin_uploads(service, open_, kept=True)
        reader = begin_download(service, open_)
        request_stop(service)
        for way, upload in uploads.items():
            _, content, files = WAYS[way]
            upload.send(content[len(content) // 2 :])
            answer = upload.answer()
            assert answer.brief == (201, 200)
            assert answer.headers["Connection"] == "close"
            assert upload.is_ended()
            expected |= files
        assert reader.read(len(LARGE)) == LARGE
        ended = time.monotonic()
        assert reader.is_ended()
        assert service.wait() == -signal.SIGTERM
        assert time.monotonic() - ended < MARGIN_S
    assert stored_below(service.root) == expected
    assert drafts_in(service.root) == []


def test_a_service_without_requests_ends_at_once(serve: Callable[..., Process]) -> None:
    service = serve()
    with service.connect() as kept, service.connect():
        assert kept.ask("GET", "/health").status == 200
        begun = time.monotonic()
        assert service.stop() == -signal.SIGTERM
        assert time.monotonic() - begun < MARGIN_S
        assert kept.is_ended()


def test_a_stopping_service_accepts_no_new_requests(serve: Callable[..., Process]) -> None:
    """New connections are refused, and those without a request are closed; one that has begun a
    request is answered.
    """
    service = serve()
    with ExitStack() as open_:
        uploads = begin_uploads(service, open_)
        idle = [open_.enter_context(service.connect()) for _ in range(20)]
        for connection in idle[1:]:
            assert connection.ask("GET", "/health").status == 200
        begun = open_.enter_context(service.connect())
        begun.send(request("GET", "/health")[:9])
        assert service.ask("GET", "/health").status == 200  # that has come by now
        signalled_s = request_stop(service)
        with pytest.raises(ConnectionRefusedError):
            service.connect()
        assert all(connection.is_ended() for connection in idle)
        assert time.monotonic() - signalled_s < MARGIN_S
        begun.send(request("GET", "/health")[9:])
        assert begun.answer().headers["Connection"] == "close"
        assert begun.is_ended()
        for way, upload in uploads.items():
            upload.send(WAYS[way][1][len(WAYS[way][1]) // 2 :])
            assert upload.answer().status == 201


def test_requests_after_the_last_one_are_not_begun(serve: Callable[..., Process]) -> None:
    """Case 46. The client knows that, because `Connection: close` is sent before."""
    service = serve()
    sent, content, files = WAYS["put"]
    with service.connect() as connection:
        connection.send(sent)
        assert connection.answer_head()[0] == 100
        request_stop(service)
        connection.send(content + request("PUT", "/media/a/behind.wav", b"x"))
        assert connection.answer().headers["Connection"] == "close"
        assert connection.is_ended()
    assert service.wait() == -signal.SIGTERM
    assert stored_below(service.root) == files


def test_after_the_grace_remaining_requests_are_cut_off(
    tmp_path: Path, serve: Callable[..., Process]
) -> None:
    """Case 47. They leave only lines in the logs. A reader can detect that it was cut off."""
    log = tmp_path / "access.log"
    service = serve("--grace", "1s", "--access-log", str(log))
    assert service.ask("PUT", "/media/a/large.wav", LARGE).status == 201
    with ExitStack() as open_:
        uploads = begin_uploads(service, open_)
        silent = open_.enter_context(service.connect())
        silent.send(WAYS["put"][0])
        reader = begin_download(service, open_)
        signalled_s = request_stop(service)
        assert service.wait() == -signal.SIGTERM
        lasted = time.monotonic() - signalled_s
        assert 1.0 <= lasted < 1.0 + MARGIN_S
        for upload in uploads.values():
            assert upload.is_ended()
        assert len(reader.read_to_the_end()) < len(LARGE)
    assert stored_below(service.root) == {"a/large.wav": LARGE}
    assert drafts_in(service.root) == []
    assert "still running" not in service.log
    assert service.log.count("not stored: ") == 5
    lines = log.read_text(encoding="ascii")
    assert len(re.findall(r'"(?:PUT|POST) \S+ HTTP/1\.1" 499 - ', lines)) == 5
    assert len(re.findall(r'"GET /media/a/large\.wav HTTP/1\.1" 200 \d+ ', lines)) == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (signal.SIGTERM, signal.SIGTERM),
        (signal.SIGINT, signal.SIGINT),
        (signal.SIGTERM, signal.SIGINT),
        (signal.SIGINT, signal.SIGTERM),
    ],
)
def test_a_second_signal_cuts_off_requests_at_once(
    tmp_path: Path, first: signal.Signals, second: signal.Signals
) -> None:
    service = start(tmp_path / "area" / "media")
    try:
        assert service.ask("PUT", "/media/a/large.wav", LARGE).status == 201
        with ExitStack() as open_:
            uploads = begin_uploads(service, open_)
            reader = begin_download(service, open_)
            request_stop(service, first)
            assert service.log.count("cutting") == 0
            signalled_s = time.monotonic()
            service.signal(second)
            assert service.wait() == -first  # twistd ends by the signal that ended it
            assert time.monotonic() - signalled_s < MARGIN_S
            for upload in uploads.values():
                assert upload.is_ended()
            assert len(reader.read_to_the_end()) < len(LARGE)
        assert stored_below(service.root) == {"a/large.wav": LARGE}
        assert drafts_in(service.root) == []
        assert service.log.rstrip().endswith("Server Shut Down.")
        assert "Traceback" not in service.log
    finally:
        service.kill()


def test_the_content_of_a_lock_file_does_not_matter(
    tmp_path: Path, serve: Callable[..., Process]
) -> None:
    """Case 27: in a container the service that was killed and the next one both are process 1, so a
    number in a file proves nothing. What counts goes with the process.
    """
    killed = start(tmp_path / "area" / "media")
    killed.kill()
    lock = killed.root / ".twistedmedia" / "lock"
    assert lock.read_bytes() == b""
    lock.write_text(f"{os.getpid()}\n", encoding="ascii")  # as others do it: we surely are alive
    assert serve().ask("PUT", "/media/a/b.wav", b"x").status == 201


# SIGHUP, and the access log


def assert_ignored(number: signal.Signals, service: Process) -> None:
    """Check that uploads continue and new requests are served after any number of these signals."""
    with ExitStack() as open_:
        uploads = begin_uploads(service, open_)
        for _ in range(3):
            service.signal(number)
            assert service.ask("GET", "/health").status == 200
        for way, upload in uploads.items():
            upload.send(WAYS[way][1][len(WAYS[way][1]) // 2 :])
            assert upload.answer().status == 201


def test_sighup_without_an_access_log_is_ignored(serve: Callable[..., Process]) -> None:
    """The default action of the signal would end the process."""
    assert_ignored(signal.SIGHUP, serve())


def test_sigusr1_without_a_log_file_is_ignored(serve: Callable[..., Process]) -> None:
    """The log says once that it has no file to rotate."""
    service = serve()
    assert_ignored(signal.SIGUSR1, service)
    eventually("it is logged", lambda: "SIGUSR1 is ignored" in service.log)
    assert service.log.count("SIGUSR1 is ignored") == 1


def test_a_renamed_access_log_continues_in_a_new_file_without_losing_a_line(
    tmp_path: Path, serve: Callable[..., Process]
) -> None:
    """Under load, five times."""
    clients, times = 4, 5
    log = tmp_path / "access.log"
    service = serve("--access-log", str(log))
    assert service.ask("PUT", "/media/a/b.wav", b"x").status == 201
    asked: Counter[int] = Counter()
    is_over = threading.Event()

    def ask(client: int) -> None:
        with service.connect() as connection:
            while not is_over.is_set():
                connection.ask("GET", f"/media/a/b.wav?{client}-{asked[client]:04}")
                asked[client] += 1

    threads = [threading.Thread(target=ask, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    files = [log]
    for number in range(times):
        eventually("a line was written", lambda: log.stat().st_size > 0)
        files.insert(-1, log.rename(log.with_suffix(f".{number}")))
        service.signal(signal.SIGHUP)
        eventually("there is a new file", log.exists)
    is_over.set()
    for thread in threads:
        thread.join()
    service.ask("GET", "/nowhere")  # so that the last file has a line
    assert service.stop() == -signal.SIGTERM
    texts = [file.read_text(encoding="ascii") for file in files]
    assert all(texts), "a file is empty"
    assert all(text.endswith("\n") for text in texts)
    lines = re.findall(r'"GET /media/a/b\.wav\?(\d)-(\d+) HTTP/1\.1" 200 1 ', "".join(texts))
    for client in range(clients):
        numbers = [int(number) for whose, number in lines if int(whose) == client]
        assert numbers == list(range(asked[client]))


def test_a_client_cannot_break_a_line_of_the_access_log(
    tmp_path: Path, serve: Callable[..., Process]
) -> None:
    """Case 35: newlines, quotes, emoji, escapes and bytes that are not text."""
    log = tmp_path / "access.log"
    service = serve("--access-log", str(log))
    line = re.compile(
        r'(\S+) - - \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d \+0000\] "([^"]*)" (\d{3}) (\d+|-) '
        r'"([^"]*)" "([^"]*)" \d+\.\d{3}'
    )
    emoji = "\N{SPEAKER WITH THREE SOUND WAVES}".encode().decode("latin-1")
    nasty = f'a"b\\n\\"\t{emoji}\xff'
    escaped = r"a\x22b\x5cn\x5c\x22\x09\xf0\x9f\x94\x8a\xff"
    rows = [
        ("/media/a/%0A%0D%00%1b%22.wav", {}, "GET /media/a/%0A%0D%00%1b%22.wav HTTP/1.1"),
        (f'/media/a/"{emoji}?\\', {}, r"GET /media/a/\x22\xf0\x9f\x94\x8a?\x5c HTTP/1.1"),
        ("/health", {"Referer": nasty, "User-Agent": nasty}, "GET /health HTTP/1.1"),
        ("/health", {"Referer": '" 200 1 "', "User-Agent": ""}, "GET /health HTTP/1.1"),
        ("/health\x1b[31m", {}, "-"),  # not a request
        ("/health", {"User-Agent": "a\0b"}, "-"),
        ("/health", {"User-Agent": "a\nb"}, "-"),
        ("/health", {"User-Agent": "a\rb"}, "-"),
    ]
    statuses = [service.ask("GET", target, headers=fields).status for target, fields, _ in rows]
    assert statuses == [400, 404, 200, 200, 400, 400, 400, 400]
    assert service.stop() == -signal.SIGTERM
    lines = log.read_bytes().decode("ascii").splitlines()
    found = [line.fullmatch(each) for each in lines[1:]]  # the first is that of the start
    assert all(found), lines
    told = [match.groups() for match in found if match is not None]
    assert {each[0] for each in told} == {"127.0.0.1"}
    assert [each[1] for each in told] == [written for _, _, written in rows]
    assert [int(each[2]) for each in told] == statuses
    assert [each[4:] for each in told[2:4]] == [(escaped, escaped), (r"\x22 200 1 \x22", "-")]


# Slow clients


def test_slow_clients_get_408_or_are_disconnected(serve: Callable[..., Process]) -> None:
    """Case 24: slow heads, content and readers at once. Other clients are served meanwhile."""
    service = serve("--header-timeout", "2s", "--stall", "3s", "--min-rate", "1KiB")
    assert service.ask("PUT", "/media/a/large.wav", LARGE).status == 201
    with service.unchanged(), ExitStack() as open_:
        readers = [begin_download(service, open_) for _ in range(10)]
        silent = [open_.enter_context(service.connect()) for _ in range(10)]
        heads = [open_.enter_context(service.connect()) for _ in range(10)]
        contents = [open_.enter_context(service.connect()) for _ in range(10)]
        steady = open_.enter_context(service.connect())
        begun = time.monotonic()
        for connection in heads:
            connection.send(b"GET /health HTTP/1.1\r\nX: ")
        for connection in contents:
            connection.send(head("PUT", "/media/a/b.wav", [("Content-Length", "10000")]))
        steady.send(head("PUT", "/media/a/steady.wav", [("Content-Length", "72000")]))
        ended: dict[Connection, float] = {}

        def dribble() -> None:
            for connection in (*heads, *contents):
                if connection not in ended:
                    connection.send(b"x")
                    if _has_something(connection):
                        ended[connection] = time.monotonic() - begun

        # 72,000 bytes in 4.5 s: above the minimum rate, even if a busy machine pauses for a second.
        for _ in range(18):
            dribble()
            steady.send(b"s" * 4000)
            assert service.ask("GET", "/health").status == 200
            time.sleep(0.25)  # the rate of a slow sender
        assert steady.answer().status == 201
        while len(ended) < 20:
            dribble()
            assert time.monotonic() - begun < 20, "some are still connected"
            time.sleep(0.25)
        for connection in silent:
            assert connection.is_ended()
        for connection in (*heads, *contents):
            assert connection.answer().brief == (408, 408)
        # A head that is late ends after 2 s, content in one or two windows of 3 s. The defaults are
        # 15 s and 30 s.
        assert all(1.9 < ended[connection] < 2 + MARGIN_S for connection in heads), ended.values()
        assert all(2.9 < ended[connection] < 6 + MARGIN_S for connection in contents), (
            ended.values()
        )
        eventually(
            "readers are disconnected", lambda: service.log.count("took nothing for 3 s") == 10
        )
        for reader in readers:
            assert len(reader.read_to_the_end()) < len(LARGE)
        assert steady.ask("DELETE", "/media/a/steady.wav").json["deleted"] is True


def _has_something(connection: Connection) -> bool:
    connection.socket.setblocking(False)
    try:
        return bool(connection.socket.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False
    finally:
        connection.socket.settimeout(20)


@pytest.fixture(params=["writev", "fsync"])
def hanging(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Process]:
    """A service whose disk can be made to hang in the call of the parameter."""
    process = blocked.start(
        request.param, tmp_path / "area" / "media", "--fetch-allow", "127.0.0.1"
    )
    try:
        yield process
        assert process.stop() == -signal.SIGTERM
        assert "Traceback" not in process.log
    finally:
        process.kill()


def test_ten_uploads_that_wait_for_the_disk_do_not_delay_other_requests(hanging: Process) -> None:
    """Case 29: health checks, small downloads and fetches."""
    url = f"http://127.0.0.1:{hanging.port}/media/a/small.wav"
    assert hanging.ask("PUT", "/media/a/small.wav", CONTENT[:40_000]).status == 201
    blocked.hang(hanging)
    with ExitStack() as open_:
        uploads = [open_.enter_context(hanging.connect()) for _ in range(10)]
        for number, upload in enumerate(uploads):
            upload.send(request("PUT", f"/media/b/{number}.wav", CONTENT))
        # Four or all of the writing threads; the other uploads wait for one of them.
        eventually("calls wait", lambda: hanging.log.count(blocked.WAITS) >= 4)
        eventually(
            "all ten have begun", lambda: hanging.ask("GET", "/health").json["uploads"] == 10
        )
        took: dict[str, list[float]] = {}
        with hanging.connect() as other:
            for _ in range(20):
                for target in ("/health", "/media/a/small.wav", f"/fetch?url={url}", "/media/a/"):
                    asked = time.monotonic()
                    assert other.ask("GET", target).status == 200
                    took.setdefault(target, []).append(time.monotonic() - asked)
        print({target: f"{max(each):.4f}" for target, each in took.items()})
        # They do not wait for the disk, and nearly all are served at once, even on a busy machine.
        assert all(sorted(each)[len(each) // 2] < 0.5 for each in took.values()), took
        assert max(max(each) for each in took.values()) < MARGIN_S
        assert not any(_has_something(upload) for upload in uploads)
        hanging.signal(signal.SIGUSR2)
        for upload in uploads:
            assert upload.answer().status == 201
    for number in range(10):
        assert (hanging.root / "b" / f"{number}.wav").read_bytes() == CONTENT
