"""Slow readers: players, phones, clients that stop reading or disconnect. Over TCP, where the
kernel sends, and over TLS and a UNIX socket, where pieces are read in threads.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random

import pytest

from tests.process import embedded
from tests.process.exchange import Connection, head, request
from tests.process.running import Process, eventually

READERS = 200
RATE = 8_000  # bytes a second: what a phone drains of a prompt
DRAINING_S = 3.0
TICK_S = 0.25
PEAK_GROWTH = 2 << 20  # while all of them read
PROCESSOR_SHARE = 0.15  # of one core, while all of them read
SMALL_GET_S = 0.1

STALL_S = 3.0  # a busy machine pauses for less
NARROW_BYTES = 4096  # a small receive buffer, so that the service notices a slow reader

SMALL_BYTES, BLOCK_BYTES, TURN_BYTES = 64 << 10, 128 << 10, 1 << 20
SIZES = [1, *(edge + off for edge in (SMALL_BYTES, BLOCK_BYTES, TURN_BYTES) for off in (-1, 0, 1))]
LARGE = Random(31).randbytes((12 << 20) + 5)
TRANSPORTS = ("tcp", "tls", "unix")

Connect = Callable[[], Connection]


def narrow(port: int, timeout_s: float = 20.0) -> Connection:
    """A connection whose receive buffer in this process has a few kB."""
    end = socket.socket()
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, NARROW_BYTES)
    end.settimeout(timeout_s)
    end.connect(("127.0.0.1", port))
    return Connection(end)


def content_of(size: int) -> bytes:
    return Random(size).randbytes(size)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A program that serves over TCP, TLS and a UNIX socket, with a short `stall_s`."""
    folder = tmp_path_factory.mktemp("readers")
    root = folder / "area" / "media"
    root.mkdir(parents=True)
    options = ["--stall", str(STALL_S), "--tls", "--unix", str(folder / "http")]
    command = [sys.executable, embedded.__file__, "MediaSite", str(root), *options]
    process = Process(command, folder, folder / "program.log", root, log_is_late_s=0)
    try:
        (root / "a").mkdir()
        (root / "a" / "large.wav").write_bytes(LARGE)
        (root / "a" / "small.wav").write_bytes(b"small")
        yield process
    finally:
        process.kill()


@pytest.fixture(params=TRANSPORTS)
def connect(request: pytest.FixtureRequest, program: Process) -> Connect:
    """Opens connections to `program`, by each transport in turn."""
    return {
        "tcp": lambda: narrow(program.port),
        "tls": lambda: by_tls(program),
        "unix": lambda: _by_unix(program),
    }[request.param]


def by_tls(program: Process) -> Connection:
    """As `narrow`, over TLS."""
    match = re.search(r"\(TLS\) starting on (\d+)", program.log)
    assert match is not None
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the certificate is made at the start
    with socket.socket() as end:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, NARROW_BYTES)
        end.settimeout(20)
        end.connect(("127.0.0.1", int(match[1])))
        return Connection(context.wrap_socket(end))


def _by_unix(program: Process) -> Connection:
    end = socket.socket(socket.AF_UNIX)
    end.settimeout(20)
    end.connect(str(program.root.parent.parent / "http"))
    return Connection(end)


