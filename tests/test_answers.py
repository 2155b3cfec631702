"""Errors and answers: the table of docs/http.md, Responses, row by row."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import named
from twistedmedia.answers import Answer, FileOutcome, deleted_answer, error_answer, stored_answer
from twistedmedia.errors import (
    AddressRefused,
    AlreadyExists,
    BadRequest,
    Busy,
    ChecksumMismatch,
    DigestMismatch,
    EmptyUpload,
    ExpectationFailed,
    Forbidden,
    FormatNotSupported,
    GaveWay,
    HeadTooLarge,
    InternalError,
    IsDirectory,
    Locked,
    Malformed,
    MediaError,
    MethodNotAllowed,
    MissingArgument,
    NameConflict,
    NameNotAllowed,
    NameTaken,
    NoSpace,
    NotAudio,
    NotFound,
    PreconditionFailed,
    RangeNotSatisfiable,
    StillEnding,
    Stopping,
    StorageFailed,
    Superseded,
    TargetTooLong,
    TooLarge,
    TooManyConnections,
    TooManyUnfinished,
    TooSlow,
    UnsupportedContent,
    UnsupportedVersion,
    UpstreamBrokeOff,
    UpstreamFailed,
    UpstreamTooSlow,
    WrongOffset,
)
from twistedmedia.names import MediaName

# An error, its code, its HTTP status, and words that its reason has to hold.
ERRORS = [
    (BadRequest("it makes no sense"), 400, 400, "it makes no sense"),
    (NotFound(), 404, 404, "no such media"),
    (MethodNotAllowed(["PUT", "GET"]), 405, 405, "GET, PUT"),
    (NameConflict("a directory has that name"), 409, 409, "a directory has that name"),
    (PreconditionFailed(), 412, 412, "the file is not the one that is meant"),
    (IsDirectory(), 404, 404, "there is no such media"),
    (DigestMismatch(), 508, 400, "the digest does not match the content"),
    (
        NotAudio("the file is empty"),
        509,
        422,
        "not the audio that the name promises: the file is empty",
    ),
    (UnsupportedContent("send a form"), 415, 415, "send a form"),
    (RangeNotSatisfiable(10), 416, 416, "10 bytes"),
    (ExpectationFailed(), 417, 417, "100-continue"),
    (InternalError("c0ffee"), 500, 500, "internal error"),
    (AlreadyExists(), 501, 409, "exists already"),
    (EmptyUpload(), 502, 400, "empty"),
    (MissingArgument("directory"), 503, 400, "'directory' is missing"),
    (FormatNotSupported(["wav", "mp3"]), 504, 415, "mp3, wav"),
    (NameNotAllowed("it is not UTF-8"), 505, 400, "it is not UTF-8"),
    (TooLarge(2048), 506, 413, "limit of 2048 bytes"),
    (NoSpace(), 507, 507, "no space"),
    (Malformed("it ends in part 3"), 510, 400, "it ends in part 3"),
    (Forbidden("this service fetches nothing"), 403, 403, "fetches nothing"),
    (AddressRefused(), 511, 403, "that address may not be fetched"),
    (UpstreamFailed("refuses the connection"), 512, 502, "the upstream refuses the connection"),
    (UpstreamBrokeOff(7), 512, 502, "the upstream broke off after 7 bytes"),
    (UpstreamTooSlow("it drips"), 513, 504, "the upstream took too long: it drips"),
    (Busy(5), 514, 503, "5 s"),
    (Stopping(5), 514, 503, "the service is stopping; try again in 5 s"),
    (StorageFailed("written", "read-only file system"), 515, 503, "written: read-only file system"),
    (TooSlow("the content"), 408, 408, "the content took too long to come"),
    (GaveWay(), 408, 408, "this was one of the slowest requests; try again with fewer"),
    (TargetTooLong(16384), 414, 414, "longer than 16384 bytes"),
    (TooManyConnections(5), 429, 429, "from your address; try again in 5 s"),
    (HeadTooLarge("256 lines"), 431, 431, "more than 256 lines"),
    (WrongOffset(5), 409, 409, "goes on at byte 5"),
    (NameTaken(), 501, 410, "exists already"),
    (ChecksumMismatch(), 508, 460, "nothing of this part was kept"),
    (Superseded(), 409, 409, "a newer request"),
    (Locked(), 423, 423, "a newer request"),
    (StillEnding(), 409, 409, "an older request"),
    (UnsupportedVersion("1.0.0"), 412, 412, "that is spoken: 1.0.0"),
    (TooManyUnfinished(1000), 429, 429, "1000 unfinished uploads from your address"),
]

JUDGEMENT = [  # docs/http.md, Which reason is reported, as far as it can be judged yet
    Malformed,
    MissingArgument,
    NameNotAllowed,
    FormatNotSupported,
    TooLarge,
    NoSpace,
    AlreadyExists,
]

HELLO = FileOutcome(
    "prompts/en", "hello.mp3", named("prompts/en/hello.mp3"), 81920, "5a" * 32, '"14000-17f"'
)
EMPTY = FileOutcome("a", "empty.wav", named("a/empty.wav"), 0, "e3" * 32, '"0-17f"')
TAKEN = FileOutcome("a", "b.mp3", named("a/b.mp3"), failure=AlreadyExists())
HOSTILE = FileOutcome("..", "<b>\n\0\u2028.mp3", failure=NameNotAllowed("it begins with a dot"))


def url_of(name: MediaName) -> str:
    return f"/mounted/{name.url_path}"


def payload_of(answer: Answer) -> Any:
    """What a client gets, once it is sure that it is one line of JSON."""
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.body.count(b"\n") == 1
    assert answer.body.endswith(b"}\n")
    return json.loads(answer.body)


def kinds_of(error: type[MediaError]) -> Iterator[type[MediaError]]:
    for kind in error.__subclasses__():
        yield kind
        yield from kinds_of(kind)


@pytest.mark.parametrize(("error", "code", "status", "words"), ERRORS)
def test_an_error_is_answered_with_its_code_its_status_and_a_reason(
    error: MediaError, code: int, status: int, words: str
) -> None:
    answer = error_answer(error)
    payload = payload_of(answer)
    assert (answer.status, payload["code"]) == (status, code)
    assert payload["reason"] == error.reason == str(error)
    assert words in payload["reason"]
    assert answer.headers["Cache-Control"] == "no-store"


def test_every_error_that_a_caller_can_be_told_is_in_the_table() -> None:
    assert {type(error) for error, *_ in ERRORS} == set(kinds_of(MediaError))


@pytest.mark.parametrize(
    ("error", "name", "value"),
    [
        (MethodNotAllowed({"PUT", "HEAD", "GET"}), "Allow", "GET, HEAD, PUT"),
        (RangeNotSatisfiable(0), "Content-Range", "bytes */0"),
        (RangeNotSatisfiable(1 << 32), "Content-Range", "bytes */4294967296"),
        (Busy(7), "Retry-After", "7"),
        (Stopping(7), "Retry-After", "7"),
        (StorageFailed("read", "it does not answer"), "Retry-After", "5"),
        (TooManyConnections(7), "Retry-After", "7"),
        (TooSlow("the content"), "Connection", "close"),
        (GaveWay(), "Connection", "close"),
        (GaveWay(), "Retry-After", "5"),
        (UnsupportedVersion("1.0.0"), "Tus-Version", "1.0.0"),
    ],
)
def test_an_error_carries_the_header_that_says_what_to_do(
    error: MediaError, name: str, value: str
) -> None:
    assert error_answer(error).headers[name] == value


def test_an_internal_error_tells_its_incident_and_nothing_else() -> None:
    assert payload_of(error_answer(InternalError("c0ffee"))) == {
        "code": 500,
        "reason": "internal error; the incident's id is in the service's log",
        "incident": "c0ffee",
    }


def test_a_missing_argument_can_come_with_a_hint() -> None:
    error = MissingArgument("directory", "it is the name of the field")
    assert error.reason == "the argument 'directory' is missing: it is the name of the field"


def test_of_several_failures_the_one_judged_first_has_the_lowest_rank() -> None:
    ranks = [error.rank for error in JUDGEMENT]
    assert ranks == sorted(set(ranks))


def test_failures_that_are_judged_together_have_one_rank() -> None:
    assert EmptyUpload.rank == MissingArgument.rank
    assert NameConflict.rank == AlreadyExists.rank == NameTaken.rank
    assert ChecksumMismatch.rank == DigestMismatch.rank


def test_one_stored_file_is_a_201_that_says_where_it_is() -> None:
    answer = stored_answer([HELLO], url_of)
    assert answer.status == 201
    assert answer.headers["Location"] == "/mounted/prompts/en/hello.mp3"
    assert "Cache-Control" not in answer.headers
    assert payload_of(answer) == {
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


def test_several_stored_files_are_a_201_in_their_order_without_a_location() -> None:
    answer = stored_answer([HELLO, EMPTY], url_of)
    payload = payload_of(answer)
    assert (answer.status, payload["code"], payload["reason"]) == (201, 200, "OK")
    assert [file["filename"] for file in payload["files"]] == ["hello.mp3", "empty.wav"]
    assert payload["files"][1]["size"] == 0
    assert "Location" not in answer.headers


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
def test_where_files_failed_the_first_failure_is_told_at_the_top(
    files: list[FileOutcome], status: int, code: int, codes: list[int]
) -> None:
    answer = stored_answer(files, url_of)
    payload = payload_of(answer)
    assert (answer.status, payload["code"]) == (status, code)
    assert [file["code"] for file in payload["files"]] == codes
    first = next(file for file in payload["files"] if file["code"] != 200)
    assert payload["reason"] == first["reason"] != "OK"
    assert "Location" not in answer.headers


def test_a_failed_file_is_told_by_the_names_that_were_sent_and_has_no_url() -> None:
    """Case 35."""
    (entry,) = payload_of(stored_answer([HOSTILE], url_of))["files"]
    assert entry == {
        "code": 505,
        "reason": "the name is not allowed: it begins with a dot",
        "directory": "..",
        "filename": "<b>\n\0\u2028.mp3",
    }


@pytest.mark.parametrize("deleted", [True, False])
def test_a_delete_says_whether_there_was_such_a_file(deleted: bool) -> None:
    answer = deleted_answer(deleted)
    assert answer.status == 200
    assert payload_of(answer) == {"code": 200, "reason": "OK", "deleted": deleted}


def test_an_answer_cannot_be_taken_for_anything_but_json() -> None:
    """Case 36."""
    assert error_answer(NotFound()).headers["X-Content-Type-Options"] == "nosniff"


@settings(max_examples=200, deadline=None)
@given(st.text(), st.text(st.sampled_from('"\\\n\r\0\u2028<ü🎵')))
def test_any_text_of_a_client_comes_back_as_it_was_sent(directory: str, filename: str) -> None:
    """Case 35."""
    outcome = FileOutcome(directory, filename, failure=NameNotAllowed(filename))
    payload = payload_of(stored_answer([outcome], url_of))
    (entry,) = payload["files"]
    assert (entry["directory"], entry["filename"]) == (directory, filename)
    assert payload["reason"] == f"the name is not allowed: {filename}"


def test_a_lone_surrogate_does_not_keep_an_answer_from_being_sent() -> None:
    """Case 35."""
    answer = stored_answer([FileOutcome("a\ud800", "b", failure=AlreadyExists())], url_of)
    assert payload_of(answer)["files"][0]["directory"] == "a\ud800"
