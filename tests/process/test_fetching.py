"""`GET /fetch` and `GET /`: what it costs to fetch a URL, from upstreams good and bad."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.fetch.test_certificates import Authority
from tests.process.exchange import URLENCODED, Answer, Connection, request
from tests.process.nasty import PLAIN, Nasty
from tests.process.running import Process, eventually, running

LOOPBACK = ("--fetch-allow", "127.0.0.0/8")
FETCH_MAX = 1 << 20
IMPATIENT_S = 1
PATIENT_S = 120
PHASES = ["lookup", "connect", "tls", "first_byte", "total"]
PAGE = {"Accept": "text/html"}
FRESH = {"Cache-Control": "no-cache"}


pytestmark = pytest.mark.usefixtures("no_connection_is_left")


@pytest.fixture(scope="module")
def fetching(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A service that may fetch from this machine."""
    root = tmp_path_factory.mktemp("fetching") / "area" / "media"
    with running(root, *LOOPBACK, "--fetch-max", str(FETCH_MAX)) as process:
        yield process


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """One that waits for nothing long."""
    root = tmp_path_factory.mktemp("impatient") / "area" / "media"
    with running(root, *LOOPBACK, "--fetch-timeout", f"{IMPATIENT_S}s") as process:
        yield process


def fetch_target(url: str | bytes) -> str:
    return "/fetch?url=" + quote(url, safe="")


def fetch(
    service: Process, url: str | bytes, headers: dict[str, str] | None = None, method: str = "GET"
) -> Answer:
    return service.ask(method, fetch_target(url), headers=headers)


def told(answer: Answer) -> dict[str, Any]:
    """What a fetch that worked is told as, which has the form that the contract says."""
    assert answer.status == 200, answer
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Content-Length"] == str(len(answer.content))
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Vary"] == "Accept"
    said = answer.json
    assert list(said) == [
        "code",
        "reason",
        "url",
        "status",
        "size",
        "time_cost",
        "timings",
        "cache",
    ]
    assert (said["code"], said["reason"]) == (200, "OK")
    timings = said["timings"]
    assert [name for name in timings if name != "redirect"] == PHASES
    assert said["time_cost"] == timings["total"] >= 0
    ends = [end for end in timings.values() if end is not None]
    assert ends == sorted(ends)
    assert_server_timing(answer, said["time_cost"])
    return said


def assert_server_timing(answer: Answer, total_s: float | None = None) -> None:
    """The phases are of the field, in milliseconds, and give the total."""
    phases = answer.headers["Server-Timing"].split(", ")
    took: dict[str, float] = {}
    for phase in phases:
        match = re.fullmatch(r"([a-z]+);dur=([0-9]+\.[0-9])", phase)
        assert match is not None, phases
        took[match[1]] = float(match[2])
    assert set(took) <= {"redirect", "lookup", "connect", "tls", "wait", "receive", "total"}
    total = took.pop("total")
    assert sum(took.values()) == pytest.approx(total, abs=1)
    if total_s is not None:
        assert total == pytest.approx(total_s * 1000, abs=0.2)


# What works.


def test_a_fetch_is_told_with_what_it_cost(fetching: Process, nasty: Nasty) -> None:
    url = nasty.url(nasty.fresh("/slow"))
    said = told(fetch(fetching, url))
    assert (said["url"], said["status"], said["size"]) == (url, 200, len(PLAIN))
    assert said["cache"] == "miss"
    timings = said["timings"]
    assert timings["tls"] is None
    assert "redirect" not in timings
    assert 0.1 <= timings["first_byte"] <= said["time_cost"] < 10


def test_a_connection_that_is_new_is_looked_up_and_made_and_one_that_is_kept_is_not(
    serve: Callable[..., Process], nasty: Nasty
) -> None:
    service = serve(*LOOPBACK)
    before = nasty.connections
    first = told(fetch(service, nasty.url("/plain")))["timings"]
    assert first["lookup"] is not None
    assert first["lookup"] <= first["connect"] <= first["first_byte"]
    eventually("the connection is idle", lambda: nasty.busy == 0)
    for _ in range(20):
        again = told(fetch(service, nasty.url("/plain")))["timings"]
        assert again["lookup"] is again["connect"] is None
    assert nasty.connections == before + 1


@pytest.mark.parametrize(
    ("target", "status", "size"),
    [
        ("/plain", 200, len(PLAIN)),
        ("/status/201", 201, len(PLAIN)),
        ("/status/400", 400, len(PLAIN)),
        ("/status/404", 404, len(PLAIN)),
        ("/status/500", 500, len(PLAIN)),
        ("/status/503", 503, len(PLAIN)),
        ("/status/599", 599, len(PLAIN)),
        ("/redirects-nowhere", 302, len(PLAIN)),
        ("/cookies", 200, len(PLAIN)),
        ("/encoded?as=identity", 200, len(PLAIN)),
        ("/encoded?as=Identity", 200, len(PLAIN)),
        ("/no-content", 204, 0),
        ("/not-modified", 304, 0),
        ("/chunked", 200, 5),
        ("/without-length", 200, 5),
        ("/without-type", 200, 5),
        ("/without-reason", 200, 5),
        ("/http-1-0", 200, 5),
        ("/says-100-first", 200, 5),
        ("/says-103-first", 200, 5),
        ("/says-less", 200, 5),
        ("/length-and-chunked", 200, 5),
        ("/sized?size=0&declared=length", 200, 0),
        ("/sized?size=0&declared=chunked", 200, 0),
        ("/sized?size=0&declared=not", 200, 0),
        ("/sized?size=1000000&declared=chunked", 200, 1_000_000),
        ("/large?size=1000000", 200, 1_000_000),
    ],
)
def test_whatever_an_upstream_says_in_http_is_a_fetch_that_worked(
    fetching: Process, nasty: Nasty, target: str, status: int, size: int
) -> None:
    """Case 44. Twice: a connection that is kept is as good as a new one."""
    for _ in range(2):
        said = told(fetch(fetching, nasty.url(target)))
        assert (said["status"], said["size"]) == (status, size)
        assert said["url"] == nasty.url(target)


