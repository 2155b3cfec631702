"""
A normal client: what it asks for, how long it waits, and what it is refused.

It connects from 127.0.0.1, holds three connections at most, and one upload. Its functions are meant
to run in a process of their own.
"""

from __future__ import annotations

import base64
import itertools
import re
import resource
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlencode

import client
from figures import percentile

SMALL = "normal/small.wav"
SMALL_BYTES = 2_000
NAMES = "names"  # the folder of a long listing
ANSWERED_WITHIN_S = 5.0
_PACE_S = 0.008  # between two GETs: 125 a second, as a page with a player or two may send
_OTHERS_S = 0.25
_BOUNDARY = "normal-90d4c1f2"
_RECEIVE_BYTES = 1 << 16
_CODE = re.compile(r'"code": ?(\d+)')
_numbers = itertools.count()


@dataclass
class Seen:
    """
    What the client saw.

    :ivar get_ms: the time of each small GET, of a refused one as well.
    :ivar put_ms: the same of each small PUT.
    :ivar refusals: how often a kind of request got no success, by kind and answer.
    """

    get_ms: list[float] = field(default_factory=list)
    put_ms: list[float] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)
    cpu_s: float = 0.0

    @property
    def get_p99_ms(self) -> float:
        """What 99 of 100 GETs do not exceed."""
        return percentile(sorted(self.get_ms), 99)

    @property
    def put_p99_ms(self) -> float:
        """What 99 of 100 PUTs do not exceed."""
        return percentile(sorted(self.put_ms), 99)


@dataclass(frozen=True)
class Large:
    """How fast a large PUT was, and why it was refused; None when it was not."""

    mb_per_s: float
    refusal: str | None


