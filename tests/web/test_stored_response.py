"""The responses to uploads, by the outcomes of their files (docs/http.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import named
from tests.test_json_response import payload_of
from twistedmedia.errors import AlreadyExists, MediaError, NameNotAllowed
from twistedmedia.json_response import Response
from twistedmedia.names import MediaName
from twistedmedia.store.interface import StoredFile
from twistedmedia.web.uploads import stored_response


@dataclass
class Ended:
    """An ended upload, with the attributes that a response needs."""

    directory: str
    filename: str
    stored: StoredFile | None = None
    failure: MediaError | None = None
    identical: bool = False
    replacing: object = None
    problem: str | None = None


def ended(path: str, size: int, sha256: str, etag: str) -> Ended:
    name = named(path)
    return Ended(name.directory, name.filename, StoredFile(name, size, sha256, etag))


HELLO = ended("prompts/en/hello.mp3", 81920, "5a" * 32, '"14000-17f"')
EMPTY = ended("a/empty.wav", 0, "e3" * 32, '"0-17f"')
TAKEN = Ended("a", "b.mp3", failure=AlreadyExists())
HOSTILE = Ended("..", "<b>\n\0\u2028.mp3", failure=NameNotAllowed("it begins with a dot"))


def url_of(name: MediaName) -> str:
    return f"/mounted/{name.url_path}"


def response_to(uploads: Any) -> Response:
    return stored_response(uploads, url_of)


def test_one_stored_file_gives_a_201_with_its_location() -> None:
    response = response_to([HELLO])
    assert response.status == 201
    assert response.headers["Location"] == "/mounted/prompts/en/hello.mp3"
    assert "Cache-Control" not in response.headers
    assert payload_of(response) == {
        "code": 200,
        "reason": "OK",
        "files": [
            {
                "code": 200,
                "reason": "OK",
                "directory": "prompts/en",
                "filename": "hello.mp3",
                "url": "/mounted/prompts/en/hello.mp3",
                "size": 81920,
                "sha256": "5a" * 32,
                "etag": '"14000-17f"',
            }
        ],
    }


def test_several_stored_files_give_a_201_in_order_without_a_location() -> None:
    response = response_to([HELLO, EMPTY])
    payload = payload_of(response)
    assert (response.status, payload["code"], payload["reason"]) == (201, 200, "OK")
    assert [file["filename"] for file in payload["files"]] == ["hello.mp3", "empty.wav"]
    assert payload["files"][1]["size"] == 0
    assert "Location" not in response.headers


@pytest.mark.parametrize(
    ("files", "status", "code", "codes"),
    [
        ([TAKEN], 409, 501, [501]),
        ([HOSTILE], 400, 505, [505]),
        ([TAKEN, HOSTILE], 409, 501, [501, 505]),
        ([HOSTILE, TAKEN], 400, 505, [505, 501]),
        ([HELLO, TAKEN], 207, 501, [200, 501]),
        ([TAKEN, HELLO], 207, 501, [501, 200]),
        ([HELLO, HOSTILE, EMPTY, TAKEN], 207, 505, [200, 505, 200, 501]),
    ],
    ids=lambda value: None if isinstance(value, int) else f"{len(value)} files",
)
def test_if_files_failed_the_first_failure_is_at_the_top(
    files: list[Ended], status: int, code: int, codes: list[int]
) -> None:
    response = response_to(files)
    payload = payload_of(response)
    assert (response.status, payload["code"]) == (status, code)
    assert [file["code"] for file in payload["files"]] == codes
    first = next(file for file in payload["files"] if file["code"] != 200)
    assert payload["reason"] == first["reason"] != "OK"
    assert "Location" not in response.headers


def test_a_failed_file_has_the_names_that_were_sent_and_no_url() -> None:
    """Case 35."""
    (entry,) = payload_of(response_to([HOSTILE]))["files"]
    assert entry == {
        "code": 505,
        "reason": "the name is not allowed: it begins with a dot",
        "directory": "..",
        "filename": "<b>\n\0\u2028.mp3",
    }


@settings(max_examples=200)
@given(st.text(), st.text(st.sampled_from('"\\\n\r\0\u2028<ü🎵')))
def test_any_text_of_a_client_is_returned_unchanged(directory: str, filename: str) -> None:
    """Case 35."""
    outcome = Ended(directory, filename, failure=NameNotAllowed(filename))
    payload = payload_of(response_to([outcome]))
    (entry,) = payload["files"]
    assert (entry["directory"], entry["filename"]) == (directory, filename)
    assert payload["reason"] == f"the name is not allowed: {filename}"


def test_a_lone_surrogate_does_not_prevent_a_response() -> None:
    """Case 35."""
    response = response_to([Ended("a\ud800", "b", failure=AlreadyExists())])
    assert payload_of(response)["files"][0]["directory"] == "a\ud800"