def test_what_follows_a_response_is_not_taken_for_the_next_one(
    fetching: Process, nasty: Nasty
) -> None:
    for _ in range(5):
        assert told(fetch(fetching, nasty.url("/smuggles")))["size"] == 5
        said = told(fetch(fetching, nasty.url(nasty.fresh("/large", size=1000))))
        assert said["size"] == 1000


@pytest.mark.parametrize("declared", ["length", "chunked", "not"])
def test_as_many_bytes_are_read_as_fetch_max_says_and_no_more(
    fetching: Process, nasty: Nasty, declared: str
) -> None:
    """Case 22."""
    fits = nasty.url(nasty.fresh("/sized", size=FETCH_MAX, declared=declared))
    assert told(fetch(fetching, fits))["size"] == FETCH_MAX
    more = nasty.url(nasty.fresh("/sized", size=FETCH_MAX + 1, declared=declared))
    answer = fetch(fetching, more)
    assert answer.brief == (502, 512)
    assert f"limit of {FETCH_MAX} bytes" in answer.json["reason"]


# What does not.

BROKEN = [
    ("/says-more", "broke off after 5 bytes"),
    ("/says-more-and-resets", "broke off after 5 bytes"),
    ("/says-ten-sends-none", "broke off after 0 bytes"),
    ("/chunked-cut-in-a-chunk", "broke off after 3 bytes"),
    ("/chunked-cut-between", "broke off after 5 bytes"),
    ("/chunked-cut-in-the-last", "broke off after 5 bytes"),
    ("/chunked-reset", "broke off after 5 bytes"),
    ("/chunked-in-no-hex", "does not send its content in HTTP"),
    ("/chunked-negative", "does not send its content in HTTP"),
    ("/chunked-longer-than-said", "does not send its content in HTTP"),
    ("/without-length-reset", "broke off after 5 bytes"),
    ("/closes", "closed the connection without a response"),
    ("/resets", "closed the connection without a response"),
    ("/closes-in-the-status", "closed the connection in the middle of its headers"),
    ("/resets-in-the-status", "closed the connection in the middle of its headers"),
    ("/closes-in-headers", "closed the connection in the middle of its headers"),
    ("/resets-in-headers", "closed the connection in the middle of its headers"),
    ("/closes-after-headers-begin", "closed the connection in the middle of its headers"),
    ("/garbage", "does not respond in HTTP"),
    ("/smtp", "does not respond in HTTP"),
    ("/html", "does not respond in HTTP"),
    ("/icy", "does not respond in HTTP"),
    ("/status-99", "does not respond in HTTP"),
    ("/status-1000", "does not respond in HTTP"),
    ("/status-negative", "does not respond in HTTP"),
    ("/status-in-words", "does not respond in HTTP"),
    ("/status-without-a-number", "does not respond in HTTP"),
    ("/header-without-a-colon", "does not respond in HTTP"),
    ("/two-lengths", "does not respond in HTTP"),
    ("/negative-length", "does not respond in HTTP"),
    ("/length-in-words", "does not respond in HTTP"),
    ("/length-with-a-sign", "does not respond in HTTP"),
    ("/unknown-transfer-coding", "does not respond in HTTP"),
    ("/enormous-length", f"limit of {FETCH_MAX} bytes"),
    ("/promises?size=1048577", f"limit of {FETCH_MAX} bytes"),
    ("/gzip", "with a Content-Encoding that was not requested"),
    ("/encoded?as=br", "with a Content-Encoding that was not requested"),
    ("/encoded?as=identity%2C%20gzip", "with a Content-Encoding that was not requested"),
    ("/loop", "redirects more than 10 times"),
    ("/chain/11", "redirects more than 10 times"),
]
ENDLESS = [
    ("/endless-headers", "more than 65536 bytes of headers"),
    ("/endless-1xx", "16 interim responses"),
    ("/endless-header-line", "more than 65536 bytes of headers"),
    ("/endless-status-line", "more than 65536 bytes of headers"),
    ("/endless-first-line", "more than 65536 bytes of headers"),
    ("/endless-chunk-size", "does not send its content in HTTP"),
    ("/endless-chunk-extension", "does not send its content in HTTP"),
    ("/endless-trailers", ""),
    ("/radio", f"limit of {FETCH_MAX} bytes"),
    ("/radio-in-chunks", f"limit of {FETCH_MAX} bytes"),
]


@pytest.mark.parametrize(("target", "words"), BROKEN + ENDLESS)
def test_what_an_upstream_gets_wrong_is_told_as_its_failure(
    fetching: Process, nasty: Nasty, target: str, words: str
) -> None:
    """Cases 22, 23, 44. Its connection is cut, and the next request has another one."""
    answer = fetch(fetching, nasty.url(target))
    assert answer.brief == (502, 512), answer
    assert answer.json["reason"].startswith("the upstream ")
    assert words in answer.json["reason"]
    eventually("the connection is cut", lambda: nasty.busy == 0)
    assert told(fetch(fetching, nasty.url("/without-type")))["size"] == 5


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("/hangs", "no response came in time"),
        ("/drips-headers", "no response came in time"),
        ("/says-101", "no response came in time"),
        ("/hangs-in-content", "not all of its content came in time"),
        ("/drips", "not all of its content came in time"),
    ],
)
def test_who_takes_too_long_is_not_waited_for(
    impatient: Process, nasty: Nasty, target: str, words: str
) -> None:
    begun = time.monotonic()
    answer = fetch(impatient, nasty.url(target))
    assert answer.brief == (504, 513)
    assert answer.json["reason"] == f"the upstream took too long: {words}"
    assert time.monotonic() - begun >= IMPATIENT_S
    eventually("the connection is cut", lambda: nasty.busy == 0)


def test_a_port_where_nobody_listens_refuses(fetching: Process) -> None:
    answer = fetch(fetching, "http://127.0.0.1:1/")
    assert answer.brief == (502, 512)
    assert answer.json["reason"] == "the upstream refuses the connection"


