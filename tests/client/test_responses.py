"""Parsing of responses, from the service and from other servers."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twistedmedia import errors
from twistedmedia.client.exceptions import InvalidResponse
from twistedmedia.client.outcomes import fetched, page, stored
from twistedmedia.client.responses import (
    ServiceResponse,
    content_range,
    count,
    declared_digest,
    refusal,
    strong_etag,
)

URL = "http://e/media/prompts/a%20b%40"
quick = settings(max_examples=60)

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def test_a_refusal_of_the_service_has_its_code_and_reason() -> None:
    content = json.dumps({"code": 500, "reason": "internal error", "incident": "abc"}).encode()
    error = refusal(
        ServiceResponse(500, {"retry-after": "3"}, content), URL, "Internal Server Error", 0
    )
    assert (error.status, error.code, error.reason) == (500, 500, "internal error")
    assert (error.incident, error.retry_after_s, error.is_from_service) == ("abc", 3, True)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>",
        b"[1]",
        b'{"code": 512}',
        b'{"code": "512", "reason": "x"}',
        b'{"code": true, "reason": "x"}',
        b"\xff\xfe\xff",
    ],
)
def test_a_refusal_of_another_server_has_its_status(content: bytes) -> None:
    error = refusal(ServiceResponse(502, {}, content), URL, "Bad Gateway", 0)
    assert (error.status, error.code, error.reason) == (502, None, "HTTP 502 Bad Gateway")
    assert not error.is_from_service


def kinds() -> list[type[errors.MediaError]]:
    """All failures that the service can send."""
    found = [errors.MediaError]
    for kind in found:
        found += [each for each in kind.__subclasses__() if each.__module__ == errors.__name__]
    return found[1:]


@pytest.mark.parametrize(
    ("status", "location", "told"),
    [
        (307, "./a%20b%40/", (409, 409, "a directory has this name")),
        (307, "./a%20b@/", (409, 409, "a directory has this name")),
        (307, "./en/", (307, None, "leads to ./en/")),
        (307, "./", (307, None, "leads to ./")),
        (307, "https://e/", (307, None, "leads to https://e/")),
        (301, "https://e/media/a.wav", (301, None, "leads to https://e/media/a.wav")),
        (301, "./en/", (301, None, "leads to ./en/")),
        (307, None, (307, None, "HTTP 307 Said So")),
        (404, "./en/", (404, None, "HTTP 404 Said So")),
    ],
)
def test_a_redirect_has_its_target_in_the_reason(
    status: int, location: str | None, told: tuple[int, int | None, str]
) -> None:
    headers = {} if location is None else {"location": location}
    error = refusal(ServiceResponse(status, headers), URL, "Said So", 0)
    assert (error.status, error.code) == told[:2]
    assert error.reason.endswith(told[2])


@pytest.mark.parametrize("kind", kinds())
def test_every_failure_of_the_service_is_understood(kind: type[errors.MediaError]) -> None:
    content = json.dumps({"code": kind.code, "reason": "because"}).encode()
    error = refusal(ServiceResponse(kind.status, {}, content), URL, "Said So", 0)
    assert (error.code, error.reason, error.is_from_service) == (kind.code, "because", True)


def test_the_codes_are_those_of_the_documentation() -> None:
    """docs/http.md has a table of the codes and their statuses."""
    page = (Path(__file__).parents[2] / "docs/http.md").read_text()
    table = page.split("| code | HTTP | meaning |")[1].split("\n\n")[0]
    told: dict[int, set[int]] = {}
    for row in table.splitlines()[2:]:
        codes, statuses = row.split("|")[1:3]
        for code in map(int, codes.split()):
            same = statuses.strip() == "same"
            told[code] = {code} if same else {int(each) for each in statuses.split(",")}
    del told[200]
    ours: dict[int, set[int]] = {}
    for kind in kinds():
        ours.setdefault(kind.code, set()).add(kind.status)
    assert ours == told


@quick
@given(st.integers(400, 599), st.binary() | anything.map(lambda it: json.dumps(it).encode()))
def test_any_refusal_is_an_error_with_its_status(status: int, content: bytes) -> None:
    error = refusal(ServiceResponse(status, {}, content), URL, "", 0)
    assert error.status == status
    assert isinstance(error.reason, str)


@quick
@given(anything)
def test_any_response_is_parsed_or_invalid(payload: object) -> None:
    content = {"files": payload, "entries": payload, "next": None, "timings": payload}
    for understand in (
        lambda: stored(content, "http://e/"),
        lambda: stored({"files": [payload]}, "http://e/"),
        lambda: page(content, "a"),
        lambda: page({"entries": [payload], "next": payload}, "a"),
        lambda: fetched(content),
        lambda: ServiceResponse(200, {}, json.dumps(payload).encode()).payload,
    ):
        with contextlib.suppress(InvalidResponse):
            understand()


@pytest.mark.parametrize(
    ("field", "found"),
    [
        ("bytes 0-9/10", (0, 10)),
        ("bytes 5-9/10", (5, 10)),
        ("BYTES 5-9/10", (5, 10)),
        ("bytes 5-9/*", (5, None)),
        ("bytes 5-8/10", None),
        ("bytes 9-5/10", None),
        ("bytes 5-10/10", None),
        ("bytes */10", None),
        ("bytes 5-9", None),
        ("5-9/10", None),
        ("", None),
        ("bytes ٥-9/10", None),
    ],
)
def test_a_content_range_goes_to_the_end(field: str, found: object) -> None:
    headers = {"content-range": field}
    if found is None:
        with pytest.raises(InvalidResponse):
            content_range(headers)
    else:
        assert content_range(headers) == found


def test_a_count_has_only_digits() -> None:
    assert count({"upload-offset": "12"}, "Upload-Offset") == 12
    assert count({}, "Upload-Offset") is None
    for field in ("", "-1", "1.0", "0x1", "1_0", "٣", "9" * 20, "1, 1"):
        with pytest.raises(InvalidResponse):
            count({"upload-offset": field}, "Upload-Offset")


@pytest.mark.parametrize(
    ("field", "etag"),
    [('"a"', '"a"'), ('""', '""'), ('W/"a"', None), ("a", None), ('"', None), ("", None)],
)
def test_only_a_strong_entity_tag_is_used(field: str, etag: str | None) -> None:
    assert strong_etag({"etag": field}) == etag


def test_an_invalid_digest_is_ignored() -> None:
    assert declared_digest({"repr-digest": f"sha-256=:{'A' * 43}=:"}) == "0" * 64
    for field in ("sha-256=:AA==:", "sha-256", "((", "md5=:AAAA:"):
        assert declared_digest({"repr-digest": field}) is None
    assert declared_digest({}) is None