def test_200_players_that_drain_8_kb_a_second_cost_next_to_nothing(
    serve: Callable[..., Process],
) -> None:
    """Cases 24 and 26: none is cut off, memory does not grow, the event loop idles, and other
    clients are served at once.
    """
    service = serve()
    large = content_of(2 << 20)
    assert service.ask("PUT", "/media/a/large.wav", large).status == 201
    assert service.ask("PUT", "/media/a/small.wav", b"small").status == 201
    with ExitStack() as open_:
        players = [open_.enter_context(narrow(service.port)) for _ in range(READERS)]
        other = open_.enter_context(service.connect())
        for player in players:
            player.send(request("GET", "/media/a/large.wav"))
        for player in players:
            assert player.answer_head()[0] == 200
        peak, used = service.peak_memory(), service.processor_time()
        begun = time.monotonic()
        took: list[float] = []
        step = int(RATE * TICK_S)
        ticks = int(DRAINING_S / TICK_S)
        for tick in range(ticks):
            for player in players:
                assert player.read(step) == large[tick * step :][:step]
            asked = time.monotonic()
            assert other.ask("GET", "/media/a/small.wav").content == b"small"
            took.append(time.monotonic() - asked)
            # The pace of a player: nothing to wait for, only time.
            time.sleep(max(0.0, begun + (tick + 1) * TICK_S - time.monotonic()))
        lasted = time.monotonic() - begun
        share = (service.processor_time() - used) / lasted
        growth = service.peak_memory() - peak
        print(f"{share=:.3f} {growth=} {lasted=:.1f} median={sorted(took)[ticks // 2]:.4f}")
        assert growth < PEAK_GROWTH
        assert share < PROCESSOR_SHARE
        assert sorted(took)[ticks // 2] < SMALL_GET_S
        assert "cut off" not in service.log
        rest = players[0].read(len(large) - ticks * step)  # a fast player gets the rest
        assert rest == large[ticks * step :]


def test_a_reader_that_takes_nothing_is_cut_off_and_a_slow_one_is_not(
    program: Process, connect: Connect
) -> None:
    """Case 24: the timeout counts from the last byte that was read."""
    cuts = program.log.count("took nothing")
    with program.unchanged_descriptors(), connect() as slow, connect() as stopped:
        for reader in (slow, stopped):
            reader.send(request("GET", "/api/media/a/large.wav"))
        assert slow.answer_head()[0] == 200
        asked = time.monotonic()
        taken = bytearray()
        while program.log.count("took nothing") == cuts:
            lasted = time.monotonic() - asked
            assert lasted < 5 * STALL_S, "nobody is cut off"
            # A UNIX socket has room for 200 kB, and calls for more when most of that is free.
            taken += slow.read(64 << 10)
            time.sleep(0.1)
        assert lasted > 0.9 * STALL_S
        while time.monotonic() - asked < 2 * STALL_S:
            taken += slow.read(64 << 10)
            time.sleep(0.1)
        taken += slow.read(len(LARGE) - len(taken))
        assert bytes(taken) == LARGE
        assert program.log.count("took nothing") == cuts + 1
        assert f"took nothing for {STALL_S:g} s" in program.log
        assert len(stopped.read_to_the_end()) < len(LARGE)


def test_a_connection_with_nothing_under_way_is_not_a_slow_reader(
    program: Process, connect: Connect
) -> None:
    cuts = program.log.count("took nothing")
    with connect() as waiting, connect() as slow:
        waiting.send(request("GET", "/api/media/a/large.wav"))
        assert waiting.answer().content == LARGE
        slow.send(request("GET", "/api/media/a/large.wav"))  # a clock for `waiting`
        eventually("the other is cut off", lambda: program.log.count("took nothing") > cuts)
        assert waiting.ask("GET", "/api/media/a/small.wav").content == b"small"
        assert program.log.count("took nothing") == cuts + 1


@pytest.mark.parametrize("size", SIZES)
def test_a_file_of_any_size_is_whole_and_so_is_every_part_of_it(
    program: Process, connect: Connect, size: int
) -> None:
    """Around the sizes that choose the method: read with the head, read in pieces, or sent by the
    kernel.
    """
    content = content_of(size)
    url = f"/api/media/a/{size}.wav"
    (program.root / "a" / f"{size}.wav").write_bytes(content)
    starts = {0, 1, size // 2}
    lengths = {1, *(edge + off for edge in (SMALL_BYTES, BLOCK_BYTES) for off in (0, 1)), size}
    with connect() as connection:
        headed = connection.ask("HEAD", url)
        shown = connection.ask("GET", url)
        assert (shown.status, shown.content) == (200, content)
        del headed.headers["Date"], shown.headers["Date"]
        assert headed.headers.items() == shown.headers.items()
        for start in sorted(starts):
            for length in sorted(lengths):
                part = content[start : start + length]
                asked = {"Range": f"bytes={start}-{start + length - 1}"}
                answer = connection.ask("GET", url, headers=asked)
                if part:
                    assert answer.status == 206
                    assert answer.content == part
                else:
                    assert answer.status == 416
        assert connection.ask("GET", url, headers={"Range": "bytes=-1"}).content == content[-1:]


def test_a_reader_in_small_steps_gets_every_byte_once(connect: Connect) -> None:
    random = Random(32)
    with connect() as connection:
        connection.send(request("GET", "/api/media/a/large.wav"))
        assert connection.answer_head()[0] == 200
        taken = bytearray()
        while len(taken) < len(LARGE):
            piece = connection.read(min(random.randrange(1, 200_000), len(LARGE) - len(taken)))
            assert piece
            taken += piece
        assert bytes(taken) == LARGE
        assert connection.ask("GET", "/api/media/a/small.wav").content == b"small"


def test_pipelined_requests_get_their_responses_in_order(connect: Connect) -> None:
    """Case 46: pipelined requests while the reader reads a response late."""
    large, small = "/api/media/a/large.wav", "/api/media/a/small.wav"
    part = {"Range": f"bytes=1000-{1000 + TURN_BYTES}"}
    rounds = [
        (request("GET", large), LARGE),
        (request("GET", small), b"small"),
        (request("GET", large, headers=part), LARGE[1000:][: TURN_BYTES + 1]),
        (request("GET", small, headers={"Range": "bytes=1-2"}), b"ma"),
    ]
    with connect() as connection:
        connection.send(b"".join(sent for sent, _ in rounds) * 3)
        connection.send(request("HEAD", large) + request("GET", "/api/nowhere"))
        for _ in range(3):
            for _, expected in rounds:
                assert connection.answer().content == expected
        assert connection.answer("HEAD").headers["Content-Length"] == str(len(LARGE))
        assert connection.answer().brief == (404, 404)


def test_readers_that_disconnect_in_the_middle_leave_nothing_open(
    program: Process, connect: Connect
) -> None:
    """Case 25."""
    with program.unchanged_descriptors():
        for n in range(24):
            connection = connect()
            connection.send(request("GET", "/api/media/a/large.wav") * (1 + n % 2))
            if n % 3:
                assert connection.answer_head()[0] == 200
                connection.read(n * 40_000)
            (connection.reset if n % 4 < 2 else connection.close)()


@pytest.mark.parametrize("start", [0, 1 << 20], ids=["whole", "part"])
def test_a_file_that_shrinks_while_it_is_sent_ends_the_connection(
    program: Process, connect: Connect, start: int
) -> None:
    """It is not padded, and the client notices that it is short."""
    path = program.root / "a" / "shrinks.wav"
    path.write_bytes(LARGE)
    with connect() as connection, program.unchanged_descriptors():
        asked = {"Range": f"bytes={start}-"}
        connection.send(request("GET", "/api/media/a/shrinks.wav", headers=asked))
        connection.send(request("GET", "/api/media/a/small.wav"))
        status, headers = connection.answer_head()
        length = int(headers["Content-Length"])
        assert (status, length) == (206, len(LARGE) - start)
        received = connection.read(1000)
        os.truncate(path, 8 << 20)
        received += connection.read_to_the_end()
        assert len(received) <= (8 << 20) - start
        assert received == LARGE[start:][: len(received)]
        connection.close()
    assert "the file became shorter" in program.log


def test_a_file_outside_the_page_cache_is_sent(program: Process, connect: Connect) -> None:
    path = program.root / "a" / "cold.wav"
    path.write_bytes(LARGE)
    with path.open("rb") as file, connect() as connection:
        for asked, expected in {"bytes=0-": LARGE, "bytes=5000000-": LARGE[5_000_000:]}.items():
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            answer = connection.ask("GET", "/api/media/a/cold.wav", headers={"Range": asked})
            assert answer.content == expected


def test_downloads_do_not_wait_for_uploads(serve: Callable[..., Process]) -> None:
    """Case 26: the maximum of uploads, replacements of the same file among them, hold all that
    uploads hold, and never end.
    """
    service = serve("--max-uploads", "20", "--disk-threads", "2")
    content = content_of(1 << 20)
    first = service.ask("PUT", "/media/a/b.wav", content).files[0]
    with ExitStack() as open_:
        for n in range(20):
            upload = open_.enter_context(service.connect())
            fields = [("Content-Length", "9000000"), ("Expect", "100-continue")]
            if n % 2:
                fields.append(("If-Match", first["etag"]))
            upload.send(head("PUT", "/media/a/b.wav" if n % 2 else f"/media/a/{n}.wav", fields))
            assert upload.answer_head()[0] == 100
            upload.send(b"x" * 3_000_000)
        with service.connect(5.0) as reader:
            assert reader.ask("PUT", "/media/a/c.wav", b"x").brief == (503, 514)
            for _ in range(10):
                assert reader.ask("GET", "/media/a/b.wav").content == content
                ranged = reader.ask("GET", "/media/a/b.wav", headers={"Range": "bytes=-9"})
                assert ranged.content == content[-9:]
                assert reader.ask("HEAD", "/media/a/b.wav").headers["ETag"] == first["etag"]
                names = [each["name"] for each in reader.ask("GET", "/media/a/").json["entries"]]
                assert names == ["b.wav"]
            assert reader.ask("DELETE", "/media/a/b.wav").json["deleted"] is True


def test_a_descriptor_is_held_while_a_large_file_is_sent_and_no_longer(
    program: Process, connect: Connect
) -> None:
    name = str(Path("a") / "large.wav")

    def opened() -> int:
        return sum(target.endswith(name) for target in program.descriptors().values())

    with connect() as connection:
        connection.send(request("GET", "/api/media/a/large.wav"))
        assert connection.answer_head()[0] == 200
        assert opened() == 1
        assert connection.read(len(LARGE)) == LARGE
        eventually("the file is closed", lambda: opened() == 0)
        connection.send(request("HEAD", "/api/media/a/large.wav"))
        assert connection.answer("HEAD").status == 200
        eventually("the file is closed", lambda: opened() == 0)


def test_a_connection_of_any_kind_is_accepted_without_a_log_line(
    program: Process, connect: Connect
) -> None:
    before = program.log.count("Traceback")
    with connect() as connection:
        assert connection.ask("GET", "/api/media/a/small.wav").content == b"small"
    assert program.log.count("Traceback") == before