def test_a_connection_that_was_closed_while_it_was_kept_is_no_failure(
    fetching: Process, nasty: Nasty
) -> None:
    """Of an upstream that is restarted, for one."""
    for _ in range(3):
        other = Nasty()
        try:
            url = other.url("/plain")
            assert told(fetch(fetching, url))["size"] == len(PLAIN)
        finally:
            other.stop()
        assert fetch(fetching, url).brief == (502, 512)
    assert told(fetch(fetching, nasty.url("/plain")))["size"] == len(PLAIN)


def test_the_worst_upstreams_cost_no_memory(serve: Callable[..., Process], nasty: Nasty) -> None:
    """Cases 22, 23: bombs, and what does not end, each several times at once."""
    patient = ("--fetch-timeout", f"{PATIENT_S}s")  # a busy machine takes its time for all of it
    service = serve(*LOOPBACK, "--fetch-max", "32MiB", *patient)
    for target in ("/plain", "/gzip", "/endless-headers", "/endless-1xx", "/radio"):
        fetch(service, nasty.url(target))  # so that whatever is loaded late is loaded
    before = service.peak_memory()
    codes: list[int] = []

    def ask(target: str) -> None:
        with service.connect(PATIENT_S) as connection:
            asked = fetch_target(nasty.url(target))
            codes.append(connection.ask("GET", asked, headers=FRESH).code)

    targets = [target for target, _ in ENDLESS] + ["/gzip", "/enormous-length"]
    threads = [threading.Thread(target=ask, args=(target,)) for target in targets * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [512] * len(targets) * 3
    assert service.peak_memory() - before < 24 << 20


def test_nothing_is_left_of_fetches_that_failed(fetching: Process, nasty: Nasty) -> None:
    """Case 25."""
    with fetching.unchanged_descriptors(nasty.sockets):
        for _ in range(3):
            for target, _ in BROKEN:
                assert fetch(fetching, nasty.url(target)).code == 512


# Where it leads.


def test_redirects_are_followed_five_times(fetching: Process, nasty: Nasty) -> None:
    said = told(fetch(fetching, nasty.url("/chain/10")))
    assert said["url"] == nasty.url("/chain/0")
    assert (said["status"], said["size"]) == (200, len(PLAIN))
    assert said["timings"]["redirect"] > 0
    assert list(said["timings"]) == ["redirect", *PHASES]


def test_a_redirect_may_be_relative(fetching: Process, nasty: Nasty) -> None:
    said = told(fetch(fetching, nasty.url("/folder/relative")))
    assert said["url"] == nasty.url("/any/b?c")
    assert said["size"] == len(PLAIN)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_may_lead_to_another_origin(
    fetching: Process, nasty: Nasty, status: int
) -> None:
    to = nasty.url("/without-type")
    said = told(fetch(fetching, nasty.url(nasty.fresh("/redirects", to=to, status=status))))
    assert (said["url"], said["size"]) == (to, 5)


@pytest.mark.parametrize("status", [200, 201, 300, 304, 305, 404])
def test_what_is_no_redirect_is_not_followed(fetching: Process, nasty: Nasty, status: int) -> None:
    url = nasty.url(nasty.fresh("/redirects", to=nasty.url("/without-type"), status=status))
    said = told(fetch(fetching, url))
    assert (said["url"], said["status"]) == (url, status)


@pytest.mark.parametrize(
    "to",
    [
        "http://10.0.0.1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::1]/",
        "http://[::ffff:10.0.0.1]/",
        "http://0.0.0.0/",
        "//10.0.0.1/",
        "http://nobody.invalid/",
        "http://93.184.216.34:22/",
        "https://10.0.0.1/",
    ],
)
def test_a_redirect_leads_to_no_address_that_may_not_be_fetched(
    fetching: Process, nasty: Nasty, to: str
) -> None:
    """Case 39, on the first hop and on a later one."""
    first = nasty.url(nasty.fresh("/redirects", to=to))
    later = nasty.url(nasty.fresh("/redirects", to=first))
    for url in (first, later):
        answer = fetch(fetching, url)
        assert answer.brief == (403, 511)
        assert answer.json["reason"] == "that address may not be fetched"


@pytest.mark.parametrize(
    "to",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/",
        "gopher://127.0.0.1:25/_HELO",
        "javascript:alert(1)",
        "data:text/plain,x",
        "http://[",
        "http://a b/",
        "http://127.0.0.1:0/",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:x/",
        "http://user:password@127.0.0.1/",
        "/a\tb",
    ],
)
def test_a_redirect_to_what_is_no_url_to_fetch_is_the_upstreams_failure(
    fetching: Process, nasty: Nasty, to: str
) -> None:
    answer = fetch(fetching, nasty.url(nasty.fresh("/redirects", to=to)))
    assert answer.brief == (502, 512)
    assert "redirects to a URL that cannot be fetched" in answer.json["reason"]


# What may not be fetched.

NOT_URLS = [
    ("no-url", "http"),
    ("/media/a.wav", "http"),
    ("//127.0.0.1/", "http"),
    ("127.0.0.1:80", "http"),
    ("file:///etc/passwd", "only http and https"),
    ("ftp://example.org/", "only http and https"),
    ("gopher://example.org/", "only http and https"),
    ("javascript:alert(1)", "only http and https"),
    ("http:", "host"),
    ("http://", "host"),
    ("http:///path", "host"),
    ("http:127.0.0.1", "host"),
    ("http://?x", "host"),
    ("http://:80/", "host"),
    ("http://[/", "host"),
    ("http://[::1/", "host"),
    ("http://[1.2.3.4]/", "host"),
    ("http://[::1%25lo]/", "host"),
    ("http://a b/", "host"),
    ("http://a..b/", "host"),
    ("http://127.0.0.1:0/", "port"),
    ("http://127.0.0.1:65536/", "port"),
    ("http://127.0.0.1:-1/", "host"),
    ("http://127.0.0.1:http/", "host"),
    ("http://user@example.org/", "user name or password"),
    ("http://user:password@example.org/", "user name or password"),
    ("http://@example.org/", "user name or password"),
    ("http://example.org\n/", "control character"),
    ("http://example.org/\r\nX-Injected: 1", "control character"),
    ("http://example.org/\0", "control character"),
    ("http://example.org/" + "x" * 8192, "8192 bytes"),
]


