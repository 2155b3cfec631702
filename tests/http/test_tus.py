"""The headers of tus: parsed if they are valid, refused otherwise."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from twistedmedia.errors import (
    BadRequest,
    ChecksumMismatch,
    Malformed,
    MediaError,
    MissingArgument,
    UnsupportedVersion,
)
from twistedmedia.http.heads import MAX_LENGTH_BYTES
from twistedmedia.http.tus import (
    ALGORITHMS,
    Checksum,
    check_version,
    format_expires,
    parse_bytes,
    parse_checksum,
    parse_length,
    parse_metadata,
)

SHA1 = hashlib.sha1(b"hello").digest()
SHA256 = hashlib.sha256(b"hello").digest()


def encoded(value: bytes) -> str:
    return b64encode(value).decode("ascii")


# Versions


def test_the_supported_version_is_accepted() -> None:
    check_version("1.0.0")


@pytest.mark.parametrize(
    "field", [None, "", "1.0", "1.0.1", "0.2.2", "1.0.0, 1.0.0", " 1.0.0", "1.0.0 ", "１.0.0"]
)
def test_another_version_is_refused_with_the_supported_ones(field: str | None) -> None:
    with pytest.raises(UnsupportedVersion) as caught:
        check_version(field)
    assert (caught.value.status, caught.value.headers) == (412, {"Tus-Version": "1.0.0"})


# Numbers of bytes


@pytest.mark.parametrize(
    ("field", "size"),
    [
        ("0", 0),
        ("00", 0),
        ("1", 1),
        ("007", 7),
        ("2147483648", 1 << 31),
        ("4294967296", 1 << 32),
        (str(MAX_LENGTH_BYTES), MAX_LENGTH_BYTES),
        ("0" * 5000 + "5", 5),
    ],
)
def test_a_number_of_bytes_is_parsed(field: str, size: int) -> None:
    """Case 6."""
    assert parse_bytes("Upload-Offset", field) == size


NO_NUMBERS = [
    *(
        "",
        " ",
        "-1",
        "+1",
        "-0",
        "1.0",
        "1e3",
        "0x10",
        "1_000",
        "1,000",
        "1 000",
        " 1",
        "1 ",
        "1\n",
    ),
    *("1\n", "x", "1x", "0b1", "NaN", "null", "٣", "１", "²", "1, 1", "5, 5", "\xff", "1\0"),
    *(str(MAX_LENGTH_BYTES + 1), "9" * 20, "9" * 5000),
]


@pytest.mark.parametrize("field", NO_NUMBERS, ids=lambda field: repr(field)[:20])
def test_an_invalid_number_of_bytes_is_malformed(field: str) -> None:
    """Case 37."""
    for parse in (lambda: parse_bytes("Upload-Offset", field), lambda: parse_length(field, None)):
        with pytest.raises(Malformed) as caught:
            parse()
        assert len(caught.value.reason) < 100


def test_the_error_names_a_missing_header() -> None:
    with pytest.raises(MissingArgument, match="'Upload-Offset' is missing"):
        parse_bytes("Upload-Offset", None)


@settings(max_examples=200)
@given(st.none() | st.text() | st.text("0123456789 +-._"))
def test_any_text_is_a_number_of_bytes_or_one_of_our_errors(field: str | None) -> None:
    try:
        size = parse_bytes("Upload-Length", field)
    except MediaError:
        return
    assert field is not None
    assert 0 <= size <= MAX_LENGTH_BYTES
    assert str(size) == (field.lstrip("0") or "0")


@pytest.mark.parametrize(
    ("length", "deferred", "meant"), [("0", None, 0), ("11", None, 11), (None, "1", None)]
)
def test_a_length_is_declared_or_deferred(
    length: str | None, deferred: str | None, meant: int | None
) -> None:
    assert parse_length(length, deferred) == meant


@pytest.mark.parametrize(
    ("length", "deferred", "error"),
    [
        (None, None, MissingArgument),
        ("11", "1", Malformed),
        ("11", "0", Malformed),
        ("", "1", Malformed),
        (None, "0", Malformed),
        (None, "", Malformed),
        (None, "true", Malformed),
        (None, "1, 1", Malformed),
        (None, "01", Malformed),
    ],
)
def test_other_declarations_of_a_length_are_refused(
    length: str | None, deferred: str | None, error: type[MediaError]
) -> None:
    with pytest.raises(error):
        parse_length(length, deferred)


# Metadata


@pytest.mark.parametrize(
    ("field", "pairs"),
    [
        (None, {}),
        ("", {}),
        ("  ", {}),
        ("filename aGVsbG8ubXAz", {"filename": b"hello.mp3"}),
        ("filename aGVsbG8ubXAz,directory YQ==", {"filename": b"hello.mp3", "directory": b"a"}),
        ("filename aGVsbG8ubXAz, directory YQ==", {"filename": b"hello.mp3", "directory": b"a"}),
        ("is_confidential", {"is_confidential": b""}),
        ("a ,b YQ==", {"a": b"", "b": b"a"}),
        ("a AP8=", {"a": b"\0\xff"}),
        ("A YQ==,a Yg==", {"A": b"a", "a": b"b"}),
        ("a= YQ==", {"a=": b"a"}),
    ],
)
def test_metadata_are_keys_with_values_in_base64(
    field: str | None, pairs: dict[str, bytes]
) -> None:
    assert parse_metadata(field) == pairs


@pytest.mark.parametrize(
    ("field", "pairs"),
    [
        (",", {}),
        (" , ,\t,", {}),
        (",a YQ==", {"a": b"a"}),
        ("a YQ==,", {"a": b"a"}),
        (" ,a YQ== ,, b ,", {"a": b"a", "b": b""}),
        ("a  YQ==", {"a": b"a"}),
        ("\ta   YQ==  ,\tb YQ==\t", {"a": b"a", "b": b"a"}),
    ],
)
def test_blanks_and_commas_around_metadata_are_ignored(field: str, pairs: dict[str, bytes]) -> None:
    """Case 68."""
    assert parse_metadata(field) == pairs


@pytest.mark.parametrize(
    "field",
    [
        *("a YQ==,a YQ==", "a,a", "a,,a"),
        *("a YQ", "a YQ=", "a Y", "a YQ===", "a !!!!", "a Y Q==", "a YQ==\tx"),
        *("a YQ==;b YQ==", "a -_-_", "a YQ=\xff", "a \u0662\u0662\u0662\u0662", "\xff YQ=="),
        "a " + "=" * 1000,
    ],
)
def test_invalid_metadata_are_malformed(field: str) -> None:
    """Case 37."""
    with pytest.raises(Malformed) as caught:
        parse_metadata(field)
    assert len(caught.value.reason) < 200


def test_a_reason_does_not_repeat_a_key_of_any_length() -> None:
    with pytest.raises(Malformed) as caught:
        parse_metadata("x" * 10_000 + " ?")
    assert len(caught.value.reason) < 200


@settings(max_examples=200)
@given(st.text() | st.text("ab ,=Y\xff\0") | st.text("aYQ=, "))
@example("a \r\n")
def test_any_text_is_metadata_or_malformed(field: str) -> None:
    try:
        pairs = parse_metadata(field)
    except Malformed:
        return
    assert all(key and key.isascii() and "," not in key for key in pairs)
    again = ",".join(f"{key} {encoded(value)}" for key, value in pairs.items())
    assert parse_metadata(again) == pairs


KEYS = st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=","), min_size=1
)


@settings(max_examples=100)
@given(st.dictionaries(KEYS, st.binary(max_size=50)))
def test_encoded_metadata_are_decoded(pairs: dict[str, bytes]) -> None:
    field = ",".join(f"{key} {encoded(value)}" for key, value in pairs.items())
    assert parse_metadata(field) == pairs


# Checksums


@pytest.mark.parametrize(
    ("field", "checksum"),
    [
        (None, None),
        (f"sha1 {encoded(SHA1)}", Checksum("sha1", SHA1)),
        (f"sha256 {encoded(SHA256)}", Checksum("sha256", SHA256)),
    ],
)
def test_a_checksum_is_an_algorithm_and_a_digest(
    field: str | None, checksum: Checksum | None
) -> None:
    assert parse_checksum(field) == checksum


@pytest.mark.parametrize(
    ("field", "error"),
    [
        ("", BadRequest),
        (" ", BadRequest),
        (f"md5 {encoded(SHA1)}", BadRequest),
        (f"SHA1 {encoded(SHA1)}", BadRequest),
        (f"crc32 {encoded(b'abcd')}", BadRequest),
        (encoded(SHA1), BadRequest),
        (f" sha1 {encoded(SHA1)}", BadRequest),
        (f"sha1\t{encoded(SHA1)}", BadRequest),
        (f"__class__ {encoded(SHA1)}", BadRequest),
        ("sha1", Malformed),
        ("sha1 ", Malformed),
        ("sha1 ====", Malformed),
        (f"sha1 {SHA1.hex()}", Malformed),
        (f"sha1  {encoded(SHA1)}", Malformed),
        (f"sha1 {encoded(SHA1)} ", Malformed),
        (f"sha1 {encoded(SHA1)}, sha1 {encoded(SHA1)}", Malformed),
        (f"sha1 {encoded(SHA256)}", Malformed),
        (f"sha256 {encoded(SHA1)}", Malformed),
        (f"sha1 {encoded(SHA1)[:-1]}", Malformed),
        ("sha1 \xff", Malformed),
    ],
)
def test_an_invalid_checksum_is_refused(field: str, error: type[MediaError]) -> None:
    """Case 37. tus requires 400 if the algorithm is not supported."""
    with pytest.raises(error) as caught:
        parse_checksum(field)
    assert (type(caught.value), caught.value.status) == (error, 400)


def test_the_error_lists_the_supported_algorithms() -> None:
    with pytest.raises(BadRequest, match="supported are: sha1, sha256"):
        parse_checksum("md5 x")


@settings(max_examples=200)
@given(st.text() | st.builds("{} {}".format, st.sampled_from([*ALGORITHMS]), st.text("aQ=/+ \xff")))
def test_any_text_is_a_checksum_or_one_of_our_errors(field: str) -> None:
    try:
        checksum = parse_checksum(field)
    except MediaError:
        return
    assert checksum is not None
    assert len(checksum.digest) == ALGORITHMS[checksum.algorithm]().digest_size


@pytest.mark.parametrize("checksum", [Checksum("sha1", SHA1), Checksum("sha256", SHA256)])
@pytest.mark.parametrize("pieces", [[b"hello"], [b"he", b"", b"llo"]])
def test_a_part_matches_its_checksum_or_not(checksum: Checksum, pieces: list[bytes]) -> None:
    def error(*part: bytes) -> Any:
        hashed = checksum.new_hash()
        for piece in part:
            hashed.update(piece)
        return checksum.error(hashed)

    assert error(*pieces) is None
    for other in ([], [b"hellO"], [*pieces, b"!"]):
        assert isinstance(error(*other), ChecksumMismatch)


# Times


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
        (784111777, "Sun, 06 Nov 1994 08:49:37 GMT"),
        (784111777.999, "Sun, 06 Nov 1994 08:49:37 GMT"),
        (4102444800.0, "Fri, 01 Jan 2100 00:00:00 GMT"),
        (1e15, "Fri, 31 Dec 9999 23:59:59 GMT"),  # case 49: the file's time was changed by hand
        (-1e15, "Thu, 01 Jan 1970 00:00:00 GMT"),
    ],
)
def test_an_expiry_is_an_http_date(seconds: float, text: str) -> None:
    assert format_expires(seconds) == text
