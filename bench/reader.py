"""
The load of reading: large files, slow readers, listings.

Large downloads are thrown away by the kernel before they are copied to this process, so that the
client is cheap; :func:`verify` is what looks at each byte. The functions are meant to run in a
process of their own and report the CPU seconds that they used there.
"""

from __future__ import annotations

import json
import resource
import socket
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote

import page_cache
from client import (
    DIRECTORY,
    TIMEOUT_S,
    Transfer,
    UnexpectedAnswerError,
    cpu_s,
    get_request,
    measured,
    parse_head,
)
from content import Content

_DISCARD_BYTES = 1 << 20
# What a head may take; what comes with it of the file is little enough to be copied.
_HEAD_BYTES = 4096
# The most that the service lists in a page.
_MOST_ENTRIES = 10_000


class Download:
    """
    A GET that was sent on a connection, and how much of the file is still to come.

    :raises UnexpectedAnswerError: when the answer is not the file, or ends early.
    """

    def __init__(self, connection: socket.socket, port: int, filename: str, content: Content):
        self._connection = connection
        self._content = content
        self.received_bytes = 0
        connection.sendall(get_request(port, filename))

    def receive_head(self) -> None:
        """Take the head and what comes along with it, and check that it speaks of the file."""
        received = b""
        while (head := parse_head(received)) is None:
            data = self._connection.recv(_HEAD_BYTES)
            if not data:
                raise UnexpectedAnswerError(f"the answer ended early: {received!r}")
            received += data
        length = int(head.headers.get(b"content-length", b"-1"))
        if head.status != 200 or length != self._content.size_bytes:
            raise UnexpectedAnswerError(received[: head.size_bytes].decode("latin-1"))
        self._check(received[head.size_bytes :])

    def receive(self, most_bytes: int) -> None:
        """Take and compare some of the file."""
        data = self._connection.recv(most_bytes)
        if not data:
            raise UnexpectedAnswerError("the file ended early")
        self._check(data)

    def discard_rest(self) -> None:
        """Have the kernel throw away what is to come, without a copy of it (tcp(7), MSG_TRUNC)."""
        buffer = bytearray(_DISCARD_BYTES)
        while left := self._content.size_bytes - self.received_bytes:
            most_bytes = min(left, _DISCARD_BYTES)
            count = self._connection.recv_into(buffer, most_bytes, socket.MSG_TRUNC)
            if not count:
                raise UnexpectedAnswerError(f"the file ended {left} bytes early")
            self.received_bytes += count

    def _check(self, data: bytes) -> None:
        if data != self._content.bytes_at(self.received_bytes, len(data)):
            raise UnexpectedAnswerError(f"other bytes than the file's after {self.received_bytes}")
        self.received_bytes += len(data)