@pytest.mark.parametrize(("url", "words"), NOT_URLS)
def test_what_is_no_url_to_fetch_is_refused(fetching: Process, url: str, words: str) -> None:
    answer = fetch(fetching, url)
    assert answer.brief == (400, 400)
    assert answer.json["reason"].startswith("the url cannot be fetched: ")
    assert words in answer.json["reason"]


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("", 400, 503),
        ("?", 400, 503),
        ("?url", 400, 503),
        ("?url=", 400, 503),
        ("?URL=http://127.0.0.1/", 400, 503),
        ("?url=http://127.0.0.1/&url=http://127.0.0.1/", 400, 510),
        ("?url=&url=http://127.0.0.1/", 400, 510),
    ],
)
def test_a_fetch_needs_one_url(fetching: Process, query: str, status: int, code: int) -> None:
    answer = fetching.ask("GET", f"/fetch{query}")
    assert answer.brief == (status, code)
    assert "'url'" in answer.json["reason"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_a_fetch_is_a_get(fetching: Process, nasty: Nasty, method: str) -> None:
    target = nasty.fresh("/plain")
    answer = fetch(fetching, nasty.url(target), method=method)
    assert answer.brief == (405, 405)
    assert nasty.requests(target) == 0


# Where nobody is to be sent who asks a service without --fetch-allow.
PRIVATE = [
    "http://127.0.0.1/",
    "http://127.0.0.1:{port}/plain",
    "https://127.0.0.1:{port}/plain",
    "http://127.1:{port}/plain",
    "http://127.0.1:{port}/plain",
    "http://0x7f.1:{port}/plain",
    "http://0x7f000001:{port}/plain",
    "http://2130706433:{port}/plain",
    "http://017700000001:{port}/plain",
    "http://127.0.0.1.:{port}/plain",
    "http://127。0。0。1:{port}/plain",
    "http://①②⑦.⓪.⓪.①:{port}/plain",
    "http://0:{port}/plain",
    "http://0.0.0.0:{port}/plain",
    "http://localhost:{port}/plain",
    "http://LOCALHOST.:{port}/plain",
    "http://[::]:{port}/plain",
    "http://[::1]:{port}/plain",
    "http://[0:0:0:0:0:0:0:1]:{port}/plain",
    "http://[::ffff:127.0.0.1]:{port}/plain",
    "http://[::ffff:7f00:1]:{port}/plain",
    "http://[::127.0.0.1]:{port}/plain",
    "http://[64:ff9b::127.0.0.1]:{port}/plain",
    "http://[64:ff9b::7f00:1]/plain",
    "http://[64:ff9b:1::7f00:1]/plain",
    "http://[2002:7f00:1::]/plain",
    "http://[2001:0:7f00:1::]/plain",
    "http://[fe80::5efe:7f00:1]/plain",
    "http://[fe80::1]/",
    "http://[fd00::1]/",
    "http://[ff02::1]/",
    "http://10.0.0.1/",
    "http://100.64.0.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://172.16.0.1/",
    "http://192.168.0.1/",
    "http://198.18.0.1/",
    "http://224.0.0.1/",
    "http://240.0.0.1/",
    "http://255.255.255.255/",
    # public, but no port of HTTP
    "http://93.184.216.34:22/",
    "http://93.184.216.34:8080/",
    "https://[2606:2800:220:1:248:1893:25c8:1946]:25/",
]


@pytest.fixture(scope="module")
def unresolved(service: Process) -> bytes:
    """All that is said of a name that does not resolve."""
    return undated(service, fetch_target("http://nobody.invalid/plain"))


@pytest.mark.parametrize("url", PRIVATE)
def test_a_private_address_and_a_name_that_does_not_resolve_have_the_same_answer(
    service: Process, nasty: Nasty, unresolved: bytes, url: str
) -> None:
    """Cases 38, 43."""
    before = nasty.all_requests
    asked = url.format(port=nasty.port)
    assert undated(service, fetch_target(asked)) == unresolved
    answer = fetch(service, asked)
    assert answer.brief == (403, 511)
    assert answer.json == {"code": 511, "reason": "that address may not be fetched"}
    assert nasty.all_requests == before


def undated(service: Process, target: str) -> bytes:
    """All bytes of the answer, but the time."""
    with service.connect() as connection:
        connection.send(request("GET", target, None, {"Connection": "close"}))
        return re.sub(rb"\r\nDate: [^\r]*", b"", connection.read_to_the_end())


def test_who_tried_to_go_where_is_in_the_log_without_paths(service: Process) -> None:
    assert fetch(service, "http://10.1.2.3/the-secret?of=somebody").brief == (403, 511)
    eventually("it is logged", lambda: "http://10.1.2.3" in service.log)
    assert "the-secret" not in service.log


@pytest.mark.parametrize(
    ("allowed", "opens"),
    [
        ("127.0.0.0/8", True),
        ("127.0.0.1:{port}", True),
        ("127.0.0.0/8:{port}", True),
        ("[::ffff:127.0.0.1]:{port}", True),
        ("127.0.0.1:{raw_port}", False),
        ("127.0.0.2", False),
        ("localhost", False),  # a name: it opens what is asked for by that name
    ],
)
def test_fetch_allow_opens_what_it_says_and_no_more(
    serve: Callable[..., Process], nasty: Nasty, allowed: str, opens: bool
) -> None:
    """Case 41."""
    place = allowed.format(port=nasty.port, raw_port=nasty.raw_port)
    service = serve("--fetch-allow", place)
    answer = fetch(service, nasty.url("/plain"))
    assert answer.status == (200 if opens else 403)


@pytest.mark.parametrize(
    ("host", "known_as"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("127.1", None),
        ("2130706433", None),
        ("localhost", "localhost"),
        ("[::ffff:127.0.0.1]", None),
    ],
)
def test_an_address_that_is_allowed_is_so_in_every_spelling(
    fetching: Process, nasty: Nasty, host: str, known_as: str | None
) -> None:
    said = told(fetch(fetching, f"http://{host}:{nasty.port}/plain"))
    assert said["size"] == len(PLAIN)
    if known_as is not None:
        assert said["url"] == f"http://{known_as}:{nasty.port}/plain"


def test_host_names_that_are_allowed_are_anchored(
    serve: Callable[..., Process], nasty: Nasty
) -> None:
    """Case 41."""
    service = serve("--fetch-allow", f"LOCALHOST:{nasty.port}", "--fetch-allow", "*.example.org")
    for host in ("localhost", "LocalHost", "localhost."):
        said = told(fetch(service, f"http://{host}:{nasty.port}/plain"))
        assert said["url"] == f"http://localhost:{nasty.port}/plain"
    for url in (
        f"http://localhost:{nasty.raw_port}/chunked",
        f"http://127.0.0.1:{nasty.port}/plain",
        f"http://[::1]:{nasty.port}/plain",
        f"http://localhost.invalid:{nasty.port}/plain",
        f"http://127.0.0.1:{nasty.port}/?http://localhost:{nasty.port}/",
        f"http://127.0.0.1:{nasty.port}/#.example.org",
    ):
        assert fetch(service, url).brief == (403, 511)


# What goes to the upstream.


def test_nothing_of_the_client_goes_to_the_upstream(fetching: Process, nasty: Nasty) -> None:
    """Case 42."""
    target = nasty.fresh("/echo")
    headers = {
        "Authorization": "Bearer the-clients",
        "Cookie": "session=the-clients",
        "User-Agent": "the-clients",
        "Accept": "application/json",
        "Accept-Encoding": "gzip, br",
        "Range": "bytes=0-1",
        "If-None-Match": '"the-clients"',
        "Referer": "http://the-clients/",
        "X-Forwarded-For": "10.1.1.1",
        "X-Api-Key": "the-clients",
    }
    told(fetch(fetching, nasty.url(target), headers))
    assert nasty.heard(target) == {
        "host": f"127.0.0.1:{nasty.port}",
        "user-agent": "twistedmedia",
        "accept": "*/*",
        "accept-encoding": "identity",
    }


def test_cookies_are_not_kept(fetching: Process, nasty: Nasty) -> None:
    target = nasty.fresh("/echo")
    fetch(fetching, nasty.url("/cookies"))
    url = nasty.url(nasty.fresh("/cookies-and-redirects", to=nasty.url(target)))
    assert told(fetch(fetching, url))["url"] == nasty.url(target)
    assert "cookie" not in nasty.heard(target)


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ("/any/a%2Fb%20c?x=%41&y=a+b", None),
        ("/any/a//b/../c/./d", None),
        ("/any/a b", "/any/a%20b"),
        ("/any/ü?ü=<>", "/any/%C3%BC?%C3%BC=%3C%3E"),
        ("/any/100%", "/any/100%25"),
        ("/any/a#fragment", "/any/a"),
        ("/any/a?", None),
        ("/any/q;", None),
        ("/any/a;?x", None),
        ("/any/a?b?c", None),
        ("/any/(signed)?sig=a'b~c*d!e$f;g,h:i@j/k?l", None),
    ],
)
def test_a_url_is_sent_as_it_is_but_for_what_no_url_may_hold(
    fetching: Process, nasty: Nasty, asked: str, sent: str | None
) -> None:
    sent = sent or asked
    before = nasty.requests(sent)
    said = told(fetch(fetching, nasty.url(asked)))
    assert said["url"] == nasty.url(sent)
    assert nasty.requests(sent) == before + 1