class _Kept:
    """A connection that is kept, and made anew when it is lost."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None

    def ask(self, request: bytes) -> str | None:
        """Why the request was refused, None for a success."""
        end = time.monotonic() + ANSWERED_WITHIN_S
        try:
            if self._socket is None:
                self._socket = socket.create_connection(("127.0.0.1", self._port), 5.0)
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
            self._socket.settimeout(ANSWERED_WITHIN_S)
            self._socket.sendall(request)
            _receive(self._socket, end)
        except (OSError, client.UnexpectedAnswerError) as failure:
            self.close()
            return _refusal(failure)
        return None

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def prepare(port: int) -> None:
    """Store the small file that is read, and have the service import and open everything once."""
    kept = _Kept(port)
    if refusal := kept.ask(_put(SMALL)):
        raise client.UnexpectedAnswerError(f"the small file could not be stored: {refusal}")
    kept.close()
    for _ in range(2):
        watch(port, 0.5)


def watch(port: int, seconds: float, upstream: int | None = None, *, lists: bool = False) -> Seen:
    """
    Ask for small things for some time.

    GETs and PUTs go on connections that are kept. Four times a second a form, a listing, a
    resumable upload, with a port of an *upstream* an import, and where it *lists* a page of 1,000
    names go on new connections.
    """
    seen = Seen()
    get, put = _Kept(port), _Kept(port)
    others = itertools.cycle(_others(upstream, lists))
    cpu_s = client.cpu_s(resource.RUSAGE_SELF)
    now = start = time.monotonic()
    next_other = start + _OTHERS_S
    while (begun := now) < start + seconds:
        _timed(seen, "GET", seen.get_ms, get, _head("GET", f"/media/{SMALL}"))
        _timed(seen, "PUT", seen.put_ms, put, _put(f"stored/{_name()}.wav"))
        if time.monotonic() >= next_other:
            next_other = time.monotonic() + _OTHERS_S
            kind, request = next(others)
            new = _Kept(port)
            if refusal := new.ask(request()):
                seen.refusals[f"{kind}: {refusal}"] += 1
            new.close()
        time.sleep(max(0.0, begun + _PACE_S - time.monotonic()))
        now = time.monotonic()
    get.close()
    put.close()
    seen.cpu_s = client.cpu_s(resource.RUSAGE_SELF) - cpu_s
    return seen


def large_put(port: int, size_bytes: int, within_s: float) -> Large:
    """Store one large file on a new connection. What was sent when the time is over counts."""
    upload = client.build_upload("put", port, f"large-{_name()}.wav", size_bytes)
    start = time.monotonic()
    end = start + within_s
    sent_bytes = 0
    refusal = None
    try:
        with socket.create_connection(("127.0.0.1", port), 5.0) as connection:
            try:
                for piece in upload.pieces():
                    for at in range(0, len(piece), 64 << 10):
                        connection.settimeout(max(0.01, end - time.monotonic()))
                        connection.sendall(piece[at : at + (64 << 10)])
                        sent_bytes += len(piece[at : at + (64 << 10)])
            except ConnectionError:
                _receive(connection, end)  # refused before the end: the answer says why
                raise
            _receive(connection, end)
    except TimeoutError:
        pass  # the rate says it
    except (OSError, client.UnexpectedAnswerError) as failure:
        refusal = _refusal(failure)
    return Large(sent_bytes / 1e6 / (time.monotonic() - start), refusal)


def _timed(seen: Seen, kind: str, times_ms: list[float], kept: _Kept, request: bytes) -> None:
    asked = time.monotonic()
    refusal = kept.ask(request)
    times_ms.append((time.monotonic() - asked) * 1000)
    if refusal:
        seen.refusals[f"{kind}: {refusal}"] += 1


def _receive(connection: socket.socket, end: float) -> None:
    answer = client.Answer()
    while True:
        connection.settimeout(max(0.01, end - time.monotonic()))
        if answer.feed(connection.recv(_RECEIVE_BYTES)):
            return


def _refusal(failure: Exception) -> str:
    if isinstance(failure, TimeoutError):
        return f"no answer within {ANSWERED_WITHIN_S:.0f} s"
    text = str(failure)
    if text.startswith("HTTP/1.1 "):
        code = _CODE.search(text)
        return f"{text[9:12]} {code[1] if code else ''}".strip()
    return "no answer: the connection ended" if "ended early" in text else text


def _name() -> str:
    # The time keeps the names of two processes apart.
    return f"{time.monotonic_ns()}-{next(_numbers)}"


def _head(method: str, target: str, *fields: str) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: 127.0.0.1", *fields, "", ""]
    return "\r\n".join(lines).encode()


def _put(name: str) -> bytes:
    return _head("PUT", f"/media/{name}", f"Content-Length: {SMALL_BYTES}") + bytes(SMALL_BYTES)


def _others(upstream: int | None, lists: bool) -> Iterator[tuple[str, Callable[[], bytes]]]:
    yield "form", _form
    yield "listing", lambda: _head("GET", "/media/normal/?limit=10")
    yield "resumable upload", _resumable
    if upstream is not None:
        yield "import", lambda: _import(upstream)
    if lists:
        yield "long listing", lambda: _head("GET", f"/media/{NAMES}/?limit=1000")


def _form() -> bytes:
    content = (
        f"--{_BOUNDARY}\r\n"
        f'Content-Disposition: form-data; name="stored"; filename="{_name()}.wav"\r\n\r\n'
        f"RIFF\r\n--{_BOUNDARY}--\r\n"
    ).encode()
    kind = f"Content-Type: multipart/form-data; boundary={_BOUNDARY}"
    return _head("POST", "/media", kind, f"Content-Length: {len(content)}") + content


def _resumable() -> bytes:
    pairs = {"directory": "stored", "filename": f"{_name()}.wav"}
    metadata = ",".join(
        f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in pairs.items()
    )
    return (
        _head(
            "POST",
            "/uploads/",
            "Tus-Resumable: 1.0.0",
            f"Upload-Metadata: {metadata}",
            "Upload-Length: 4",
            "Content-Type: application/offset+octet-stream",
            "Content-Length: 4",
        )
        + b"RIFF"
    )


def _import(upstream: int) -> bytes:
    url = f"http://127.0.0.1:{upstream}/{_name()}.wav"
    content = urlencode({"url": url, "directory": "stored"}).encode()
    kind = "Content-Type: application/x-www-form-urlencoded"
    return _head("POST", "/media", kind, f"Content-Length: {len(content)}") + content
