"""Heads of requests: which are accepted and which refused, however the input is cut."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from twistedmedia.errors import BadRequest, HeadTooLarge, MediaError, TargetTooLong
from twistedmedia.http.heads import (
    MAX_FIELDS,
    MAX_HEAD_BYTES,
    MAX_LENGTH_BYTES,
    MAX_LINE_BYTES,
    Head,
    find_head,
    parse_head,
)

END = b"\r\n\r\n"


def lines(*each: bytes) -> bytes:
    return b"\r\n".join(each)


def get(*fields: bytes, target: bytes = b"/a", version: bytes = b"HTTP/1.1") -> bytes:
    """The head of a GET to host x, with additional header lines."""
    return lines(b"GET %b %b" % (target, version), b"Host: x", *fields)


def at_once(received: bytes, seen: int = 0) -> Head | None:
    """Parse bytes that arrive at once; None if the head is incomplete. The first `seen` bytes were
    searched before.

    :raises MediaError: if they are refused.
    """
    end = find_head(received, seen)
    return None if end is None else parse_head(received[:end])


def piece_by_piece(received: bytes, cuts: list[int]) -> Head | None:
    """Parse bytes that arrive in pieces, up to the end of the head."""
    seen = 0
    for upto in [*sorted({cut for cut in cuts if 0 < cut < len(received)}), len(received)]:
        if (head := at_once(received[:upto], seen)) is not None:
            return head
        seen = upto
    return None


def status_of(received: bytes) -> int:
    with pytest.raises(MediaError) as caught:
        at_once(received)
    return caught.value.status


def test_a_head_is_parsed() -> None:
    head = at_once(
        lines(
            b"PUT /media/a%20b?q=%ff&r HTTP/1.1",
            b"Host: example.org:8000",
            b"X-Empty:",
            b"x-Padded: \t a  b\t ",
            b"X-Empty: \xff\x80",
            b"content-LENGTH: 12",
        )
        + END
        + b"GET / HTTP/1.1"
    )
    assert head == Head(
        b"PUT",
        b"/media/a%20b?q=%ff&r",
        b"HTTP/1.1",
        [
            (b"Host", b"example.org:8000"),
            (b"X-Empty", b""),
            (b"x-Padded", b"a  b"),
            (b"X-Empty", b"\xff\x80"),
            (b"content-LENGTH", b"12"),
        ],
        12,
        True,
    )


ACCEPTED = [
    ("a custom method", b"M-!#$%&'*+.^_`|~9 / HTTP/1.1\r\nHost: x"),
    ("any bytes in the target", get(target=b'/\x80\xff"<>\\^`{|}')),
    ("two slashes", get(target=b"//host/a")),
    ("HTTP/1.0 without headers", lines(b"GET / HTTP/1.0")),
    ("HTTP/1.0 with a host", get(version=b"HTTP/1.0")),
    ("a field without a value", get(b"X:")),
    ("a tab in a value", get(b"X: a\tb")),
    ("a colon in a value", get(b"X: a:b")),
    ("any name of a field", get(b"!#$%&'*+-.^_`|~09azAZ: x")),
    ("many lines of a name", get(b"Accept: a", b"accept: b", b"Connection: x", b"Connection: y")),
]


@pytest.mark.parametrize("head", [row[1] for row in ACCEPTED], ids=[row[0] for row in ACCEPTED])
def test_unusual_but_valid_heads_are_accepted(head: bytes) -> None:
    assert at_once(head + END) is not None


REFUSED = [
    ("nothing", b""),
    ("an empty line", b"\r\n"),
    ("no version", b"GET /a\r\nHost: x"),
    ("no target", b"GET  HTTP/1.1\r\nHost: x"),
    ("no method", b" /a HTTP/1.1\r\nHost: x"),
    ("two spaces", b"GET  /a HTTP/1.1\r\nHost: x"),
    ("a space in the target", b"GET /a b HTTP/1.1\r\nHost: x"),
    ("a space at the end", b"GET /a HTTP/1.1 \r\nHost: x"),
    ("a tab in the request line", b"GET\t/a HTTP/1.1\r\nHost: x"),
    ("a method that is not a token", b"GE/T /a HTTP/1.1\r\nHost: x"),
    ("HTTP/2", b"PRI * HTTP/2.0"),
    ("HTTP/1.2", get(version=b"HTTP/1.2")),
    ("HTTP/0.9", get(version=b"HTTP/0.9")),
    ("HTTP/1.10", get(version=b"HTTP/1.10")),
    ("lower case", get(version=b"http/1.1")),
    ("a fragment", get(target=b"/a#b")),
    ("a relative target", get(target=b"a")),
    ("an asterisk", b"OPTIONS * HTTP/1.1\r\nHost: x"),
    ("the authority form", b"CONNECT x:443 HTTP/1.1\r\nHost: x"),
    ("another scheme", get(target=b"ftp://x/a")),
    ("a NUL", get(b"X: a\0b")),
    ("a DEL", get(b"X: a\x7fb")),
    ("an escape", get(b"X: a\x1bb")),
    ("a NUL in the target", get(target=b"/a\0b")),
    ("an LF for CRLF", b"GET /a HTTP/1.1\nHost: x"),
    ("an LF in a value", get(b"X: a\nY: b")),
    ("a CR in a value", get(b"X: a\rY: b")),
    ("a CR before a CRLF", get(b"X: a\r")),
    ("a folded line", get(b"X: a", b" b")),
    ("a folded line with a tab", get(b"X: a", b"\tb: c")),
    ("a folded first line", lines(b"GET /a HTTP/1.1", b" X: y", b"Host: x")),
    ("a field without a colon", get(b"X")),
    ("a field without a name", get(b": a")),
    ("a space before the colon", get(b"X : a")),
    ("a name that is not a token", get(b"X(y): a")),
    ("a name that is not ASCII", get(b"\xdc: a")),
    ("no host", b"GET /a HTTP/1.1"),
    ("two hosts", get(b"Host: x")),
    ("two lengths", get(b"Content-Length: 1", b"Content-Length: 1")),
    ("two lengths in a line", get(b"Content-Length: 1, 1")),
    ("two codings", get(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked")),
    ("a length and a coding", get(b"Content-Length: 1", b"Transfer-Encoding: chunked")),
    ("a coding and a length", get(b"Transfer-Encoding: chunked", b"Content-Length: 1")),
    ("a coding in 1.0", get(b"Transfer-Encoding: chunked", version=b"HTTP/1.0")),
    ("identity", get(b"Transfer-Encoding: identity")),
    ("gzip, chunked", get(b"Transfer-Encoding: gzip, chunked")),
    ("chunked, chunked", get(b"Transfer-Encoding: chunked, chunked")),
    ("chunked with a parameter", get(b"Transfer-Encoding: chunked;q=1")),
    ("an empty coding", get(b"Transfer-Encoding:")),
    *(
        (f"the length {text!r}", get(b"Content-Length: " + text))
        for text in (b"", b"-1", b"+1", b"0x1", b"1_0", b"1.0", b"1 0", b"\xb2", b"1,1")
    ),
]


@pytest.mark.parametrize("head", [row[1] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_malformed_and_ambiguous_heads_are_bad_requests(head: bytes) -> None:
    """Cases 37 and 46."""
    assert status_of(head + END) == 400
    with pytest.raises(BadRequest):
        parse_head(head)


@pytest.mark.parametrize(
    "beginning",
    [
        b"\0",
        b"\x16\x03\x01\x02\x00\x01",  # TLS
        b"\x80",
        b"{",
        b" ",
        b"GET /a\0",
        b"GET /a HTTP/1.1\n",
        b"GET /a HTTP/1.1\rH",
        b"GET /a\r\n",
        b"GET /a HTTP/2.0\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"GET /a HTTP/1.1\r\nX: a\nb",
        b"GET /a HTTP/1.1\r\nX: a\rb",
    ],
)
def test_an_invalid_beginning_of_a_head_is_refused_before_the_end_of_the_head(
    beginning: bytes,
) -> None:
    """However it is cut."""
    assert status_of(beginning) == 400
    with pytest.raises(BadRequest):
        piece_by_piece(beginning, list(range(len(beginning))))


@pytest.mark.parametrize(
    "beginning",
    [b"G", b"GET /a", b"GET /a HTTP/1.1\r", b"GET /a HTTP/1.1\r\n", b"GET /a HTTP/1.1\r\n\r"],
)
def test_an_incomplete_head_that_may_be_valid_is_not_refused(beginning: bytes) -> None:
    assert at_once(beginning) is None


# Limits


def line_of(size: int) -> bytes:
    return b"GET /%b HTTP/1.1" % (b"a" * (size - len(b"GET / HTTP/1.1")))


def head_of(size: int) -> bytes:
    """A head of `size` bytes whose lines are short."""
    head = get()
    while size - len(head) > 2000:
        head += b"\r\nX: " + b"a" * 996
    head += b"\r\nX: "
    return head + b"a" * (size - len(head))


def test_a_request_line_may_be_16_384_bytes_long() -> None:
    assert MAX_LINE_BYTES == 16384
    longest = lines(line_of(MAX_LINE_BYTES), b"Host: x") + END
    assert at_once(longest) is not None
    assert at_once(longest + bytes(MAX_HEAD_BYTES)) is not None, "what follows is not counted"


@pytest.mark.parametrize("rest", [b"", b"\r\n", b"\r\nHost: x", b"\r\nHost: x" + END])
def test_a_longer_request_line_is_refused_whether_it_ends_or_not(rest: bytes) -> None:
    line = line_of(MAX_LINE_BYTES + 1)
    assert status_of(line + (rest or b"aa")) == 414
    with pytest.raises(TargetTooLong):
        find_head(line + b"a" * MAX_HEAD_BYTES)


def test_a_head_may_be_32_768_bytes_long() -> None:
    assert MAX_HEAD_BYTES == 32768
    longest = head_of(MAX_HEAD_BYTES)
    assert len(longest) == MAX_HEAD_BYTES
    assert at_once(longest + END) is not None
    assert at_once(longest + END + bytes(MAX_HEAD_BYTES)) is not None, "what follows is not counted"


@pytest.mark.parametrize("rest", [b"aaa", END], ids=["unfinished", "finished"])
def test_a_larger_head_is_refused_whether_it_ends_or_not(rest: bytes) -> None:
    assert status_of(head_of(MAX_HEAD_BYTES + 1) + rest) == 431


@pytest.mark.parametrize("longest", [lines(line_of(MAX_LINE_BYTES), b"Host: x"), head_of(1 << 15)])
def test_the_longest_head_is_not_refused_while_its_end_arrives(longest: bytes) -> None:
    """A partial CRLF is not counted as part of the line."""
    received = longest + END
    line_end = received.index(b"\r\n")
    for upto in (line_end, line_end + 1, line_end + 2, *range(len(longest), len(received))):
        assert at_once(received[:upto]) is None
    assert at_once(received) is not None


def test_256_header_lines_are_accepted_and_one_more_is_not() -> None:
    assert MAX_FIELDS == 256
    assert at_once(get(*[b"X: y"] * (MAX_FIELDS - 1)) + END) is not None
    with pytest.raises(HeadTooLarge):
        at_once(get(*[b"X: y"] * MAX_FIELDS) + END)


@pytest.mark.parametrize("length", [b"0", b"9223372036854775807", b"0" * 18 + b"5"])
def test_a_length_fits_in_63_bits(length: bytes) -> None:
    """Case 37."""
    assert int(length) <= MAX_LENGTH_BYTES == 2**63 - 1
    head = at_once(get(b"Content-Length: " + length) + END)
    assert head is not None
    assert head.length == int(length)


@pytest.mark.parametrize(
    "length", [b"9223372036854775808", b"9" * 19, b"9" * 20, b"0" * 20, b"9" * 5000]
)
def test_a_length_beyond_63_bits_or_19_digits_is_refused(length: bytes) -> None:
    """Case 37."""
    assert status_of(get(b"Content-Length: " + length) + END) == 400


# Content


@pytest.mark.parametrize(
    ("fields", "length"),
    [
        ([], 0),
        ([b"Content-Length: 0"], 0),
        ([b"Content-Length: 0012"], 12),
        ([b"Content-Length:\t5 "], 5),
        ([b"Transfer-Encoding: chunked"], None),
        ([b"transfer-encoding:CHUNKED"], None),
        ([b"X-Content-Length: 5", b"Content-Length-X: 6"], 0),
    ],
)
def test_the_length_of_the_content_is_known_from_the_head(
    fields: list[bytes], length: int | None
) -> None:
    head = at_once(get(*fields) + END)
    assert head is not None
    assert head.length == length


# Connections


@pytest.mark.parametrize(
    ("version", "fields", "persistent"),
    [
        (b"HTTP/1.1", [], True),
        (b"HTTP/1.1", [b"Connection: close"], False),
        (b"HTTP/1.1", [b"connection: CLOSE"], False),
        (b"HTTP/1.1", [b"Connection: keep-alive"], True),
        (b"HTTP/1.1", [b"Connection: upgrade,\tClose ,x"], False),
        (b"HTTP/1.1", [b"Connection: x, y", b"Connection: close"], False),
        (b"HTTP/1.1", [b"Connection: close", b"Connection: keep-alive"], False),
        (b"HTTP/1.1", [b"Connection: closed"], True),
        (b"HTTP/1.1", [b"Connection: not close"], True),
        (b"HTTP/1.1", [b"Connection:"], True),
        (b"HTTP/1.1", [b"Proxy-Connection: close"], True),
        (b"HTTP/1.0", [], False),
        (b"HTTP/1.0", [b"Connection: keep-alive"], False),
    ],
)
def test_a_connection_is_kept_unless_one_of_its_tokens_is_close(
    version: bytes, fields: list[bytes], persistent: bool
) -> None:
    head = at_once(get(*fields, version=version) + END)
    assert head is not None
    assert head.persistent is persistent


# Hosts


HOSTS = [
    b"x",
    b"example.org",
    b"EXAMPLE.org.:8000",
    b"xn--mnchen-3ya.example",
    b"127.0.0.1:0",
    b"[::1]",
    b"[2001:DB8::192.0.2.1]:65535",
    b"a_b~c!$&'()*+,;=%C3%BC",
    b"x:",
    b"x:00080",
]
INVALID_HOSTS = [
    b"",
    b":80",
    b"x:65536",
    b"x:99999",
    b"x:000080",
    b"x:-1",
    b"x:a",
    b"x:80:80",
    b"a b",
    b"a/b",
    b"a?b",
    b"a@b",
    b"a\\b",
    b'a"b',
    b"<a>",
    b"a%2",
    b"a%zz",
    b"\xfc.example",
    b"::1",
    b"[::1",
    b"[]",
    b"[::1]x",
    b"[fe80::1%25eth0]",
    b"[:::]",
    b"[1.2.3.4]",
    b"[12345::1]",
    b"[x]",
    b"x\ty",
    b"http://x",
]


@pytest.mark.parametrize("host", HOSTS)
def test_a_host_is_a_name_or_an_address_with_an_optional_port(host: bytes) -> None:
    for version in (b"HTTP/1.1", b"HTTP/1.0"):
        head = at_once(lines(b"GET / " + version, b"Host: " + host) + END)
        assert head is not None
        assert head.fields == [(b"Host", host)]


@pytest.mark.parametrize("host", INVALID_HOSTS)
def test_an_invalid_host_is_refused_in_every_version_and_place(host: bytes) -> None:
    for version in (b"HTTP/1.1", b"HTTP/1.0"):
        assert status_of(lines(b"GET / " + version, b"Host: " + host) + END) == 400
    if b"/" not in host and b"?" not in host:  # which would end the host
        assert status_of(get(target=b"http://%b/" % host) + END) == 400


@pytest.mark.parametrize(
    ("target", "path", "host"),
    [
        (b"http://y/a?b", b"/a?b", b"y"),
        (b"HTTPS://Y:81/a", b"/a", b"Y:81"),
        (b"http://y", b"/", b"y"),
        (b"http://y?b", b"/?b", b"y"),
        (b"http://y/", b"/", b"y"),
        (b"http://y//z", b"//z", b"y"),
        (b"http://[::1]:80/http://z/", b"/http://z/", b"[::1]:80"),
    ],
)
def test_the_host_in_a_target_replaces_the_header(target: bytes, path: bytes, host: bytes) -> None:
    for head in (
        lines(b"GET %b HTTP/1.1" % target, b"host: x", b"X: y"),
        lines(b"GET %b HTTP/1.0" % target, b"X: y"),
    ):
        parsed = at_once(head + END)
        assert parsed is not None
        assert parsed.target == path
        assert sorted(parsed.fields) == [(b"Host", host), (b"X", b"y")]


def test_a_valid_host_header_is_required_beside_a_host_in_the_target() -> None:
    assert status_of(b"GET http://y/ HTTP/1.1" + END) == 400
    assert status_of(lines(b"GET http://y/ HTTP/1.1", b"Host: a b") + END) == 400


# Any bytes in any pieces


_FRAGMENTS = [
    *(b"GET", b"PUT", b" ", b"/a", b"*", b"http://y/", b" HTTP/1.1", b" HTTP/1.0", b"\r\n", END),
    *(b"Host: x", b"Host:", b"Content-Length: 5", b"Transfer-Encoding: chunked", b"X: y", b"\r"),
    *(b"Connection: close", b"\n", b"\0", b"\t", b":", b"#", b"a" * 16376, b"a" * 600, b"\xff"),
    *(b"GET / HTTP/1.1\r\nHost: x\r\n", b"X: y\r\n" * 253),
]
_bytes = st.one_of(
    st.binary(min_size=1, max_size=60),
    st.lists(st.sampled_from(_FRAGMENTS), min_size=1, max_size=12).map(b"".join),
    st.lists(st.sampled_from(_FRAGMENTS), max_size=6).map(lambda f: get() + b"".join(f) + END),
)
_cuts = st.lists(st.integers(0, 40_000), max_size=12)


def outcome_of(received: bytes, cuts: list[int]) -> Head | str | None:
    try:
        return piece_by_piece(received, cuts)
    except (BadRequest, TargetTooLong, HeadTooLarge):
        return "refused"


@settings(max_examples=600)
@given(_bytes, _cuts)
@example(lines(line_of(MAX_LINE_BYTES), b"Host: x") + END, [MAX_LINE_BYTES + 1])
@example(head_of(MAX_HEAD_BYTES) + END, [MAX_HEAD_BYTES + 1, MAX_HEAD_BYTES + 3])
def test_any_bytes_are_a_head_or_refused_however_they_are_cut(
    received: bytes, cuts: list[int]
) -> None:
    whole = outcome_of(received, [])
    assert outcome_of(received, cuts) == whole
    if isinstance(whole, Head):
        assert whole.target.startswith(b"/")
        assert all(name.strip(b" \t") == name for name, _ in whole.fields)
        assert len(whole.fields) <= MAX_FIELDS
        assert whole.length is None or whole.length >= 0


@settings(max_examples=200)
@given(st.lists(st.sampled_from([row[1] for row in ACCEPTED + REFUSED]), min_size=1, max_size=2))
def test_the_result_is_the_same_byte_by_byte(heads: list[bytes]) -> None:
    received = b"".join(head + END for head in heads)
    assert outcome_of(received, list(range(len(received)))) == outcome_of(received, [])


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ([b"100-continue"], [b"100-continue"]),
        ([b"100-Continue"], [b"100-continue"]),
        ([b"100-continue", b"100-continue"], [b"100-continue"]),
        ([b"100-continue, 100-CONTINUE"], [b"100-continue"]),
        ([b", 100-continue\t,,"], [b"100-continue"]),
        ([b"", b"100-continue"], [b"100-continue"]),
        ([b""], []),
        ([b" , ,\t"], []),
        ([b"100-continue, magic"], [b"100-continue, magic"]),
        ([b"magic", b"100-continue,magic"], [b"magic, 100-continue"]),
    ],
)
def test_a_repeated_expectation_counts_once_and_an_empty_one_is_ignored(
    sent: list[bytes], expected: list[bytes]
) -> None:
    """Case 53: RFC 9110, 10.1.1 and 5.6.1.2."""
    lines_sent = [b"%b: %b" % (b"Expect" if n else b"expect", each) for n, each in enumerate(sent)]
    for version, seen in ((b"HTTP/1.1", expected), (b"HTTP/1.0", [])):
        head = at_once(get(*lines_sent, b"X-Last: y", version=version) + END)
        assert head is not None
        assert [value for name, value in head.fields if name.lower() == b"expect"] == seen
        assert (b"X-Last", b"y") in head.fields