# The upstream of the service.


def test_without_an_upstream_there_is_no_front_page(fetching: Process) -> None:
    for headers in ({}, PAGE):
        assert fetching.ask("GET", "/", headers=headers).brief == (404, 404)


def test_the_upstream_is_fetched_when_no_url_is_named(
    serve: Callable[..., Process], nasty: Nasty
) -> None:
    target = nasty.fresh("/plain")
    service = serve("--upstream", nasty.url(target))
    said = told(service.ask("GET", "/fetch"))
    assert (said["url"], said["size"]) == (nasty.url(target), len(PLAIN))
    assert told(service.ask("GET", "/", headers={"Accept": "application/json"}))["cache"] == "miss"
    page = service.ask("GET", "/")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert nasty.requests(target) == 3
    assert service.ask("GET", "/fetch?url=").brief == (400, 503)
    assert service.ask("GET", "/fetch?url=%ff").brief == (400, 400)
    # It is open for that alone: not for who names it, and not for a redirect.
    assert fetch(service, nasty.url(target)).brief == (403, 511)
    assert fetch(service, nasty.url("/chunked")).brief == (403, 511)
    assert nasty.requests(target) == 3


def test_an_upstream_is_open_on_the_first_hop_only(
    serve: Callable[..., Process], nasty: Nasty
) -> None:
    """Case 39."""
    target = nasty.fresh("/plain")
    service = serve("--upstream", nasty.url(nasty.fresh("/redirects", to=target)))
    assert service.ask("GET", "/fetch").brief == (403, 511)
    assert service.ask("GET", "/", headers=PAGE).brief == (403, 511)
    assert nasty.requests(target) == 0


CREDENTIALS = "Basic dXNlcjp0aGUgc2VjcmV0"  # user:the secret


