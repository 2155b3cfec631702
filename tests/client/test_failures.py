"""Every failure of every method of the client is a `ClientError`."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol

from tests.client.fake import Answer, told
from tests.support import asynchronous
from twistedmedia.client import (
    ClientError,
    ClientTimeouts,
    LocalFailure,
    MediaClient,
    Refused,
    Retries,
    Unreachable,
)
from twistedmedia.client.responses import ServiceResponse, refusal
from twistedmedia.client.uploader import SMALL_BYTES

Call = Callable[[MediaClient, Path, int], Deferred[Any]]

# `path` is a small file, `null` a descriptor of /dev/null for reading and writing.
CALLS: dict[str, Call] = {
    "upload": lambda client, path, null: client.upload(path, "a"),
    "upload of a large file": lambda client, path, null: client.upload(
        path.with_name("large.wav"), "a"
    ),
    "upload that asks first": lambda client, path, null: client.upload(
        path, "a", "b.xyz", ask_first=True
    ),
    "upload_stream": lambda client, path, null: client.upload_stream(null, "a", "b.wav"),
    "replace": lambda client, path, null: client.replace(path, "a", "b.wav", "*"),
    "download": lambda client, path, null: client.download("a", "b.wav", path),
    "download_stream": lambda client, path, null: client.download_stream("a", "b.wav", null),
    "find": lambda client, path, null: client.find("a", "b.wav"),
    "holds": lambda client, path, null: client.matches(path, "a", "b.wav"),
    "list": lambda client, path, null: client.list("a"),
    "list, recursive": lambda client, path, null: client.list("a", recursive=True),
    "page": lambda client, path, null: client.page("a", "b"),
    "delete": lambda client, path, null: client.delete("a", "b.wav"),
    "import_url": lambda client, path, null: client.import_url("http://e/x.wav", "a"),
    "fetch": lambda client, path, null: client.fetch("http://e/"),
    "health": lambda client, path, null: client.health(),
}
# These parse the content of a response. The others accept a 200 as the content of a file.
READING = ["list", "list, recursive", "page", "delete", "import_url", "fetch", "health", "upload"]


def answer(content: bytes, *headers: bytes, status: bytes = b"200 OK", length: int = -1) -> bytes:
    size = len(content) if length < 0 else length
    headers = (*headers, b"Connection: close")  # so that no connection is reused
    lines = [b"HTTP/1.1 " + status, *headers, b"Content-Length: %d" % size]
    return b"\r\n".join([*lines, b"", content])


HTML = b"<html><h1>502 Bad Gateway</h1></html>"

# The response to every request, after which the connection is closed.
BROKEN = {
    "nothing": b"",
    "not HTTP": b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n",
    "no status": b"HTTP/1.1\r\n\r\n",
    "a status that is not a number": b"HTTP/1.1 abc OK\r\n\r\n",
    "another protocol": b"ICY 200 OK\r\n\r\n",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "two lengths": answer(b"{}", b"Content-Length: 7"),
    "a length that is not a number": b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
    "a length below zero": b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
    "an unknown transfer coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nx",
    "a header without a name": b"HTTP/1.1 200 OK\r\n: x\r\nnonsense\r\n\r\n",
    "a header that is too large": answer(b"{}", b"X: " + b"x" * (1 << 20)),
    "interim answers only": b"HTTP/1.1 100 Continue\r\n\r\n" * 3,
}
# These methods can succeed with the head of a response, and ignore what it says about content.
HEADED = ["upload_stream", "replace", "find", "holds"]
HEADERS_ONLY = [said for name, said in BROKEN.items() if "length" in name or "coding" in name]
CUT = {
    "cut": answer(b"{", length=1000),
    "to the close": b"HTTP/1.1 200 OK\r\n\r\n{}",
    "broken chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n{}\r\n0\r\n\r\n",
    "half a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{",
}
REFUSING = {
    "a proxy's 502": answer(HTML, b"Content-Type: text/html", status=b"502 Bad Gateway"),
    "a proxy's 413": answer(HTML, status=b"413 Payload Too Large"),
    "another server's 501": answer(HTML, status=b"501 Not Implemented"),
    "another server's 501 in JSON": answer(
        b'{"code": 501, "reason": "Not Implemented"}', status=b"501 Not Implemented"
    ),
    "a redirect": answer(b"", b"Location: http://127.0.0.1:9/", status=b"301 Moved Permanently"),
    "a coding": answer(b"x", b"Content-Encoding: gzip", status=b"500 Internal Server Error"),
}
SENSELESS = {
    f"{text[:30]}...{text[-30:]}": answer(text.encode("utf-8", "surrogatepass"))
    for text in (
        "",
        "<html>a captive portal</html>",
        "{",
        "[]",
        "7",
        "{}",
        '{"files": 5, "entries": 5, "deleted": 5, "timings": 5, "version": 5}',
        '{"files": [5], "entries": [5], "timings": {"total": "5"}, "version": "1", "uptime": "1"}',
        '{"files": [{}], "entries": [{}], "timings": {}, "time_cost": "1", "version": "1"}',
        '{"files": [{"directory": 1, "filename": []}], "entries": {"a": 1}, "timings": []}',
        '{"entries": [{"name": "a/"}], "next": "\\ud800"}',
        '{"timings": {}, "url": "", "status": 1, "size": 1, "time_cost": NaN}',
        '{"timings": {}, "url": "", "status": 1, "size": 1, "time_cost": 1' + "0" * 400 + "}",
        '{"entries": [{"name": "a", "modified": "", "etag": "", "size": 1' + "0" * 400 + "}]}",
        '{"url": "", "status": 1, "size": 1, "time_cost": 1, "timings": {"total": Infinity}}',
        "[" * 100_000,
        "\udc80",
    )
}


class Answering(Protocol):
    """Sends the same bytes for every request, and closes. None aborts, SILENCE sends nothing."""

    transport: Any

    def __init__(self, said: bytes | None) -> None:
        self._said = said

    def dataReceived(self, data: bytes) -> None:
        if self._said is None:
            self.transport.abortConnection()
        elif self._said != SILENCE:
            said, self._said = self._said, b""
            self.transport.write(said)
            self.transport.loseConnection()

    def connectionLost(self, reason: Any = None) -> None:
        self.factory.open.discard(self)


SILENCE = b"silence"


@asynccontextmanager
async def asking(
    said: bytes | None,
    tmp_path: Path,
    url: str = "http://127.0.0.1:{port}",
    wait_s: float = 5.0,
) -> AsyncIterator[tuple[MediaClient, Path, int]]:
    """A client of a server that responds to every request with `said`."""
    path = tmp_path / "b.wav"
    path.write_bytes(b"sound")
    path.with_name("large.wav").write_bytes(bytes(SMALL_BYTES + 1))
    factory: Any = Factory()
    factory.noisy, factory.open = False, set()

    def build(address: Any) -> Protocol:
        protocol = Answering(said)
        protocol.factory = factory
        factory.open.add(protocol)
        return protocol

    factory.buildProtocol = build
    port: Any = reactor.listenTCP(0, factory, interface="127.0.0.1")
    client = MediaClient(
        reactor,
        url.format(port=port.getHost().port),
        retries=Retries(times=0),
        timeouts=ClientTimeouts(5, stall_s=5, response_s=wait_s, import_s=wait_s, health_s=wait_s),
    )
    null = os.open(os.devnull, os.O_RDWR)
    try:
        yield client, path, null
    finally:
        os.close(null)
        await client.close()
        await port.stopListening()
        for each in list(factory.open):
            each.transport.abortConnection()


async def failure_of(call: Call, it: tuple[MediaClient, Path, int]) -> BaseException | None:
    try:
        await call(*it)
    except Exception as error:  # noqa: BLE001 - what kind it is, is the question
        return error
    return None


@pytest.mark.parametrize("said", [None, *BROKEN.values()], ids=["a reset", *BROKEN])
@asynchronous
async def test_a_broken_connection_is_unreachable(
    said: bytes | None, tmp_path: Path, nothing_left_behind: list[Any]
) -> None:
    async with asking(said, tmp_path) as it:
        for name, call in CALLS.items():
            error = await failure_of(call, it)
            if name in HEADED and said in HEADERS_ONLY:
                assert isinstance(error, ClientError | None), (name, error)
                continue
            assert isinstance(error, Unreachable), (name, error)
            assert "the service at http://127.0.0.1:" in error.reason, name
            assert "\n" not in error.reason
    nothing_left_behind.clear()  # Twisted logs errors after some of these


@pytest.mark.parametrize("said", CUT.values(), ids=CUT)
@asynchronous
async def test_a_truncated_response_is_unreachable(
    said: bytes, tmp_path: Path, nothing_left_behind: list[Any]
) -> None:
    async with asking(said, tmp_path) as it:
        for name, call in CALLS.items():
            error = await failure_of(call, it)
            assert isinstance(error, ClientError | None), (name, error)
            assert name not in READING or isinstance(error, Unreachable), (name, error)
    nothing_left_behind.clear()  # Twisted logs an error after broken chunks


@pytest.mark.parametrize("said", REFUSING.values(), ids=REFUSING)
@asynchronous
async def test_a_refusal_of_another_server_has_no_code(said: bytes, tmp_path: Path) -> None:
    """Case 76."""
    async with asking(said, tmp_path) as it:
        for name, call in CALLS.items():
            error = await failure_of(call, it)
            assert isinstance(error, ClientError), (name, error)
            assert error.code is None, (name, error.reason)
            if isinstance(error, Refused):
                assert not error.is_from_service
                assert error.reason.startswith(f"HTTP {error.status}")
                assert "exists" not in error.reason


@pytest.mark.parametrize("said", SENSELESS.values(), ids=SENSELESS)
@asynchronous
async def test_an_invalid_response_is_a_client_error(said: bytes, tmp_path: Path) -> None:
    async with asking(said, tmp_path) as it:
        for name, call in CALLS.items():
            error = await failure_of(call, it)
            assert isinstance(error, ClientError | None), (name, error)
            if not name.startswith("download"):  # which accepts any content
                assert error is not None, name
            assert error is None or error.code is None, name


@asynchronous
async def test_a_silent_service_is_given_up(tmp_path: Path) -> None:
    async with asking(SILENCE, tmp_path, wait_s=0.05) as it:
        for name, call in CALLS.items():
            error = await failure_of(call, it)
            assert isinstance(error, Unreachable), (name, error)
            assert error.reason.endswith("takes too long"), name


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:1", "cannot be reached"),
        ("http://[::1]:1/audio", "the service at http://[::1]:1/audio cannot be reached"),
        ("https://127.0.0.1:{port}", "broke: TLS failed"),
        ("http://unknown_.example:{port}", "is not known"),
    ],
)
@asynchronous
async def test_an_unreachable_service_is_named_in_the_reason(
    url: str, reason: str, tmp_path: Path, no_names: None
) -> None:
    async with asking(b"not TLS\r\n\r\n", tmp_path, url) as it:
        for name, call in CALLS.items():
            error = await failure_of(call, it)
            assert isinstance(error, Unreachable), (name, error)
            assert reason in error.reason, name


@pytest.fixture
def no_names() -> Any:
    class Nothing:
        """Resolves addresses, but no name with `unknown`."""

        def resolveHostName(
            self, receiver: Any, hostName: str, portNumber: int = 0, **kwargs: Any
        ) -> Any:
            if "unknown" not in hostName:
                return before.resolveHostName(receiver, hostName, portNumber, **kwargs)
            receiver.resolutionBegan(self)
            receiver.resolutionComplete()
            return self

    before = reactor.installNameResolver(Nothing())
    yield
    reactor.installNameResolver(before)


# Invalid arguments, which fail before any request.

FOREIGN = (None, 5, b"bytes", ["a"])
WRONG: dict[str, Call] = {
    "a path with a NUL": lambda client, path, null: client.upload("a\0b", "a", "b.wav"),
    "no file": lambda client, path, null: client.upload(path / "none", "a"),
    "a directory": lambda client, path, null: client.upload(path.parent, "a"),
    "a path that is too long": lambda client, path, null: client.upload("x" * 5000, "a"),
    "a folder to download to": lambda client, path, null: client.download("a", "b", path.parent),
    "a target with a NUL": lambda client, path, null: client.download("a", "b", "a\0b"),
    "a target below a file": lambda client, path, null: client.download("a", "b", path / "c"),
    "a target that is too long": lambda client, path, null: client.download("a", "b", "x" * 300),
    "a tag without quotes": lambda client, path, null: client.replace(path, "a", "b", "tag"),
    "a tag on two lines": lambda client, path, null: client.replace(path, "a", "b", '"a\r\nX: b"'),
    "a tag that is not ASCII": lambda client, path, null: client.delete("a", "b", etag='"電"'),
    "half a character": lambda client, path, null: client.fetch("http://e/\ud800"),
    "half a character in a directory": lambda client, path, null: client.import_url(
        "http://e/x.wav", "\ud800"
    ),
    "half a character in a place": lambda client, path, null: client.page("a", "\ud800"),
    "a name that is none": lambda client, path, null: client.find("..", "b.wav"),
    "a name with a slash": lambda client, path, null: client.find("a", "b/c.wav"),
    "a name in a list": lambda client, path, null: client.list("a/../b"),
    "a closed descriptor": lambda client, path, null: client.upload_stream(-1, "a", "b.wav"),
}
for _value in FOREIGN:
    _text = f"{_value!r} as "
    WRONG |= {
        _text + "path": lambda client, path, null, v=_value: client.upload(v, "a"),  # type: ignore[misc]
        _text + "target": lambda client, path, null, v=_value: client.download("a", "b", v),  # type: ignore[misc]
        _text + "held": lambda client, path, null, v=_value: client.matches(path, v, "b"),  # type: ignore[misc]
        _text + "directory": lambda client, path, null, v=_value: client.find(v, "b"),  # type: ignore[misc]
        _text + "filename": lambda client, path, null, v=_value: client.find("a", v),  # type: ignore[misc]
        _text + "listed": lambda client, path, null, v=_value: client.list(v),  # type: ignore[misc]
        _text + "URL": lambda client, path, null, v=_value: client.fetch(v),  # type: ignore[misc]
        _text + "import": lambda client, path, null, v=_value: client.import_url(v, "a"),  # type: ignore[misc]
        _text + "importing": lambda client, path, null, v=_value: client.import_url("http://e", v),  # type: ignore[misc]
    }
for _value in (None, "1", True, 1 << 40):
    WRONG |= {
        f"{_value!r} as source": lambda client, path, null, v=_value: client.upload_stream(  # type: ignore[misc]
            v, "a", "b"
        ),
        f"{_value!r} as sink": lambda client, path, null, v=_value: client.download_stream(  # type: ignore[misc]
            "a", "b", v
        ),
    }
for _value in (5, "text", b"bytes", [1]):
    _text = f"{_value!r} as "
    WRONG |= {
        _text + "progress up": lambda client, path, null, v=_value: client.upload(  # type: ignore[misc]
            path, "a", progress=v
        ),
        _text + "progress of a replacement": lambda client, path, null, v=_value: client.replace(  # type: ignore[misc]
            path, "a", "b", "*", progress=v
        ),
        _text + "progress of a source": lambda client, path, null, v=_value: client.upload_stream(  # type: ignore[misc]
            null, "a", "b", progress=v
        ),
        _text + "progress down": lambda client, path, null, v=_value: client.download(  # type: ignore[misc]
            "a", "b", path, progress=v
        ),
        _text + "progress of a sink": lambda client, path, null, v=_value: client.download_stream(  # type: ignore[misc]
            "a", "b", null, progress=v
        ),
        _text + "left_out": lambda client, path, null, v=_value: client.list("a", on_left_out=v),  # type: ignore[misc]
        _text + "record": lambda client, path, null, v=_value: client.upload(
            path, "a", resume_store=v
        ),  # type: ignore[misc]
    }
for _value in FOREIGN:
    WRONG[f"{_value!r} as imported name"] = lambda client, path, null, v=_value: client.import_url(  # type: ignore[misc]
        "http://e/x.wav", "a", v
    )


@pytest.mark.parametrize(
    "options",
    [
        {"cacert": 5},
        {"cacert": b"/x"},
        {"cacert": "a\0b"},
        {"retries": 3},
        {"retries": 0},
        {"timeouts": 3},
        {"timeouts": 0},
        {"on_retry": 3},
        {"agent": 3},
        {"reactor": None},
        {"url": None},
    ],
    ids=str,
)
def test_a_client_refuses_invalid_arguments(options: dict[str, Any]) -> None:
    with pytest.raises(LocalFailure):
        MediaClient(**{"reactor": reactor, "url": "http://127.0.0.1:1", **options})


@pytest.mark.parametrize("value", [None, "3", True, -1, float("nan"), [1]], ids=repr)
def test_times_and_counts_are_numbers(value: Any) -> None:
    for name in ("times", "first_s", "longest_s", "max_retry_after_s"):
        with pytest.raises(LocalFailure, match=f"{name} must be a number from 0 on"):
            Retries(**{name: value})
    for name in ("connect_s", "stall_s", "response_s", "import_s"):
        with pytest.raises(LocalFailure, match=f"{name} must be a number from 0 on"):
            ClientTimeouts(**{name: value})
    with pytest.raises(LocalFailure, match="random must be a function"):
        Retries(random=5)  # type: ignore[arg-type]


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG)
@asynchronous
async def test_an_invalid_argument_is_a_local_failure(
    talk: Any, tmp_path: Path, call: Call
) -> None:
    path = tmp_path / "b.wav"
    path.write_bytes(b"sound")
    null = os.open(os.devnull, os.O_RDWR)
    try:
        async with talk() as it:
            error = await failure_of(call, (it.client, path, null))
            assert isinstance(error, LocalFailure), error
            assert [each.method for each in it.fake.heard if each.method != "HEAD"] == []
    finally:
        os.close(null)


@pytest.mark.parametrize("name", ["upload", "upload_stream", "download", "download_stream"])
@asynchronous
async def test_an_exception_of_a_callback_is_raised_unchanged(
    talk: Any, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "b.wav"
    path.write_bytes(b"sound")

    def fault(done: int, size: int | None) -> None:
        if done:
            raise ZeroDivisionError

    source = os.open(path, os.O_RDWR)
    try:
        async with talk() as it:
            it.fake.put("a/c.wav", b"sound")
            calls: dict[str, Callable[[], Deferred[Any]]] = {
                "upload": lambda: it.client.upload(path, "a", progress=fault),
                "upload_stream": lambda: it.client.upload_stream(source, "a", "d", progress=fault),
                "download": lambda: it.client.download("a", "c.wav", path, progress=fault),
                "download_stream": lambda: it.client.download_stream(
                    "a", "c.wav", source, progress=fault
                ),
            }
            with pytest.raises(ZeroDivisionError):
                await calls[name]()
            assert it.waits == []
    finally:
        os.close(source)


def test_a_code_counts_only_with_its_http_status() -> None:
    """Case 76: other servers send JSON with a `code` and a `reason` as well."""
    for status, code, is_ours in [
        (409, 501, True),
        (410, 501, True),
        (503, 515, True),
        (507, 507, True),
        (404, 404, True),
        (400, 508, True),
        (460, 508, True),
        (207, 501, True),
        (503, 514, True),
        (400, 599, False),
        (401, 10004, False),
        (404, 1234, False),
        (400, 501, False),
        (404, 512, False),
        (500, 503, False),
        (409, 507, False),
        (400, 460, False),
        (402, 402, False),
        (200, 200, False),
        (501, 501, False),
        (502, 502, False),
        (503, 503, False),
        (404, 200, False),
        (404, 5, False),
        (400, 404, False),
        (500, 507, False),
    ]:
        error = refusal(
            ServiceResponse(status, {}, told(status, code).content),
            "http://e/media/a/b.wav",
            "Said So",
            0,
        )
        assert (error.is_from_service, error.code) == ((True, code) if is_ours else (False, None))
        assert error.status == status


@asynchronous
async def test_a_501_of_another_server_does_not_mean_that_the_file_exists(
    talk: Any, tmp_path: Path
) -> None:
    """Case 76."""
    (tmp_path / "b.wav").write_bytes(b"sound")
    async with talk() as it:
        for content in (b"<html>", told(501, 501, "the file exists already").content):
            it.fake.next("PUT", answer=Answer(501, {}, content))
            with pytest.raises(Refused) as caught:
                await it.client.upload(tmp_path / "b.wav", "a")
            assert (caught.value.status, caught.value.code) == (501, None)
            assert caught.value.reason == "HTTP 501 Said So"
