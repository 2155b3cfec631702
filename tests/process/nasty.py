"""An upstream that does what upstreams do wrong, each thing under a path of its own.

`python nasty.py` prints three ports. On the first listens a Klein app, for what is HTTP, be it a
lie; on the second what is none, or breaks off; on the third that app again, to be asked by the
tests themselves: it tells what the other two were asked, and lets go on what waits. `Nasty` is
such a program, as a test sees it.
"""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
import wave
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import cache
from http.client import HTTPConnection
from itertools import count
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from klein import Klein
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.protocols.policies import WrappingFactory
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import Request, Site
from zope.interface import implementer

PLAIN = b"what was asked for\n"
DRIP_S = 0.2
BOMB_BYTES = 64 << 20


def content_of(size: int) -> bytes:
    """The content of `/large`, the same for the same size."""
    return Random(size).randbytes(size)


def a_wave() -> bytes:
    """The content of `/audio`: a short tone."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(n * n // 50 % 256 for n in range(1600)))
    return file.getvalue()


class Nasty:
    """The program, running."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        with self._process.stdout as said:
            self.port, self.raw_port, self._control = map(int, said.readline().split())
        self._numbers = count(1)

    def url(self, target: str) -> str:
        """The URL of a path and a query."""
        port = self.raw_port if urlsplit(target).path.split("/")[1] in RAW else self.port
        return f"http://127.0.0.1:{port}{target}"

    def fresh(self, target: str, **query: object) -> str:
        """`target` with a query, as no other test asks for it."""
        pairs = [*query.items(), ("n", next(self._numbers))]
        return f"{target}?" + "&".join(f"{key}={quote(str(value), '')}" for key, value in pairs)

    def requests(self, target: str) -> int:
        """How often it was asked for."""
        return int(self._ask("/counts")["requests"].get(target, 0))

    def heard(self, target: str) -> dict[str, str]:
        """The headers of the last request for it, with their names in lower case."""
        headers = self._ask("/counts")["headers"][target]
        assert isinstance(headers, dict)
        return headers

    @property
    def all_requests(self) -> int:
        """How many there were."""
        return sum(self._ask("/counts")["requests"].values())

    @property
    def busy(self) -> int:
        """How many of its connections are open, but those that are kept for another request."""
        return int(self._ask("/counts")["busy"])

    @property
    def connections(self) -> int:
        """How many of its connections are open."""
        return int(self._ask("/counts")["open"])

    def sockets(self) -> set[str]:
        """The connections to it, as their other ends are called among a process's descriptors."""
        found = set()
        for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            if int(fields[2].partition(":")[2], 16) in (self.port, self.raw_port):
                found.add(f"socket:[{fields[9]}]")
        return found

    def release(self, target: str) -> None:
        """Let all that waits in answers to `target` go on, now and later."""
        self._ask(f"/release?target={quote(target, '')}")

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def _ask(self, target: str) -> dict[str, Any]:
        connection = HTTPConnection("127.0.0.1", self._control, timeout=20)
        try:
            connection.request("GET", target)
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        assert isinstance(answer, dict)
        return answer


@dataclass
class _Memory:
    """What the program was asked, and who waits for being let go on."""

    requests: Counter[str] = field(default_factory=Counter)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    busy: int = 0
    gates: dict[str, list[Deferred[None]]] = field(default_factory=dict)
    released: set[str] = field(default_factory=set)
    factories: list[WrappingFactory[Any]] = field(default_factory=list)

    def asked(self, target: str, headers: dict[str, str]) -> None:
        self.requests[target] += 1
        self.headers[target] = headers

    async def released_by_test(self, target: str) -> None:
        if target not in self.released:
            gate: Deferred[None] = Deferred()
            self.gates.setdefault(target, []).append(gate)
            await gate

    def release(self, target: str) -> None:
        self.released.add(target)
        for gate in self.gates.pop(target, []):
            if not gate.called:
                gate.callback(None)


_memory = _Memory()
_app = Klein()


async def _pause(seconds: float) -> None:
    from twisted.internet import reactor

    await deferLater(reactor, seconds)


def _query(target: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(target).query, keep_blank_values=True))


# What Klein can express.


