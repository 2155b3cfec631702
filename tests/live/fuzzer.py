"""Requests that nobody would send: made of what is interesting, and broken at random."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import socket
import threading
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from itertools import count
from random import Random
from typing import TypeVar
from urllib.parse import unquote_to_bytes

from tests.process.exchange import (
    MULTIPART,
    URLENCODED,
    chunked,
    form,
    head,
    part,
    urlencoded,
)
from tests.process.nasty import a_wave
from tests.process.running import Process

T = TypeVar("T")

THREADS = 4
SILENCE_S = 0.5  # a service that says nothing for so long waits for more
ENDING_S = 30.0  # within which it is done with a client who has gone


def _words(text: str) -> list[str]:
    return text.split()


# What requests are made of. None of it begins an answer, so that answers can be told apart.
METHODS = _words("GET HEAD PUT POST DELETE OPTIONS PATCH TRACE CONNECT get X")
SEGMENTS = [
    *_words("a b ä a\u0308 %C3%A4 %FF %00 %2F %2e%2e .. . .twistedmedia a\\b CON 😀"),
    *_words("%F0%9F%98%80 %E2%80%AE %ED%A0%80 a;b=c a:b % %zz ' \" <script> ${x} {} + a=b&c"),
    *("", " ", "%0d%0aX: y", "\xa0", "x" * 255, "x" * 256),
]
COMMON = ["a.wav", "b.wav", "b.mp3"]
FILENAMES = [*_words("a.WAV .wav a.txt a"), "x" * 251 + ".wav", *SEGMENTS]
URLS = [
    *_words("http://127.0.0.1/a.wav http://localhost:1/a.wav https://10.0.0.1/b.mp3 http://[::1]/"),
    *_words("http://0/ http://2130706433/ http://user:pass@127.0.0.1/ ftp://127.0.0.1/ http://"),
    *_words("file:///etc/passwd http://[::1/ http://127.0.0.1:0/ http://127.0.0.1:99999/ // x:"),
    *_words("http://127.0.0.1:x/ http://nowhere.invalid/ http://127.1/%zz HTTP://127.0.0.1"),
    *_words("http://127.0.0.1\\@x/ http://ﬀ.invalid/ http://。/"),
    *("", "http://127.0.0.1/\r\nX: y", f"http://{'x' * 300}.invalid/", "http://0/" + "x" * 9000),
]
PATHS = [
    *_words("/media/ /fetch /fetch / /health /openapi.json // * ? http://x/media/ //media/a.wav"),
    *("", "/media/" + "a/" * 600),
]
NUMBERS = ["", " 1 ", *_words("0 1 -1 +1 1.5 1e3 0x1 10000 10001 ² 1_0 NaN ٣"), "9" * 30]
TAGS = ["*", '"x", "y"', "*, *", '"' + "x" * 3000 + '"', *_words('"x" W/"x" x " "" ,,, "a,b" \xff')]
DATES = [
    *("Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "0", "x"),
    *("Sun Nov  6 08:49:37 1994", "Fri, 31 Dec 9999 23:59:59 GMT"),
    *("Sun, 00 Jan 0000 00:00:00 GMT", "Sat, 31 Feb 2026 24:60:61 GMT"),
]
RANGES = [
    *_words("bytes=0-0 bytes=0- bytes=-1 bytes=5-2 bytes=0-0,2-2 bytes= bytes=- x=0-1"),
    *_words("bytes=-0 bytes=²- bytes=0-1\xff"),
    *(f"bytes={'9' * 40}-", f"bytes=0-{'9' * 40}", "bytes=" + "0-1," * 500),
]
NOTHING = hashlib.sha256().digest()
DIGESTS = [
    *(f"sha-256=:{b64encode(NOTHING).decode()}:", "sha-256=10, md5=3", "a=(1 2);x=?1"),
    *_words("sha-256=:AAAA: sha-256 md5=:AAAA: = sha-256=1 sha-256=:=: sha-256=;; \xff ,"),
    *("(" * 1000, ""),
]
TYPES = [
    *(MULTIPART, MULTIPART, URLENCODED, URLENCODED, "application/json", "multipart/form-data"),
    *(MULTIPART + "; boundary=x", 'multipart/form-data; boundary="', "multipart/mixed; boundary=x"),
    *("multipart/form-data; boundary=" + "x" * 80, "application/json; charset=\xff"),
    *(URLENCODED + ";charset=utf-16", "audio/wav", "text/plain", ";", ""),
]
HEADERS = {
    "Accept": _words("text/html */* application/json;q=0 text/html;q=x a/b;q=\xff * / ;;;;;"),
    "Authorization": ["Basic =", "Basic \xff", "Bearer x", "Basic Og=="],
    "Cache-Control": _words("no-cache no-store max-age=x = no-cache=\xff ,,,,,"),
    "Connection": ["close", "keep-alive", "upgrade", "close, x", "\xff"],
    "Content-Digest": DIGESTS,
    "Content-Encoding": ["gzip", "identity", "", "\xff"],
    "Content-Length": NUMBERS,
    "Content-Range": ["bytes 0-0/2", "x"],
    "Content-Type": TYPES,
    "Cookie": ["a=b", "\xff=\xfe; ;;=", "=" * 500],
    "Expect": ["100-continue", "100-CONTINUE", "x", ""],
    "Forwarded": ["for=\xff", "for=1.2.3.4;host=x"],
    "Host": ["", "a b", "x" * 300, *_words("localhost 127.0.0.1:80 [::1] \xff a:b:c .. [ %00 a.b")],
    "If-Match": TAGS,
    "If-Modified-Since": DATES,
    "If-None-Match": TAGS,
    "If-Range": [*TAGS, *DATES],
    "If-Unmodified-Since": DATES,
    "Origin": _words("null http://evil.invalid http://127.0.0.1 \xff"),
    "Pragma": ["no-cache", "x"],
    "Range": RANGES,
    "Repr-Digest": DIGESTS,
    "Sec-Fetch-Site": _words("cross-site same-origin none x"),
    "Transfer-Encoding": ["chunked", "Chunked", "gzip, chunked", "identity", "x", ""],
    "Upgrade": ["h2c", "websocket"],
    "Want-Repr-Digest": DIGESTS,
    "X-Forwarded-For": ["1.2.3.4", "\xff", "x" * 1000],
    "X-Long": ["x" * 4000, "x" * 20_000],
}
CONTENTS = [
    *(b"", b"x", a_wave(), a_wave()[:-3], b"\0" * 5000, b"%", b"%4", b"\r\n--"),
    b"\0" * 70_000,
    b"ID3\4\0\0\0\0\0\0" + b"\xff\xfb\x90\0" * 200,
]
ODD_JSON = [
    *("null", "[]", "1" * 5000, "[" * 5000, '{"a":' * 5000, '"\\ud800"', "{", "NaN"),
    '{"url": "x", "url": "y"}',
]
ODD_VALUES = [None, 1, [], {}, True, "\ud800", "\0", "x" * 40_000]
ODD_BYTES = b'\0 \r \n \r\n \r\n\r\n : \t % & = -- " \xff \xc3 {'.split(b" ")

_ANSWER = re.compile(
    rb"HTTP/1\.[01] (\d{3}) [^\r\n]*\r\n((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+: [^\r\n]*\r\n)*)\r\n"
)
# 5xx that are no fault: the upstream's, busy, full.
_ALLOWED = {*range(100, 500), 502, 503, 504, 507}
_URL_HOST = re.compile(rb"//(?:[^/?#]*@)?([0-9a-fx.]+)", re.IGNORECASE)
_END = head("GET", "/end-of-a-connection", [("Connection", "close")])


def leads_outside(data: bytes) -> bool:
    """Whether `data` has a URL whose host is a public address, in any spelling of IPv4: broken at
    random, 2130706433 (127.0.0.1) becomes the public 213070643, and tests leave everybody alone.
    """
    while (unquoted := unquote_to_bytes(data)) != data:
        data = unquoted
    for match in _URL_HOST.finditer(data):
        with contextlib.suppress(OSError):
            if IPv4Address(socket.inet_aton(match[1].decode("ascii"))).is_global:
                return True
    return False


class Maker:
    """Makes what is sent on one connection."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def connection(self) -> list[bytes]:
        """The pieces in which it is sent."""
        random = self._random
        data = b"".join(self._request() for _ in range(random.choice([1, 1, 2, 4])))
        if random.random() < 0.4:
            for _ in range(random.choice([1, 1, 2, 5])):
                broken = self._broken(data)
                data = data if leads_outside(broken) else broken
        data += _END
        if random.random() < 0.8:
            return [data]
        cuts = sorted(random.randrange(len(data)) for _ in range(random.randint(1, 4)))
        return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]

    def _any(self, values: Sequence[T]) -> T:
        return self._random.choice(values)

    def _request(self) -> bytes:
        random = self._random
        method = self._any(METHODS if random.random() < 0.2 else METHODS[:5])
        headers = [
            (name, _as_sent(self._any(HEADERS[name])))
            for name in random.sample(sorted(HEADERS), random.choice([0, 0, 1, 1, 2, 5]))
        ]
        if method == "GET" and random.random() < 0.2:
            headers.append(("Range", _as_sent(self._any(RANGES))))
        content = b""
        if method in ("PUT", "POST") or random.random() < 0.1:
            content, media_type = self._content(method)
            given = {name.lower() for name, _ in headers}
            if "content-type" not in given:
                headers.append(("Content-Type", media_type))
            if not given & {"content-length", "transfer-encoding"}:
                if random.random() < 0.3:
                    headers.append(("Transfer-Encoding", "chunked"))
                    content = chunked(self._pieces(content))
                else:
                    headers.append(("Content-Length", str(len(content))))
        return head(method, _as_sent(self._target(method)), headers) + content

    def _target(self, method: str) -> str:
        random = self._random
        shape = random.random()
        if method == "POST" or shape < 0.1:
            path = "/media"
        elif shape < 0.7:
            path = f"/media/{self._directory()}/{self._filename()}"
        else:
            path = self._any(PATHS)
        query = []
        while random.random() < 0.3:
            value = {
                "url": URLS,
                "limit": NUMBERS,
                "after": SEGMENTS,
                "directory": SEGMENTS,
                "filename": FILENAMES,
                "download": NUMBERS,
                "": SEGMENTS,
            }
            name = self._any(list(value))
            query.append(f"{name}={self._any(value[name])}" if random.random() < 0.9 else name)
        if "/fetch" in path and random.random() < 0.8:
            query.append(f"url={self._any(URLS)}")
        if path.endswith("/media/") and random.random() < 0.5:
            query.append(f"limit={self._any(NUMBERS)}")
        return path + ("?" + "&".join(query) if query else "")

    def _directory(self) -> str:
        if self._random.random() < 0.7:
            return self._any("ab")  # there something is
        return "/".join(self._any(SEGMENTS) for _ in range(self._random.choice([1, 1, 2, 3])))

    def _filename(self) -> str:
        return self._any(COMMON if self._random.random() < 0.7 else FILENAMES)

    def _content(self, method: str) -> tuple[bytes, str]:
        """Content, and the type that it should have."""
        kind = self._random.random()
        if method == "PUT" or kind < 0.1:
            return self._any(CONTENTS), "audio/wav"
        if kind < 0.45:
            return self._multipart(), MULTIPART
        if kind < 0.8:
            return urlencoded(*self._fields()), URLENCODED
        return self._json(), "application/json"

    def _multipart(self) -> bytes:
        random = self._random
        parts = [
            part(
                self._any(["url", "sha256", *[self._directory()] * 8]),
                self._any([None, *[self._filename()] * 8]),
                self._any(CONTENTS),
                self._any(
                    ["", "", "", f"Content-Digest: {self._any(DIGESTS)}", "X-Long: " + "x" * 5000]
                ),
            )
            for _ in range(random.choice([0, 1, 1, 2, 5]))
        ]
        if random.random() < 0.3:
            parts += [part(name, None, _utf8(value)) for name, value in self._fields()]
        return form(*parts)

    def _fields(self) -> list[tuple[str, str | bytes]]:
        random = self._random
        values: dict[str, Sequence[str | bytes]] = {
            "directory": [self._directory()],
            "filename": [self._filename()],
            "body": CONTENTS,
            "url": URLS,
            "sha256": [NOTHING.hex(), "x", ""],
            "other": SEGMENTS,
        }
        weights = [9, 9, 8, 3, 1, 1]
        names = [
            name
            for name, weight in zip(values, weights, strict=True)
            if random.random() * 10 < weight
        ]
        random.shuffle(names)
        fields = [(name, self._any(values[name])) for name in names]
        return fields + ([self._any(fields)] if fields and random.random() < 0.05 else [])

    def _json(self) -> bytes:
        random = self._random
        if random.random() < 0.2:
            return self._any(ODD_JSON).encode()
        values = {
            name: value.decode("latin-1") if isinstance(value, bytes) else value
            for name, value in self._fields()
        }
        if values and random.random() < 0.3:
            values[self._any(list(values))] = self._any(ODD_VALUES)
        return json.dumps(values, ensure_ascii=True).encode()

    def _pieces(self, content: bytes) -> list[bytes]:
        size = self._any([1, 7, 100, 10_000])
        return [content[at : at + size] for at in range(0, min(len(content), 2000), size)]

    def _broken(self, data: bytes) -> bytes:
        random = self._random
        at = random.randint(0, len(data))
        to = at + random.choice([1, 1, 2, 10, 100])
        flipped = bytes(byte ^ 1 << random.randrange(8) for byte in data[at:to])
        noise = random.randbytes(random.choice([1, 4, 50]))
        inserted = self._any(ODD_BYTES) + data[at:to]
        instead = self._any([b"", data[at:to] * 2, flipped, noise, inserted, inserted])
        return data[:at] + instead + (data[to:] if random.random() < 0.9 else b"")


