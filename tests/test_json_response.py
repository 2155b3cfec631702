"""Errors as JSON: the table of docs/http.md, row by row."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

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
from twistedmedia.json_response import Response, error_response

# An error, its code, its HTTP status, and words of its reason.
ERRORS = [
    (BadRequest("it makes no sense"), 400, 400, "it makes no sense"),
    (NotFound(), 404, 404, "no such media"),
    (MethodNotAllowed(["PUT", "GET"]), 405, 405, "GET, PUT"),
    (NameConflict("a directory has that name"), 409, 409, "a directory has that name"),
    (PreconditionFailed(), 412, 412, "the file is not the expected version"),
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
    (Forbidden("fetching is switched off on this service"), 403, 403, "switched off"),
    (AddressRefused(), 511, 403, "that address may not be fetched"),
    (UpstreamFailed("refuses the connection"), 512, 502, "the upstream refuses the connection"),
    (UpstreamBrokeOff(7), 512, 502, "the upstream broke off after 7 bytes"),
    (UpstreamTooSlow("it drips"), 513, 504, "the upstream took too long: it drips"),
    (Busy(5), 514, 503, "5 s"),
    (Stopping(5), 514, 503, "the service is stopping; try again in 5 s"),
    (StorageFailed("written", "read-only file system"), 515, 503, "written: read-only file system"),
    (TooSlow("the content"), 408, 408, "the content took too long to arrive"),
    (GaveWay(), 408, 408, "this was one of the slowest requests; try again with fewer"),
    (TargetTooLong(16384), 414, 414, "longer than 16384 bytes"),
    (TooManyConnections(5), 429, 429, "from your address; try again in 5 s"),
    (HeadTooLarge("256 lines"), 431, 431, "more than 256 lines"),
    (WrongOffset(5), 409, 409, "continues at byte 5"),
    (NameTaken(), 501, 410, "exists already"),
    (ChecksumMismatch(), 508, 460, "nothing of this part was kept"),
    (Superseded(), 409, 409, "a newer request"),
    (Locked(), 423, 423, "a newer request"),
    (StillEnding(), 409, 409, "an older request"),
    (UnsupportedVersion("1.0.0"), 412, 412, "a supported version: 1.0.0"),
    (TooManyUnfinished(1000), 429, 429, "1000 unfinished uploads from your address"),
]

ORDER_OF_CHECKS = [  # docs/http.md, Which reason is reported
    Malformed,
    MissingArgument,
    NameNotAllowed,
    FormatNotSupported,
    TooLarge,
    NoSpace,
    AlreadyExists,
]


def payload_of(response: Response) -> Any:
    """The parsed content, which must be one line of JSON."""
    assert response.headers["Content-Type"] == "application/json"
    assert response.body.count(b"\n") == 1
    assert response.body.endswith(b"}\n")
    return json.loads(response.body)


def kinds_of(error: type[MediaError]) -> Iterator[type[MediaError]]:
    for kind in error.__subclasses__():
        yield kind
        yield from kinds_of(kind)


@pytest.mark.parametrize(("error", "code", "status", "words"), ERRORS)
def test_the_response_to_an_error_has_its_code_status_and_reason(
    error: MediaError, code: int, status: int, words: str
) -> None:
    response = error_response(error)
    payload = payload_of(response)
    assert (response.status, payload["code"]) == (status, code)
    assert payload["reason"] == error.reason == str(error)
    assert words in payload["reason"]
    assert response.headers["Cache-Control"] == "no-store"


def test_every_error_is_in_the_table() -> None:
    assert {type(error) for error, *_ in ERRORS} == set(kinds_of(MediaError))


@pytest.mark.parametrize(
    ("error", "name", "value"),
    [
        (MethodNotAllowed({"PUT", "HEAD", "GET"}), "Allow", "GET, HEAD, PUT"),
        (RangeNotSatisfiable(0), "Content-Range", "bytes */0"),
        (RangeNotSatisfiable(1 << 32), "Content-Range", "bytes */4294967296"),
        (Busy(7), "Retry-After", "7"),
        (Stopping(7), "Retry-After", "7"),
        (StorageFailed("read", "it does not response"), "Retry-After", "5"),
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
    assert error_response(error).headers[name] == value


def test_an_internal_error_reveals_its_incident_and_nothing_else() -> None:
    assert payload_of(error_response(InternalError("c0ffee"))) == {
        "code": 500,
        "reason": "internal error; the incident's id is in the service's log",
        "incident": "c0ffee",
    }


def test_a_missing_argument_can_have_a_hint() -> None:
    error = MissingArgument("directory", "it is the name of the field")
    assert error.reason == "the argument 'directory' is missing: it is the name of the field"


def test_of_several_failures_the_one_checked_first_has_the_lowest_rank() -> None:
    ranks = [error.rank for error in ORDER_OF_CHECKS]
    assert ranks == sorted(set(ranks))


def test_failures_that_are_checked_together_have_the_same_rank() -> None:
    assert EmptyUpload.rank == MissingArgument.rank
    assert NameConflict.rank == AlreadyExists.rank == NameTaken.rank
    assert ChecksumMismatch.rank == DigestMismatch.rank


def test_a_response_cannot_be_sniffed_as_another_type() -> None:
    """Case 36."""
    assert error_response(NotFound()).headers["X-Content-Type-Options"] == "nosniff"