def test_credentials_stay_with_their_origin_and_are_never_shown(
    serve: Callable[..., Process], nasty: Nasty
) -> None:
    """Case 42."""
    other = nasty.fresh("/chunked")
    again = nasty.fresh("/redirects", to=nasty.url(other))
    first = nasty.fresh("/redirects", to=again)
    url = nasty.url(first).replace("http://", "http://user:the%20secret@")
    service = serve("--upstream", url, *LOOPBACK)
    answers = [service.ask("GET", "/fetch"), service.ask("GET", "/")]
    assert told(answers[0])["url"] == nasty.url(other)
    assert nasty.heard(first)["authorization"] == CREDENTIALS
    assert "authorization" not in nasty.heard(other)
    # who names the URL does not get them along
    named = fetch(service, nasty.url(first), FRESH)
    assert told(named)["size"] == 5
    assert "authorization" not in nasty.heard(first)
    for answer in (*answers, named):
        shown = answer.content + str(answer.headers).encode()
        assert b"secret" not in shown
        assert b"user" not in shown
    assert "secret" not in service.log


# Pages for people.


class Page(HTMLParser):
    """What is on a page."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(content.decode("utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("br", "meta"):  # they have no end
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        with contextlib.suppress(IndexError):
            while self._open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts.setdefault(self._open[-1], []).append(data)


def page_of(answer: Answer) -> Page:
    """The page that an answer is, which holds nothing that could run or be loaded."""
    assert answer.status == 200, answer
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Content-Length"] == str(len(answer.content))
    assert answer.headers["Vary"] == "Accept"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert_server_timing(answer)
    page = Page(answer.content)
    assert page.texts["h1"] == ["Time Cost"]
    assert "svg" in page.tags
    assert "rect" in page.tags
    for tag in ("script", "img", "link", "iframe", "object", "a", "foreignobject"):
        assert tag not in page.tags
    for name, _ in page.attributes:
        assert not name.startswith("on")
        assert name not in ("src", "href", "xlink:href", "style")
    return page


def test_people_get_a_page(fetching: Process, nasty: Nasty) -> None:
    page = page_of(fetch(fetching, nasty.url("/plain"), PAGE))
    shown = "".join(text for texts in page.texts.values() for text in texts)
    assert nasty.url("/plain") in shown
    assert f"{len(PLAIN)} bytes" in shown
    assert "200" in shown


@pytest.mark.parametrize(
    "path",
    [
        "/any/\"'><script>alert(1)</script>",
        "/any/a?b=<img src=x onerror=alert(1)>&amp;c='d'",
        "/any/&lt;b&gt;",
        "/any/</title></style></svg><svg onload=alert(1)>",
    ],
)
def test_a_url_is_text_on_a_page(fetching: Process, nasty: Nasty, path: str) -> None:
    url = nasty.url(path)
    redirected = nasty.url(nasty.fresh("/redirects", to=path))
    exact = told(fetch(fetching, url))["url"]
    for asked in (url, redirected):
        page = page_of(fetch(fetching, asked, PAGE))
        assert exact in [text.strip() for text in page.texts["p"]]


@pytest.mark.parametrize(
    ("accept", "of_fetch", "of_front"),
    [
        (None, "json", "html"),
        ("*/*", "json", "html"),
        ("", "json", "html"),
        ("application/json", "json", "json"),
        ("text/html", "html", "html"),
        ("Text/HTML", "html", "html"),
        ("text/*", "html", "html"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "html", "html"),
        ("text/html;q=0.5, application/json", "json", "json"),
        ("text/html, application/json;q=0.5", "html", "html"),
        ("application/json;q=0, */*", "html", "html"),
        ("image/png", "json", "html"),
        ("nonsense;;;,,,q=", "json", "html"),
    ],
)
def test_who_accepts_what_gets_what(
    fronted: Process, nasty: Nasty, accept: str | None, of_fetch: str, of_front: str
) -> None:
    headers = {} if accept is None else {"Accept": accept}
    for target, kind in (("/fetch", of_fetch), ("/", of_front)):
        answer = fronted.ask("GET", target, headers=headers)
        if kind == "json":
            told(answer)
        else:
            page_of(answer)


@pytest.fixture(scope="module")
def fronted(tmp_path_factory: pytest.TempPathFactory, nasty: Nasty) -> Iterator[Process]:
    """A service with an upstream."""
    root = tmp_path_factory.mktemp("fronted") / "area" / "media"
    with running(root, "--upstream", nasty.url("/plain")) as process:
        yield process


@pytest.mark.parametrize("target", ["/fetch", "/"])
@pytest.mark.parametrize("accept", ["text/html", "application/json"])
def test_head_is_told_the_same_without_the_content(
    fronted: Process, target: str, accept: str
) -> None:
    with fronted.connect() as connection:
        head = connection.ask("HEAD", target, headers={"Accept": accept})
        get = connection.ask("GET", target, headers={"Accept": accept})
    assert head.content == b""
    assert head.status == get.status == 200
    assert int(head.headers["Content-Length"]) > 100
    varies = ("Content-Length", "Server-Timing", "Date")
    assert {name: value for name, value in head.headers.items() if name not in varies} == {
        name: value for name, value in get.headers.items() if name not in varies
    }


def test_an_error_is_json_for_people_too(fetching: Process, nasty: Nasty) -> None:
    assert fetch(fetching, nasty.url("/closes"), PAGE).brief == (502, 512)
    assert fetching.ask("GET", "/fetch", headers=PAGE).brief == (400, 503)


# What is kept, and what is shared.


@pytest.mark.parametrize(
    ("headers", "kept"),
    [
        ({"Cache-Control": "max-age=60"}, True),
        ({"Cache-Control": "public, Max-Age=60"}, True),
        ({"Cache-Control": "max-age=0, s-maxage=60"}, True),
        ({"Cache-Control": "max-age=60", "Age": "30"}, True),
        ({"Cache-Control": "max-age=60", "Set-Cookie": "a=b"}, True),
        ({}, False),
        ({"Expires": "Thu, 01 Jan 2099 00:00:00 GMT"}, False),
        ({"Cache-Control": "max-age=0"}, False),
        ({"Cache-Control": "max-age=60", "Age": "60"}, False),
        ({"Cache-Control": "max-age=60", "Age": "nonsense"}, False),
        ({"Cache-Control": "max-age=60", "Vary": "*"}, False),
        ({"Cache-Control": "max-age=60, s-maxage=0"}, False),
        ({"Cache-Control": "max-age=60, no-store"}, False),
        ({"Cache-Control": "max-age=60, no-cache"}, False),
        ({"Cache-Control": "max-age=60, private"}, False),
        ({"Cache-Control": "max-age=-60"}, False),
        ({"Cache-Control": "max-age=sixty"}, False),
    ],
)
def test_an_outcome_is_kept_as_long_as_the_upstream_says(
    fetching: Process, nasty: Nasty, headers: dict[str, str], kept: bool
) -> None:
    target = nasty.fresh("/cached", **headers)
    first, second = (told(fetch(fetching, nasty.url(target))) for _ in range(2))
    assert (first["cache"], second["cache"]) == ("miss", "hit" if kept else "miss")
    assert nasty.requests(target) == (1 if kept else 2)
    if kept:
        same = ("url", "status", "size")
        assert [first[key] for key in same] == [second[key] for key in same]
        # the second one waited for nothing
        assert second["timings"] == dict.fromkeys(PHASES) | {"total": second["time_cost"]}
        assert second["time_cost"] < 0.001


def test_an_outcome_is_no_longer_kept_when_its_time_is_over(
    fetching: Process, nasty: Nasty
) -> None:
    target = nasty.fresh("/cached", **{"Cache-Control": "max-age=1"})
    assert told(fetch(fetching, nasty.url(target)))["cache"] == "miss"
    eventually(
        "it is fetched again",
        lambda: told(fetch(fetching, nasty.url(target)))["cache"] == "miss",
    )
    assert nasty.requests(target) == 2


@pytest.mark.parametrize(
    "headers",
    [
        {"Cache-Control": "no-cache"},
        {"Cache-Control": "no-store"},
        {"Cache-Control": "max-age=0"},
        {"Pragma": "no-cache"},
    ],
)
def test_who_wants_it_fresh_gets_it_fresh(
    fetching: Process, nasty: Nasty, headers: dict[str, str]
) -> None:
    target = nasty.fresh("/cached", **{"Cache-Control": "max-age=60"})
    url = nasty.url(target)
    origins = [
        told(fetch(fetching, url, wanted))["cache"] for wanted in ({}, {}, headers, headers, {})
    ]
    assert origins == ["miss", "hit", "miss", "miss", "hit"]
    assert nasty.requests(target) == 3


def test_a_page_and_json_have_the_same_outcome(fetching: Process, nasty: Nasty) -> None:
    target = nasty.fresh("/cached", **{"Cache-Control": "max-age=60"})
    told(fetch(fetching, nasty.url(target)))
    page = page_of(fetch(fetching, nasty.url(target), PAGE))
    assert any("still fresh" in text for text in page.texts["p"])
    assert nasty.requests(target) == 1


def test_a_redirect_is_kept_only_as_long_as_all_that_led_there(
    fetching: Process, nasty: Nasty
) -> None:
    cached = nasty.fresh("/cached", **{"Cache-Control": "max-age=60"})
    target = nasty.fresh("/redirects", to=cached)
    assert [told(fetch(fetching, nasty.url(target)))["cache"] for _ in range(2)] == ["miss"] * 2
    assert nasty.requests(target) == 2


def test_many_who_ask_for_the_same_at_once_share_one_request(
    fetching: Process, nasty: Nasty
) -> None:
    """Case 31."""
    target = nasty.fresh("/held")
    with ExitStack() as open_connections:
        askers = waiting(fetching, open_connections, nasty.url(target), 50)
        nasty.release(target)
        said = [told(asker.answer()) for asker in askers]
    assert sorted(each["cache"] for each in said) == ["miss"] + ["shared"] * 49
    assert {each["size"] for each in said} == {len(PLAIN)}
    assert nasty.requests(target) == 1
    # what is not to be kept is not, once it is there
    assert told(fetch(fetching, nasty.url(target)))["cache"] == "miss"


def waiting(service: Process, stack: ExitStack, url: str, many: int) -> list[Connection]:
    """Connections on which `url` was asked for, and that have been heard."""
    connections = [stack.enter_context(service.connect()) for _ in range(many + 1)]
    for connection in connections:
        assert connection.ask("GET", "/media/none/a.wav").status == 404
    *askers, last = connections
    for asker in askers:
        asker.send(request("GET", fetch_target(url)))
    for _ in range(3):  # what was sent before is read before
        assert last.ask("GET", "/media/none/a.wav").status == 404
    return askers


@pytest.mark.parametrize("leaving", [1, 9])
def test_who_asked_first_may_leave_without_ending_it_for_the_others(
    fetching: Process, nasty: Nasty, leaving: int
) -> None:
    """Case 31."""
    target = nasty.fresh("/held")
    with ExitStack() as open_connections:
        askers = waiting(fetching, open_connections, nasty.url(target), 10)
        descriptors = len(fetching.descriptors())
        for asker in askers[:leaving]:
            asker.reset()
        eventually(
            "it is seen that they left",
            lambda: len(fetching.descriptors()) <= descriptors - leaving,
        )
        nasty.release(target)
        for asker in askers[leaving:]:
            assert told(asker.answer())["cache"] == "shared"
    assert nasty.requests(target) == 1


@pytest.mark.parametrize("target", ["/hangs", "/hangs-in-content", "/drips"])
def test_when_all_have_left_the_fetch_ends(fetching: Process, nasty: Nasty, target: str) -> None:
    with fetching.unchanged_descriptors(nasty.sockets), ExitStack() as open_connections:
        url = nasty.url(target)
        askers = waiting(fetching, open_connections, url, 3)
        eventually("it is under way", lambda: nasty.busy == 1)
        for asker in askers:
            asker.reset()
        eventually("it has ended", lambda: nasty.busy == 0)


def test_who_wants_it_fresh_joins_nobody(fetching: Process, nasty: Nasty) -> None:
    target = nasty.fresh("/held")
    with ExitStack() as open_connections:
        (asker,) = waiting(fetching, open_connections, nasty.url(target), 1)
        other = open_connections.enter_context(fetching.connect())
        other.send(request("GET", fetch_target(nasty.url(target)), None, FRESH))
        eventually("there are two requests", lambda: nasty.requests(target) == 2)
        nasty.release(target)
        assert told(asker.answer())["cache"] == "miss"
        assert told(other.answer())["cache"] == "miss"


def test_a_failure_is_shared_by_those_who_waited_and_not_kept(
    fetching: Process, nasty: Nasty
) -> None:
    """Case 31."""
    target = nasty.fresh("/resets")
    for n in range(3):
        assert fetch(fetching, nasty.url(target)).brief == (502, 512)
        assert nasty.requests(target) == n + 1


# How much at once.


def test_no_more_are_fetched_at_once_than_fetch_connections_says(
    serve: Callable[..., Process], nasty: Nasty
) -> None:
    service = serve(*LOOPBACK, "--fetch-connections", "2")
    kept = nasty.url(nasty.fresh("/cached", **{"Cache-Control": "max-age=600"}))
    told(fetch(service, kept))
    targets = [nasty.fresh("/held") for _ in range(2)]
    content = f"url={quote(nasty.url('/plain'), '')}&directory=a&filename=b.wav".encode()
    with ExitStack() as open_connections:
        for target in targets:
            waiting(service, open_connections, nasty.url(target), 1)
        eventually("they are under way", lambda: nasty.busy == 2)
        for answer in (
            fetch(service, nasty.url("/plain")),
            service.ask("POST", "/media", content, {"Content-Type": URLENCODED}),
        ):
            assert answer.brief == (503, 514)
            assert int(answer.headers["Retry-After"]) > 0
        # what needs none has none to wait for
        assert told(fetch(service, kept))["cache"] == "hit"
        (joining,) = waiting(service, open_connections, nasty.url(targets[0]), 1)
        for target in targets:
            nasty.release(target)
        assert told(joining.answer())["cache"] == "shared"
    eventually("there is room", lambda: nasty.busy == 0)
    for _ in range(5):  # of the places that failures had, too
        assert fetch(service, nasty.url("/closes")).code == 512
        assert fetch(service, "http://10.0.0.1/").code == 511
    told(fetch(service, nasty.url("/plain")))
    assert service.ask("POST", "/media", content, {"Content-Type": URLENCODED}).status == 201


def test_fetches_that_hang_delay_nobody(serve: Callable[..., Process], nasty: Nasty) -> None:
    """Case 29."""
    service = serve(*LOOPBACK)
    assert service.ask("PUT", "/media/a/b.wav", b"small").status == 201
    with ExitStack() as open_connections:
        askers = [open_connections.enter_context(service.connect()) for _ in range(200)]
        for n, asker in enumerate(askers):
            asker.send(request("GET", fetch_target(nasty.url(f"/hangs?{n}"))))
        eventually("they are under way", lambda: nasty.busy == 200)
        slowest = 0.0
        for _ in range(50):
            begun = time.monotonic()
            assert service.ask("GET", "/media/a/b.wav").content == b"small"
            told(fetch(service, nasty.url("/plain")))
            slowest = max(slowest, time.monotonic() - begun)
        assert slowest < 5
        for asker in askers:
            asker.reset()
    eventually("all of them have ended", lambda: nasty.busy == 0)


def test_a_service_that_is_stopped_leaves_no_fetch_behind(tmp_path: Path, nasty: Nasty) -> None:
    """Neither at the upstream, nor as a fault in the log."""
    with ExitStack() as open_connections:
        with running(tmp_path / "area" / "media", *LOOPBACK, "--grace", "0s") as service:
            for n in range(3):
                waiting(service, open_connections, nasty.url(f"/hangs?{n}"), 2)
            eventually("they are under way", lambda: nasty.busy == 3)
        eventually("they have ended", lambda: nasty.busy == 0)


def test_a_service_may_fetch_nothing(serve: Callable[..., Process], nasty: Nasty) -> None:
    service = serve("--no-fetch", *LOOPBACK)
    target = nasty.fresh("/plain")
    assert fetch(service, nasty.url(target)).brief == (403, 403)
    assert service.ask("GET", "/fetch").brief == (403, 403)
    assert service.ask("GET", "/").brief == (404, 404)
    content = f"url={quote(nasty.url(target), '')}&directory=a&filename=b.wav".encode()
    with service.unchanged(nasty.sockets):
        answer = service.ask("POST", "/media", content, {"Content-Type": URLENCODED})
        assert answer.brief == (403, 403)
    assert nasty.requests(target) == 0


@contextmanager
def encrypted_upstream(certificate: Path) -> Iterator[str]:
    """The URL of one that answers every connection in the same way."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            with contextlib.suppress(OSError):  # a client that does not trust, or the end
                while True:
                    connection, _ = listening.accept()
                    with (
                        contextlib.suppress(ssl.SSLError),
                        context.wrap_socket(connection, server_side=True) as tls,
                    ):
                        tls.recv(4096)
                        tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield f"https://localhost:{listening.getsockname()[1]}/"
        finally:
            listening.shutdown(socket.SHUT_RDWR)  # which ends accept()
            thread.join()


@pytest.mark.parametrize("is_named", [True, False])
def test_the_authorities_are_those_of_the_file_that_a_variable_names(
    tmp_path: Path, is_named: bool
) -> None:
    certificate = tmp_path / "authority.pem"
    certificate.write_bytes(Authority("localhost").pem)
    more = {"SSL_CERT_FILE": str(certificate)} if is_named else {}
    with (
        encrypted_upstream(certificate) as url,
        running(tmp_path / "area" / "media", "--fetch-allow", "localhost", more=more) as service,
    ):
        answer = fetch(service, url)
        expected = (200, 200) if is_named else (502, 512)
        assert (answer.status, answer.json["code"]) == expected