def verify(port: int, filename: str, size_bytes: int) -> None:
    """Read a file and compare all its bytes."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as connection:
        download = Download(connection, port, filename, Content(size_bytes))
        download.receive_head()
        while download.received_bytes < size_bytes:
            download.receive(_DISCARD_BYTES)


def downloads_in_turn(port: int, filename: str, size_bytes: int, count: int) -> Transfer:
    """Read a file some times, one after the other on one connection."""

    def work(_: int) -> int:
        with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as connection:
            for _ in range(count):
                _download(connection, port, filename, size_bytes)
        return count * size_bytes

    return measured(1, work)


def cold_downloads(
    port: int, root: Path, filenames: Sequence[str], size_bytes: int, end_s: float
) -> Transfer:
    """
    Read each file again and again at the same time, always from the disk, until a moment.

    :param root: the folder of the server's files, which are to be synced.
    :param end_s: the moment, on the monotonic clock; the last downloads are completed.
    """

    def work(number: int) -> int:
        count = 0
        with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as connection:
            while time.monotonic() < end_s:
                page_cache.drop(root / DIRECTORY / filenames[number])
                _download(connection, port, filenames[number], size_bytes)
                count += 1
        return count * size_bytes

    return measured(len(filenames), work)


def _download(connection: socket.socket, port: int, filename: str, size_bytes: int) -> None:
    download = Download(connection, port, filename, Content(size_bytes))
    download.receive_head()
    download.discard_rest()


@dataclass(frozen=True)
class Pace:
    """
    How slow readers are.

    :ivar buffer_bytes: the receive buffer that each asks for, of which the kernel makes twice that.
    :ivar interval_s: the time between two of a reader's receives.
    """

    readers: int
    bytes_per_s: int
    buffer_bytes: int
    interval_s: float
    seconds: float


@dataclass(frozen=True)
class Drained:
    """
    What became of slow readers.

    :ivar cut_off: how many were disconnected or got wrong bytes.
    :ivar starved: how many receives found nothing that had arrived.
    """

    cut_off: int
    starved: int
    size_bytes: int
    seconds: float
    client_cpu_s: float


def drain(port: int, filename: str, size_bytes: int, pace: Pace) -> Drained:
    """
    Read one file by slow readers, evenly spread over time, all of which leave before its end.

    One that found nothing takes more the next time.
    """
    cpu = cpu_s(resource.RUSAGE_SELF)
    starved = 0
    with ExitStack() as open_sockets:
        connections = [
            open_sockets.enter_context(_small_socket(port, pace)) for _ in range(pace.readers)
        ]
        downloads = [
            Download(connection, port, filename, Content(size_bytes)) for connection in connections
        ]
        for connection, download in zip(connections, downloads, strict=True):
            download.receive_head()
            connection.setblocking(False)
        connected = dict(enumerate(downloads))
        start = time.monotonic()
        for number in range(int(pace.seconds / pace.interval_s * pace.readers)):
            due_s = number / pace.readers * pace.interval_s
            time.sleep(max(0.0, start + due_s - time.monotonic()))
            reader = number % pace.readers
            if reader not in connected:
                continue
            wanted = int((due_s + pace.interval_s) * pace.bytes_per_s)
            try:
                connected[reader].receive(max(1, wanted - connected[reader].received_bytes))
            except BlockingIOError:
                starved += 1
            except (ConnectionError, UnexpectedAnswerError):
                del connected[reader]
        seconds = time.monotonic() - start
    return Drained(
        cut_off=pace.readers - len(connected),
        starved=starved,
        size_bytes=sum(download.received_bytes for download in downloads),
        seconds=seconds,
        client_cpu_s=cpu_s(resource.RUSAGE_SELF) - cpu,
    )


def _small_socket(port: int, pace: Pace) -> socket.socket:
    connection = socket.socket()
    try:
        # Before it connects: the window that is offered then is not taken back later.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, pace.buffer_bytes)
        connection.settimeout(TIMEOUT_S)
        connection.connect(("127.0.0.1", port))
    except BaseException:
        connection.close()
        raise
    return connection


@dataclass(frozen=True)
class Listing:
    """
    What a folder's listing took, page by page or at once.

    :ivar first_page_s: the first answer that the server ever gave for the folder.
    :ivar later_page_s: the median of a page from the middle.
    :ivar all_s: the time of all pages of the most entries, one after the other.
    """

    first_page_s: float
    later_page_s: float
    all_s: float
    client_cpu_s: float


def list_by_pages(port: int, names: Sequence[str], repeats: int) -> Listing:
    """
    List the folder, which has files of these *names*, in pages.

    :param repeats: how often a page from the middle is asked for.
    """
    ordered = sorted(names, key=str.encode)
    middle = ordered[len(ordered) // 2]
    cpu = cpu_s(resource.RUSAGE_SELF)
    with closing(HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)) as folder:
        first_page_s, _ = _timed_listing(folder, "")
        later_pages_s = [_timed_listing(folder, f"?{_after(middle)}")[0] for _ in range(repeats)]
        seen, all_s = _all_pages(folder)
    if seen != ordered:
        raise UnexpectedAnswerError(f"other names than the folder's, or not in order: {len(seen)}")
    cpu = cpu_s(resource.RUSAGE_SELF) - cpu
    return Listing(first_page_s, statistics.median(later_pages_s), all_s, cpu)


def list_at_once(port: int, names: Sequence[str], repeats: int) -> Listing:
    """List the folder as nginx does, all entries in one answer, which is what each figure is of."""
    cpu = cpu_s(resource.RUSAGE_SELF)
    with closing(HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)) as folder:
        first_s, entries = _timed_listing(folder, "")
        again_s = statistics.median(_timed_listing(folder, "")[0] for _ in range(repeats))
    if {entry["name"] for entry in entries} != set(names):
        raise UnexpectedAnswerError(f"other names than the folder's: {len(entries)}")
    return Listing(first_s, again_s, again_s, cpu_s(resource.RUSAGE_SELF) - cpu)


def list_until(port: int, end_s: float) -> int:
    """
    Ask for the folder's listing again and again until a moment.

    :param end_s: the moment, on the monotonic clock.
    :returns: how many answers came.
    """
    count = 0
    with closing(HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)) as folder:
        while time.monotonic() < end_s:
            _timed_listing(folder, "")
            count += 1
    return count


def _all_pages(folder: HTTPConnection) -> tuple[list[str], float]:
    """The names of all pages of the most entries, and the seconds that these took."""
    seen: list[str] = []
    all_s = 0.0
    position: str | None = ""
    while position is not None:
        seconds, page = _timed_listing(folder, f"?limit={_MOST_ENTRIES}{position}")
        seen += [entry["name"] for entry in page["entries"]]
        position = None if page["next"] is None else f"&{_after(page['next'])}"
        all_s += seconds
    return seen, all_s


def _after(name: str) -> str:
    return f"after={quote(name, safe='')}"


def _timed_listing(folder: HTTPConnection, query: str) -> tuple[float, Any]:
    """The seconds until the answer was whole, without those of its parsing, and its JSON."""
    start = time.monotonic()
    folder.request("GET", f"/media/{DIRECTORY}/{query}")
    answer = folder.getresponse()
    body = answer.read()
    seconds = time.monotonic() - start
    if answer.status != 200:
        raise UnexpectedAnswerError(f"{answer.status}: {body[:600]!r}")
    return seconds, json.loads(body)