def _route(path: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    route: Callable[[Callable[..., Any]], Callable[..., Any]] = _app.route(path)
    return route


def _target(request: Request) -> str:
    return request.uri.decode("latin-1")


@_route("/plain")
def _plain(request: Request) -> bytes:
    request.setHeader("Content-Type", "text/plain")
    return PLAIN


@_route("/any/<path:path>")
def _any(request: Request, path: str) -> bytes:
    return PLAIN


@_route("/audio/<path:path>")
def _audio(request: Request, path: str) -> bytes:
    return a_wave()


@_route("/slow")
async def _slow(request: Request) -> bytes:
    await _pause(0.1)
    return PLAIN


@_route("/held")
async def _held(request: Request) -> bytes:
    """Answers when the test lets it."""
    await _memory.released_by_test(_target(request))
    return PLAIN


@_route("/hangs")
async def _hangs(request: Request) -> bytes:
    """Never answers."""
    await Deferred()
    return PLAIN


@_route("/hangs-in-content")
async def _hangs_in_content(request: Request) -> bytes:
    request.setHeader("Content-Length", "1000")
    request.write(PLAIN)
    await Deferred()
    return PLAIN


@_route("/status/<int:code>")
def _status(request: Request, code: int) -> bytes:
    request.setResponseCode(code)
    return PLAIN


@_route("/cached")
def _cached(request: Request) -> bytes:
    """The query has the headers."""
    for name, value in _query(_target(request)).items():
        if name != "n":
            request.setHeader(name, value)
    return PLAIN


@_route("/cookies")
def _cookies(request: Request) -> bytes:
    request.addCookie("session", "secret", path="/")
    return PLAIN


@_route("/cookies-and-redirects")
def _cookies_and_redirects(request: Request) -> bytes:
    request.addCookie("session", "secret", path="/")
    return _redirecting(request)


@_route("/echo")
def _echo(request: Request) -> bytes:
    """The headers of the request, as JSON."""
    return json.dumps(_headers(request)).encode()


@_route("/redirects")
def _redirects(request: Request) -> bytes:
    return _redirecting(request)


def _redirecting(request: Request) -> bytes:
    """To what the query says, by the status that it says."""
    query = _query(_target(request))
    request.setResponseCode(int(query.get("status", 302)))
    request.setHeader("Location", query["to"].encode())
    return b"there, not here"


@_route("/redirects-nowhere")
def _redirects_nowhere(request: Request) -> bytes:
    request.setResponseCode(302)
    return PLAIN


@_route("/loop")
def _loop(request: Request) -> bytes:
    request.setResponseCode(302)
    request.setHeader("Location", "/loop")
    return b""


@_route("/chain/<int:left>")
def _chain(request: Request, left: int) -> bytes:
    if left:
        request.setResponseCode(307)
        request.setHeader("Location", str(left - 1))
    return PLAIN


@_route("/folder/relative")
def _relative(request: Request) -> bytes:
    request.setResponseCode(301)
    request.setHeader("Location", "../any/./a/../b?c#d")
    return b""


@_route("/gzip")
def _gzip(request: Request) -> bytes:
    """Small, and large when it is inflated, although nobody has asked for that."""
    request.setHeader("Content-Encoding", "gzip")
    return _bomb()


@cache
def _bomb() -> bytes:
    return gzip.compress(bytes(BOMB_BYTES))


@_route("/encoded")
def _encoded(request: Request) -> bytes:
    request.setHeader("Content-Encoding", _query(_target(request))["as"])
    return PLAIN


@_route("/counts")
def _counts(request: Request) -> bytes:
    told = {
        "requests": _memory.requests,
        "headers": _memory.headers,
        "busy": _memory.busy,
        "open": sum(len(factory.protocols) for factory in _memory.factories),
    }
    return json.dumps(told).encode()


@_route("/release")
def _release(request: Request) -> bytes:
    _memory.release(_query(_target(request))["target"])
    return b"{}"


def _headers(request: Request) -> dict[str, str]:
    pairs = request.requestHeaders.getAllRawHeaders()
    return {
        name.decode("latin-1").lower(): b", ".join(values).decode("latin-1")
        for name, values in pairs
    }


class _CountingSite(Site):
    """Remembers its requests."""

    def getResourceFor(self, request: Request) -> Resource:
        _memory.asked(_target(request), _headers(request))
        _memory.busy += 1
        request.notifyFinish().addBoth(self._finished)
        resource: Resource = super().getResourceFor(request)  # type: ignore[no-untyped-call]
        return resource

    def _finished(self, _: object) -> None:
        _memory.busy -= 1


# What it cannot.


@implementer(IPushProducer)
class _Raw(Protocol):
    """One connection."""

    transport: Any

    def connectionMade(self) -> None:
        self._received = b""
        self._answering: Deferred[None] | None = None
        self._resumed: Deferred[None] | None = None
        self._paused = False
        self.target = ""
        self.headers: dict[str, str] = {}
        self.transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        if self._answering is None:
            self._answer_next()

    def connectionLost(self, reason: object = None) -> None:
        self._received = b""
        if self._answering is not None:
            self._answering.cancel()

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        resumed, self._resumed = self._resumed, None
        if resumed is not None:
            resumed.callback(None)

    def stopProducing(self) -> None:
        """`connectionLost` follows."""

    async def send(self, data: bytes) -> None:
        """Comes back when more can be sent."""
        self.transport.write(data)
        await _pause(0)
        if self._paused:
            self._resumed = Deferred(lambda _: setattr(self, "_resumed", None))
            await self._resumed

    async def stay(self) -> None:
        """Never come back: it is the client who has to end the connection."""
        await Deferred()

    async def close(self) -> None:
        """End the connection in good order, when all is sent."""
        self.transport.unregisterProducer()
        self.transport.loseConnection()
        await self.stay()

    async def reset(self) -> None:
        """End it as a crash does, when what was sent has had the time to arrive."""
        await _pause(0.05)
        self.transport.abortConnection()
        await self.stay()

    def _answer_next(self) -> None:
        head, end, rest = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        self._received = rest
        line, *fields = head.decode("latin-1").split("\r\n")
        self.target = line.split(" ")[1]
        pairs = [each.partition(":") for each in fields]
        self.headers = {name.lower(): value.strip() for name, _, value in pairs}
        _memory.asked(self.target, self.headers)
        _memory.busy += 1
        behaviour = RAW[urlsplit(self.target).path.split("/")[1]]
        self._answering = ensureDeferred(behaviour(self, _query(self.target)))
        self._answering.addErrback(lambda failure: failure.trap(CancelledError))
        self._answering.addErrback(Failure.printTraceback)
        self._answering.addCallback(self._answered)

    def _answered(self, _: object) -> None:
        _memory.busy -= 1
        self._answering = None
        self._answer_next()


Behaviour = Callable[[_Raw, dict[str, str]], Coroutine[Any, Any, None]]
RAW: dict[str, Behaviour] = {}


def _behaves(name: str) -> Callable[[Behaviour], Behaviour]:
    def add(behaviour: Behaviour) -> Behaviour:
        RAW[name] = behaviour
        return behaviour

    return add


OK = b"HTTP/1.1 200 OK\r\n"
_WITH_5 = b"Content-Length: 5\r\n\r\n12345"
_CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
KEEP, STAY, CLOSE, RESET = "keep", "stay", "close", "reset"

# What is sent, and what becomes of the connection then. Where a client has to see by itself that no
# more can come, it stays.
_SAID: dict[str, tuple[bytes, str]] = {
    "says-less": (OK + _WITH_5 + b"67890", KEEP),
    "smuggles": (OK + _WITH_5 + OK + b"Content-Length: 6\r\n\r\nstolen", KEEP),
    "says-more": (OK + b"Content-Length: 10\r\n\r\n12345", CLOSE),
    "says-more-and-resets": (OK + b"Content-Length: 10\r\n\r\n12345", RESET),
    "says-ten-sends-none": (OK + b"Content-Length: 10\r\n\r\n", CLOSE),
    "chunked": (_CHUNKED + b"2;extension\r\n12\r\n03\r\n345\r\n0\r\nTrailer: x\r\n\r\n", KEEP),
    "chunked-cut-in-a-chunk": (_CHUNKED + b"5\r\n123", CLOSE),
    "chunked-cut-between": (_CHUNKED + b"5\r\n12345\r\n", CLOSE),
    "chunked-cut-in-the-last": (_CHUNKED + b"5\r\n12345\r\n0\r\n", CLOSE),
    "chunked-reset": (_CHUNKED + b"5\r\n12345\r\n", RESET),
    "chunked-in-no-hex": (_CHUNKED + b"5\r\n12345\r\nzz\r\n", STAY),
    "chunked-negative": (_CHUNKED + b"-5\r\n12345\r\n", STAY),
    "chunked-longer-than-said": (_CHUNKED + b"5\r\n1234567890\r\n", STAY),
    "without-length": (OK + b"\r\n12345", CLOSE),
    "without-length-reset": (OK + b"\r\n12345", RESET),
    "without-type": (OK + _WITH_5, KEEP),
    "http-1-0": (b"HTTP/1.0 200 OK\r\n\r\n12345", CLOSE),
    "without-reason": (b"HTTP/1.1 200\r\n" + _WITH_5, KEEP),
    "says-100-first": (b"HTTP/1.1 100 Continue\r\n\r\n" + OK + _WITH_5, KEEP),
    "says-103-first": (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK + _WITH_5, KEEP),
    "says-101": (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", STAY),
    "no-content": (b"HTTP/1.1 204 No Content\r\n\r\n", KEEP),
    "not-modified": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n", KEEP),
    "closes": (b"", CLOSE),
    "resets": (b"", RESET),
    "closes-in-the-status": (b"HTTP/1.1 20", CLOSE),
    "resets-in-the-status": (b"HTTP/1.1 20", RESET),
    "closes-in-headers": (OK + b"Content-Type: te", CLOSE),
    "resets-in-headers": (OK + b"Content-Type: te", RESET),
    "closes-after-headers-begin": (OK + b"Content-Type: text/plain\r\n", CLOSE),
    "garbage": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n\r\n", STAY),
    "smtp": (b"220 mail.example.org ESMTP\r\n500 what?\r\n", STAY),
    "html": (b"<html>\r\n<body>\r\n", STAY),
    "icy": (b"ICY 200 OK\r\n" + _WITH_5, STAY),
    "status-99": (b"HTTP/1.1 099 Odd\r\n" + _WITH_5, STAY),
    "status-1000": (b"HTTP/1.1 1000 Odd\r\n" + _WITH_5, STAY),
    "status-negative": (b"HTTP/1.1 -200 Odd\r\n" + _WITH_5, STAY),
    "status-in-words": (b"HTTP/1.1 two hundred\r\n" + _WITH_5, STAY),
    "status-without-a-number": (b"HTTP/1.1\r\n" + _WITH_5, STAY),
    "header-without-a-colon": (OK + b"this is no header\r\n" + _WITH_5, STAY),
    "two-lengths": (OK + b"Content-Length: 4\r\n" + _WITH_5, STAY),
    "negative-length": (OK + b"Content-Length: -5\r\n\r\n12345", STAY),
    "length-in-words": (OK + b"Content-Length: five\r\n\r\n12345", STAY),
    "length-with-a-sign": (OK + b"Content-Length: +5\r\n\r\n12345", STAY),
    "enormous-length": (OK + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n12345", STAY),
    "unknown-transfer-coding": (OK + b"Transfer-Encoding: xor\r\n\r\n12345", STAY),
    "length-and-chunked": (
        OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\n\r\n",
        KEEP,
    ),
}


def _says(data: bytes, then: str) -> Behaviour:
    async def behaviour(raw: _Raw, query: dict[str, str]) -> None:
        await raw.send(data)
        if then == STAY:
            await raw.stay()
        elif then == CLOSE:
            await raw.close()
        elif then == RESET:
            await raw.reset()

    return behaviour


RAW.update({name: _says(*said) for name, said in _SAID.items()})


def _endless(begin: bytes, piece: bytes) -> Behaviour:
    async def behaviour(raw: _Raw, query: dict[str, str]) -> None:
        await raw.send(begin)
        while True:
            await raw.send(piece)

    return behaviour


_BLOCK = content_of(64 << 10)
RAW.update(
    {
        "endless-headers": _endless(OK, b"X-More: and more\r\n" * 500),
        "endless-header-line": _endless(OK + b"X-Long: ", b"x" * 8000),
        "endless-status-line": _endless(b"HTTP/1.1 200 ", b"x" * 8000),
        "endless-first-line": _endless(b"", b"x" * 8000),
        "endless-1xx": _endless(b"", b"HTTP/1.1 102 Processing\r\n\r\n" * 300),
        "endless-chunk-size": _endless(_CHUNKED, b"0" * 8000),
        "endless-chunk-extension": _endless(_CHUNKED + b"5;", b"x" * 8000),
        "endless-trailers": _endless(_CHUNKED + b"0\r\n", b"X-More: and more\r\n" * 500),
        "radio": _endless(OK + b"Content-Type: audio/mpeg\r\n\r\n", _BLOCK),
        "radio-in-chunks": _endless(_CHUNKED, b"10000\r\n" + _BLOCK + b"\r\n"),
    }
)


@_behaves("drips")
async def _drips(raw: _Raw, query: dict[str, str]) -> None:
    """A byte now and then, `size` of them, or for ever."""
    size = int(query.get("size", 1_000_000))
    await raw.send(OK + b"Content-Length: %d\r\n\r\n" % size)
    for _ in range(size):
        await raw.send(b"x")
        await _pause(DRIP_S)


@_behaves("drips-headers")
async def _drips_headers(raw: _Raw, query: dict[str, str]) -> None:
    for piece in [*OK, *(b"X-More: and more\r\n" * 1000)]:
        await raw.send(bytes([piece]))
        await _pause(DRIP_S)


@_behaves("sized")
async def _sized(raw: _Raw, query: dict[str, str]) -> None:
    """`size` bytes, `declared` as the query says: by their length, chunked, or not at all."""
    size = int(query["size"])
    content = b"x" * size
    if query["declared"] == "length":
        await raw.send(OK + b"Content-Length: %d\r\n\r\n" % size + content)
    elif query["declared"] == "chunked":
        chunk = b"%x\r\n%b\r\n" % (size, content) if size else b""
        await raw.send(_CHUNKED + chunk + b"0\r\n\r\n")
    else:
        await raw.send(OK + b"\r\n" + content)
        await raw.close()


@_behaves("promises")
async def _promises(raw: _Raw, query: dict[str, str]) -> None:
    """Declares a length, and sends nothing."""
    await raw.send(OK + b"Content-Length: %b\r\n\r\n" % query["size"].encode())
    await raw.stay()


@_behaves("half")
async def _half(raw: _Raw, query: dict[str, str]) -> None:
    """`size` bytes, the second half of them when the test lets it."""
    content = content_of(int(query["size"]))
    half = len(content) // 2
    await raw.send(OK + b"Content-Length: %d\r\n\r\n" % len(content) + content[:half])
    await _memory.released_by_test(raw.target)
    await raw.send(content[half:])


@_behaves("moved-parts")
async def _moved_parts(raw: _Raw, query: dict[str, str]) -> None:
    """Redirects to `/large`, to which the rest of the query belongs."""
    location = raw.target.replace("/moved-parts", "/large", 1).encode("latin-1")
    await raw.send(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: %b\r\n\r\n" % location)


@_behaves("large")
async def _large(raw: _Raw, query: dict[str, str]) -> None:
    """`size` bytes with an ETag, in ranges. The first answers break off at the offsets `cuts`, in
    good order or, with `by=reset`, not. `etag` may be `weak`, `none` or `changes`, and `resumes`
    says what comes to who asks for the rest: `whole`, `wrong-part`, `wrong-total`, `refuses`,
    `resets-once`.
    """
    content = content_of(int(query["size"]))
    cuts = [int(cut) for cut in query.get("cuts", "").split(",") if cut]
    nth = _memory.requests[raw.target] - 1
    kind, resumes = query.get("etag", "strong"), query.get("resumes", "part")
    tag = {"weak": 'W/"1"', "none": "", "changes": f'"{nth}"'}.get(kind, '"1"').encode()
    etag = b"ETag: %b\r\n" % tag if tag else b""
    begin, end = 0, len(content)
    line = OK
    wanted = raw.headers.get("range", "")
    matches = raw.headers.get("if-range", "").encode() == tag
    if wanted and matches and resumes != "whole":
        begin = int(wanted.removeprefix("bytes=").rstrip("-"))
        shown, total = begin, end
        if resumes == "wrong-part":
            shown, begin = begin + 1, begin + 1
        elif resumes == "wrong-total":
            total += 1
        elif resumes == "refuses":
            await raw.send(
                b"HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */%d\r\n" % end
                + b"Content-Length: 0\r\n\r\n"
            )
            return
        elif resumes == "resets-once" and nth == 1:
            await raw.reset()
        line = b"HTTP/1.1 206 Partial Content\r\n"
        line += b"Content-Range: bytes %d-%d/%d\r\n" % (shown, end - 1, total)
    head = line + etag + b"Content-Length: %d\r\n\r\n" % (end - begin)
    cut = cuts[nth] if nth < len(cuts) else end
    await raw.send(head + content[begin:cut])
    if cut < end:
        await (raw.reset() if query.get("by") == "reset" else raw.close())


def main() -> None:
    """Serve until killed."""
    from twisted.internet import reactor as the_reactor

    reactor: Any = the_reactor
    resource = _app.resource()
    _memory.factories = [
        WrappingFactory(_CountingSite(resource)),  # type: ignore[no-untyped-call]
        WrappingFactory(Factory.forProtocol(_Raw)),
    ]
    sites = [*_memory.factories, Site(resource)]
    ports = [reactor.listenTCP(0, site, 512, "127.0.0.1") for site in sites]
    print(*(port.getHost().port for port in ports), flush=True)
    reactor.run()


if __name__ == "__main__":
    main()
