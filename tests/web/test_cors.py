"""Pages of other origins may not do or read anything, unless the operator has named the origin."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.http.connection import Answer, Connection, result
from tests.web.test_csrf import LOOPBACK
from tests.web.test_tus_uploads import NAMED, PART, TUS, WHOLE, Service
from twistedmedia.web.cross_site import CsrfPolicy, parse_origins

APP = "https://app.example"
OTHER_APP = "http://localhost:3000"
CAPACITOR = "capacitor://localhost"
FROM_APP = f"Origin: {APP}"
ASKING = ("Access-Control-Request-Method: PATCH",)
FOREIGN = [
    *("http://app.example", "https://app.example:444", "https://app.example.evil.example"),
    *("https://evil.example", "https://xapp.example", "HTTPS://APP.EXAMPLE", "null", ""),
    *(f"{APP}, {APP}", f"{APP}/", "*", "\xff"),
    *("capacitor://localhost:80", "ionic://localhost", "localhost", "capacitor://", "file://"),
]


@pytest.fixture
def service() -> Service:
    """A service with three allowed origins."""
    return Service(CsrfPolicy(origins=frozenset({APP, OTHER_APP, CAPACITOR})))


def shared(answer: Answer) -> dict[str, str]:
    """The CORS headers of a response."""
    return {
        name: value for name, value in answer.headers.items() if name.startswith("access-control-")
    }


def listed(value: str) -> set[str]:
    return set(value.lower().split(", "))


# Parsing origins


@pytest.mark.parametrize(
    ("texts", "origins"),
    [
        ([], set()),
        (["", "  "], set()),
        (["https://app.example"], {"https://app.example"}),
        ([" https://app.example "], {"https://app.example"}),
        (["https://app.example/"], {"https://app.example"}),
        (["HTTPS://App.Example"], {"https://app.example"}),
        (["https://app.example:443", "http://app:80"], {"https://app.example", "http://app"}),
        (["https://app.example:80"], {"https://app.example:80"}),
        (["http://localhost:3000"], {"http://localhost:3000"}),
        (["http://[::1]:81", "http://127.0.0.1"], {"http://[::1]:81", "http://127.0.0.1"}),
        ([APP, OTHER_APP, APP], {APP, OTHER_APP}),
        # Case 58: web views of apps, browsers' extensions
        (["capacitor://localhost", "ionic://localhost/"], {CAPACITOR, "ionic://localhost"}),
        (["Capacitor://LocalHost"], {CAPACITOR}),
        (["capacitor://localhost:80"], {"capacitor://localhost:80"}),
        (["chrome-extension://abcdefghijklmnop"], {"chrome-extension://abcdefghijklmnop"}),
        (["moz-extension://6f1c-4b"], {"moz-extension://6f1c-4b"}),
        (["http://localhost:8080", "app+x.1-y://a"], {"http://localhost:8080", "app+x.1-y://a"}),
    ],
)
def test_an_origin_is_parsed_to_what_browsers_send(texts: list[str], origins: set[str]) -> None:
    assert parse_origins(texts) == origins


NO_ORIGINS = [
    *("*", "null", "app.example", "//app.example", "https://", "https:///", "a"),
    *("file://", "file:///", "1a://b", "a_b://c", "capacitor:localhost", "://a", "data:,"),
    *("https://app.example/path", "https://app.example//", "https://a?b", "https://a#"),
    *("https://me@app.example", "https://*.app.example", "https://app.example:", "https://a:x"),
    *("https://a:123456", "https://a b", "https://a\nb", "https://ü.example", "https://[::1"),
]


def test_a_text_that_is_not_an_origin_is_refused() -> None:
    """Case 41."""
    for text in NO_ORIGINS:
        with pytest.raises(ValueError, match="is not an origin; write it like"):
            parse_origins([APP, text])


@settings(max_examples=200)
@given(st.text() | st.from_regex(r"[a-z]{1,9}://[a-z.:/\[\]0-9@*-]{0,20}", fullmatch=True))
def test_any_text_is_an_origin_or_is_refused(text: str) -> None:
    try:
        origins = parse_origins([text])
    except ValueError:
        return
    assert parse_origins(origins) == origins
    for origin in origins:
        assert re.match("[a-z][a-z0-9+.-]*://", origin)
        assert "*" not in origin
        assert "/" not in origin.partition("://")[2]


# By default


@pytest.mark.parametrize("target", ["/health", "/uploads", "/media/a/b.mp3", "/nowhere"])
def test_by_default_no_response_has_cors_headers(target: str) -> None:
    service = Service()
    for method in ("GET", "OPTIONS", "HEAD"):
        for origin in (APP, "http://localhost", "null"):
            answer = service.ask(method, target, TUS, f"Origin: {origin}", *ASKING)
            assert shared(answer) == {}
            assert "vary" not in answer.headers


# Preflight requests


@pytest.mark.parametrize(
    ("origin", "target"),
    [
        (APP, "/uploads"),
        (OTHER_APP, "/uploads/" + "0" * 32),
        (APP, "/media/a/b.mp3"),
        (CAPACITOR, "/uploads"),
    ],
)
def test_a_page_of_an_allowed_origin_may_make_requests(
    service: Service, target: str, origin: str
) -> None:
    answer = service.ask("OPTIONS", target, f"Origin: {origin}", *ASKING)
    assert (answer.status, answer.content) == (204, b"")
    said = shared(answer)
    assert said["access-control-allow-origin"] == origin
    methods = listed(said["access-control-allow-methods"])
    assert methods == {"get", "head", "post", "put", "patch", "delete"}
    assert listed(said["access-control-allow-headers"]) >= {
        "content-type",
        "range",
        "repr-digest",
        "tus-resumable",
        "upload-checksum",
        "upload-defer-length",
        "upload-length",
        "upload-metadata",
        "upload-offset",
        "x-http-method-override",
        "x-requested-with",
    }
    assert int(said["access-control-max-age"]) > 0
    assert "access-control-allow-credentials" not in said
    assert answer.headers["vary"] == "Origin"


@pytest.mark.parametrize("target", ["/uploads", "/media/a/b.mp3", "/media"])
@pytest.mark.parametrize(
    "names",
    [
        "authorization",
        "baggage,sentry-trace",
        "authorization, baggage, content-type, sentry-trace, traceparent, x-b3-traceid",
        "\tX-Own ,, x~!#$%&'+.^_`|y ",
        ",".join(f"x-{n}" for n in range(64)),
        "x" * 128,
    ],
)
def test_a_page_of_an_allowed_origin_may_send_the_headers_that_it_requests(
    service: Service, names: str, target: str
) -> None:
    """Case 63."""
    asked = f"Access-Control-Request-Headers: {names}"
    said = shared(service.ask("OPTIONS", target, FROM_APP, *ASKING, asked))
    granted = listed(said["access-control-allow-headers"])
    wanted = {name.strip().lower() for name in names.split(",")} - {""}
    assert granted >= wanted | {"content-type", "tus-resumable"}


@pytest.mark.parametrize(
    "names",
    ["*", "a b", "a:b", 'a"b', "a;b", "é", "\xff", "a/b", "a\tb", "x" * 129, "(a)", "<a>", "a\\b"],
)
def test_an_invalid_header_name_is_not_granted(service: Service, names: str) -> None:
    """Case 35: a response repeats nothing of the client but header names."""
    asked = f"Access-Control-Request-Headers: {names}, x-good"
    said = shared(service.ask("OPTIONS", "/uploads", FROM_APP, *ASKING, asked))
    none = shared(service.ask("OPTIONS", "/uploads", FROM_APP, *ASKING))
    granted = none["access-control-allow-headers"] + ", x-good"
    assert said == {**none, "access-control-allow-headers": granted}


def test_the_number_of_granted_headers_is_limited(service: Service) -> None:
    names = ",".join(f"x-{n}" for n in range(1000))
    asked = f"Access-Control-Request-Headers: {names}, x-1"
    said = shared(service.ask("OPTIONS", "/uploads", FROM_APP, *ASKING, asked))
    assert sum(n.startswith("x-") for n in listed(said["access-control-allow-headers"])) < 70


def test_a_page_of_any_other_origin_is_granted_no_header(service: Service) -> None:
    asked = "Access-Control-Request-Headers: authorization"
    answer = service.ask("OPTIONS", "/uploads", "Origin: https://evil.example", *ASKING, asked)
    assert shared(answer) == {}


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_other_headers_of_the_browser_do_not_matter_then(service: Service, site: str) -> None:
    headers = (FROM_APP, f"Sec-Fetch-Site: {site}", "Sec-Fetch-Mode: cors")
    assert service.ask("OPTIONS", "/uploads", *headers, *ASKING).status == 204
    answer = service.ask("POST", "/uploads", TUS, NAMED, "Upload-Length: 11", *headers)
    assert answer.status == 201


@pytest.mark.parametrize("target", ["/uploads", "/media/a/b.mp3", "/health"])
def test_a_page_of_another_origin_gets_no_cors_headers(service: Service, target: str) -> None:
    """Case 41."""
    for origin in FOREIGN:
        answer = service.ask("OPTIONS", target, f"Origin: {origin}", *ASKING)
        assert shared(answer) == {}, origin
        assert answer.headers["vary"] == "Origin"


def test_two_origins_are_not_allowed(service: Service) -> None:
    answer = service.ask("OPTIONS", "/uploads", FROM_APP, f"Origin: {OTHER_APP}", *ASKING)
    assert shared(answer) == {}


def test_options_without_a_preflight_have_the_usual_response(service: Service) -> None:
    answer = service.ask("OPTIONS", "/uploads", FROM_APP)
    assert (answer.status, answer.headers["tus-version"]) == (204, "1.0.0")
    assert shared(answer)["access-control-allow-origin"] == APP
    assert "access-control-allow-methods" not in shared(answer)


def test_a_preflight_changes_nothing(service: Service) -> None:
    upload = service.created()
    headers = (TUS, PART, "Upload-Offset: 0", "X-HTTP-Method-Override: DELETE")
    answer = service.ask("OPTIONS", upload, *headers, FROM_APP, *ASKING)
    assert answer.status == 204
    assert service.offset(upload) == 0


# Requests after the preflight


def test_a_page_of_an_allowed_origin_uploads_and_reads_the_offset(service: Service) -> None:
    headers = (TUS, FROM_APP, "Sec-Fetch-Site: cross-site")
    answers = [service.ask("POST", "/uploads", *headers, NAMED, "Upload-Length: 11")]
    upload = answers[0].headers["location"]
    part = (PART, "Upload-Offset: 0")
    answers.append(service.ask("PATCH", upload, *headers, *part, content=WHOLE))
    answers.append(service.ask("HEAD", upload, *headers))
    answers.append(service.ask("DELETE", upload, *headers))
    answers.append(service.ask("DELETE", "/media/prompts/en/hello.mp3", *headers))
    assert [answer.status for answer in answers] == [201, 204, 200, 204, 200]
    for answer in answers:
        said = shared(answer)
        assert said["access-control-allow-origin"] == APP
        assert answer.headers["vary"] == "Origin"
        assert listed(said["access-control-expose-headers"]) >= {
            "content-location",
            "etag",
            "location",
            "tus-resumable",
            "upload-expires",
            "upload-length",
            "upload-metadata",
            "upload-offset",
        }


@pytest.mark.parametrize(
    ("method", "target", "headers", "status"),
    [
        ("PATCH", "/uploads/" + "0" * 32, (TUS, PART, "Upload-Offset: 0"), 404),
        ("PATCH", "/uploads/" + "0" * 32, (PART, "Upload-Offset: 0"), 412),
        ("PATCH", "/uploads/" + "0" * 32, (TUS,), 415),
        ("POST", "/uploads", (TUS,), 400),
        ("POST", "/uploads", (TUS, "Expect: the impossible"), 417),
        ("GET", "/nowhere", (), 404),
        ("GET", "/media/%FF/x.mp3", (), 400),
        ("PUT", "/health", (), 405),
    ],
)
def test_a_page_of_an_allowed_origin_reads_why_it_is_refused(
    service: Service, method: str, target: str, headers: tuple[str, ...], status: int
) -> None:
    answer = service.ask(method, target, *headers, FROM_APP)
    assert answer.status == status
    assert shared(answer)["access-control-allow-origin"] == APP
    assert "retry-after" in listed(shared(answer)["access-control-expose-headers"])
    assert answer.headers["vary"] == "Origin"


@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE"])
def test_a_page_of_another_origin_changes_nothing_and_reads_nothing(
    service: Service, method: str
) -> None:
    """Case 41."""
    upload = service.created()
    target = "/uploads" if method == "POST" else upload
    headers = (TUS, PART, NAMED, "Upload-Length: 11", "Upload-Offset: 0")
    for origin in FOREIGN:
        answer = service.ask(method, target, *headers, f"Origin: {origin}")
        assert (answer.status, json.loads(answer.content)["code"]) == (403, 403), origin
        assert shared(answer) == {}
    assert service.offset(upload) == 0
    assert len(result(service.store.resumable.callers())) == 1


@pytest.mark.parametrize("origin", [None, "https://evil.example"])
def test_a_cached_response_is_for_its_origin_only(service: Service, origin: str | None) -> None:
    """Otherwise a cache would give the response for one origin to another."""
    service.store_other(WHOLE)
    headers = [] if origin is None else [f"Origin: {origin}"]
    answer = service.ask("GET", "/media/prompts/en/hello.mp3", *headers)
    assert (answer.status, answer.content, shared(answer)) == (200, WHOLE, {})
    assert answer.headers["vary"] == "Origin"


def test_a_304_has_cors_headers_too(service: Service) -> None:
    service.store_other(WHOLE)
    url = "/media/prompts/en/hello.mp3"
    etag = service.ask("GET", url, FROM_APP).headers["etag"]
    answer = service.ask("GET", url, FROM_APP, f"If-None-Match: {etag}")
    assert (answer.status, answer.headers["vary"]) == (304, "Origin")
    assert shared(answer)["access-control-allow-origin"] == APP


def test_a_foreign_host_is_refused_for_an_allowed_origin_as_well(
    service: Service,
) -> None:
    """Case 40: an allowed origin does not excuse DNS rebinding."""
    for host, expected in (("localhost", 200), ("evil.example", 403)):
        at = Connection(service.site, service.clock, None, LOOPBACK, LOOPBACK)
        at.send(f"GET /health HTTP/1.1\r\nHost: {host}\r\n{FROM_APP}\r\n\r\n".encode())
        assert at.statuses() == [expected]
        at.leave()