def _utf8(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


def _as_sent(text: str) -> str:
    """`text` so that in Latin-1 it is UTF-8, unless it is meant to be broken."""
    return text if "\xff" in text else text.encode().decode("latin-1")


@dataclass
class Findings:
    """What came of many connections."""

    answers: Counter[int] = field(default_factory=Counter)  # by status
    wrong: list[str] = field(default_factory=list)


def fuzz(service: Process, seed: int, duration_s: float, most: int = 5) -> Findings:
    """Send to `service` for some seconds, or until `most` answers are wrong. The same `seed` gives
    the same connections, in about the same order.
    """
    found = Findings()
    numbers = count()
    lock = threading.Lock()
    end = time.monotonic() + duration_s

    def run() -> None:
        while time.monotonic() < end and len(found.wrong) < most:
            with lock:
                number = next(numbers)
            pieces = Maker(Random(f"{seed} {number}")).connection()
            try:
                statuses = exchange(service.port, pieces)
            except (AssertionError, OSError) as error:
                with lock:
                    found.wrong.append(
                        f"connection {number} of seed {seed}: {error!r}\nsent: {pieces!r}"
                    )
            else:
                with lock:
                    found.answers.update(statuses)

    threads = [threading.Thread(target=run) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def exchange(port: int, pieces: Sequence[bytes]) -> list[int]:
    """Send these pieces on a connection of their own; the statuses of the answers.

    :raises AssertionError: when an answer is none, or says that the service is at fault.
    """
    received = bytearray()
    whole = True  # what was received is all that was sent to us
    with socket.create_connection(("127.0.0.1", port), ENDING_S) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
            connection.settimeout(SILENCE_S)
            try:
                while data := connection.recv(1 << 16):
                    received += data
            except TimeoutError:
                whole = False
                connection.settimeout(ENDING_S)
                connection.shutdown(socket.SHUT_WR)
                while data := connection.recv(1 << 16):
                    received += data
        except ConnectionError:  # it has closed on what it did not want to read
            whole = False
    return answers_in(bytes(received), whole)


def answers_in(received: bytes, whole: bool) -> list[int]:
    """The statuses of the answers in `received`, each looked at. Unless it is `whole` the last one
    may be cut off.
    """
    statuses = []
    at = 0
    while at < len(received):
        match = _ANSWER.match(received, at)
        if match is None and not whole and b"\r\n\r\n" not in received[at:]:
            break
        assert match is not None, f"this is no answer: {received[at : at + 500]!r}"
        status, at = int(match[1]), match.end()
        statuses.append(status)
        assert status in _ALLOWED, f"{match[0]!r} {received[at : at + 500]!r}"
        if status < 200 or status in (204, 304):
            continue
        fields = [line.split(": ", 1) for line in match[2].decode("latin-1").splitlines()]
        headers = {name.lower(): value for name, value in fields}
        assert len(headers) == len(fields), f"a header twice: {match[0]!r}"
        assert not headers.get("location", "").startswith("//"), f"to another host: {match[0]!r}"
        if at == len(received) or _ANSWER.match(received, at):  # to a HEAD, or it has none
            continue
        if "content-length" not in headers:
            break  # it goes on to the end
        length = int(headers["content-length"])
        content, at = received[at : at + length], at + length
        if len(content) < length:
            assert not whole, f"this is cut off: {match[0]!r}"
            break
        if status >= 400 and length:
            said = json.loads(content)
            assert isinstance(said["code"], int), said
            assert said["reason"], said
            assert headers["content-type"] == "application/json", headers
            assert headers["cache-control"] == "no-store", headers
    return statuses
