"""`header_fields`: digests in headers and form fields (RFC 9530, RFC 9651)."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twistedmedia.errors import Malformed
from twistedmedia.http.header_fields import (
    declared_sha256,
    parse_sha256,
    repr_digest,
    wants_sha256,
)

quick = settings(max_examples=200)

HEX = hashlib.sha256(b"hello").hexdigest()
B64 = base64.b64encode(bytes.fromhex(HEX)).decode()
OTHER_HEX = hashlib.sha256(b"other").hexdigest()
OTHER = f"sha-256=:{base64.b64encode(bytes.fromhex(OTHER_HEX)).decode()}:"
DIGEST = f"sha-256=:{B64}:"

DECLARED = [
    DIGEST,
    f"  {DIGEST} ",
    f"sha-256=:{B64.rstrip('=')}:",  # RFC 9651, 4.2.7
    f"sha-256=:{B64[:-2]}R=:",  # bits beyond the last byte
    f"{DIGEST};a;b=1;c=?0;d=x/y",
    f"{DIGEST}; a=1;  b",
    f"{DIGEST},md5=:AAAA:",
    f"md5=:AAAA:\t,\t{DIGEST}",
    f"md5=:AAAA: , {DIGEST} ,crc32c=:AA==:",
    f"sha-512=:AAAA:, {DIGEST}",
    f"{OTHER}, {DIGEST}",  # the last of repeated keys counts
    f"sha-256, {DIGEST}",
    f"sha-256=1, sha-256=x, {DIGEST}",
    f'a=1, b=-1.5, c="x, \\" \\\\ sha-256=:", d=tok*en/1:2, e=:: , f=?1, {DIGEST}',
    f"a=@1659578233, b=@-1, {DIGEST}",
    f'a=%"caf%c3%a9, x", {DIGEST}',
    f'a=(), b=(  ), c=(1 "x" y;p=1;q  :AA==:);r=2, {DIGEST}',
    f"a;b=(1);c, {DIGEST}".replace("b=(1)", "b=1"),
    f"*a.b_c-d*=1, {DIGEST}",
]

NOT_DECLARED = [
    "",
    "   ",
    "md5=:AAAA:",
    "sha-512=:AAAA:, sha=:AAAA:",
    "sha-2560=:AAAA:",
    "md5",
    "md5=1;sha-256",
    'md5="sha-256=:AAAA:"',
    "a=-999999999999999, b=999999999999.999, c=0.5, d=007",
]

MALFORMED = [
    "sha-256",
    "sha-256=?1",
    "sha-256=1",
    f'sha-256="{B64}"',
    f"sha-256={HEX}",
    f"sha-256={B64}",
    f"sha-256=:{HEX}:",
    f"sha-256=({B64})",
    f"sha-256=(:{B64}:)",
    "sha-256=::",
    "sha-256=:AAAA:",
    f"sha-256=:{B64[4:]}:",
    f"sha-256=:AAAA{B64}:",
    f"sha-256=:{B64}=:",
    f"sha-256=:={B64[:-1]}:",
    f"sha-256=:{B64[:20]}={B64[20:]}:",
    f"sha-256=:{B64[:-1]}A:",
    f"sha-256=:{B64[:20]} {B64[20:]}:",
    f"sha-256=: {B64}:",
    f"sha-256=:{B64[:-2]}-=:",
    f"sha-256=:{B64[:-2]}_=:",
    f"sha-256=:{B64[:-2]}\xe9=:",
    f"sha-256=:{B64[:-2]}\uff21=:",
    f"sha-256=:{B64}",
    f"sha-256={B64}:",
    f"sha-256 =:{B64}:",
    f"sha-256= :{B64}:",
    f"SHA-256=:{B64}:",
    f"Sha-256=:{B64}:",
    f"-sha-256=:{B64}:",
    f"=:{B64}:",
    f"{DIGEST},",
    f"{DIGEST}, ",
    f",{DIGEST}",
    f"{DIGEST},,md5=:AAAA:",
    f"{DIGEST} md5=:AAAA:",
    f"{DIGEST}x",
    f"{DIGEST} ;a",
    f"{DIGEST};",
    f"{DIGEST};A",
    f"{DIGEST};a=",
    f"{DIGEST};a=(1)",
    f"\t{DIGEST}",
    f"{DIGEST}\t",
    f"{DIGEST}\n",
    f"{DIGEST}, sha-256",
    f"{DIGEST}, md5=",
    f"{DIGEST}, md5=:!:",
    f'{DIGEST}, a="x',
    f'{DIGEST}, a="\\x"',
    f'{DIGEST}, a="\t"',
    f'{DIGEST}, a="\xe9"',
    f"{DIGEST}, a=1.",
    f"{DIGEST}, a=.1",
    f"{DIGEST}, a=+1",
    f"{DIGEST}, a=--1",
    f"{DIGEST}, a=1.2345",
    f"{DIGEST}, a=1234567890123.1",
    f"{DIGEST}, a=1234567890123456",
    f"{DIGEST}, a=?2",
    f"{DIGEST}, a=@1.5",
    f'{DIGEST}, a=%"%C3"',
    f'{DIGEST}, a=%"%c"',
    f"{DIGEST}, a=(1",
    f"{DIGEST}, a=(1,2)",
    f'{DIGEST}, a=(1"x")',
    f"{DIGEST}, a=((1))",
    f"{DIGEST}, a=(1 (2))",
    "x=\u0664",
]


def short(value: object) -> str:
    """A test id that fits a line."""
    return ascii(value) if len(ascii(value)) < 90 else f"{ascii(value)[:80]} and so on"


@pytest.mark.parametrize("field", DECLARED, ids=short)
def test_the_sha256_of_a_field_is_found(field: str) -> None:
    assert declared_sha256(field) == HEX


@pytest.mark.parametrize("field", NOT_DECLARED, ids=short)
def test_other_algorithms_are_ignored(field: str) -> None:
    assert declared_sha256(field) is None
    assert declared_sha256(DIGEST, field) == HEX


@pytest.mark.parametrize("field", MALFORMED, ids=short)
def test_an_invalid_field_is_malformed(field: str) -> None:
    for fields in ((field,), (DIGEST, field), (field, None)):
        with pytest.raises(Malformed, match="digest field"):
            declared_sha256(*fields)


@pytest.mark.parametrize(
    ("fields", "declared"),
    [
        ((), None),
        ((None, None), None),
        (("", None), None),
        ((None, DIGEST), HEX),
        ((DIGEST, None), HEX),
        ((DIGEST, DIGEST), HEX),
        ((DIGEST, f"sha-256=:{B64.rstrip('=')}:;x"), HEX),
        (("md5=:AAAA:", OTHER), OTHER_HEX),
    ],
)
def test_several_fields_may_declare_one_digest(
    fields: tuple[str | None, ...], declared: str
) -> None:
    assert declared_sha256(*fields) == declared


@pytest.mark.parametrize("fields", [(DIGEST, OTHER), (OTHER, DIGEST), (DIGEST, None, OTHER)])
def test_fields_that_contradict_each_other_are_refused(fields: tuple[str | None, ...]) -> None:
    with pytest.raises(Malformed, match="contradict"):
        declared_sha256(*fields)


def test_a_malformed_field_takes_precedence_over_a_contradiction() -> None:
    with pytest.raises(Malformed):
        declared_sha256(DIGEST, OTHER, "sha-256")


@pytest.mark.parametrize("text", [HEX, HEX.upper(), HEX[:10].upper() + HEX[10:]])
def test_a_form_field_is_hex_of_any_case(text: str) -> None:
    assert parse_sha256(text) == HEX


@pytest.mark.parametrize(
    "text",
    [
        "",
        HEX[1:],
        HEX + "0",
        HEX[1:] + "g",
        " " + HEX,
        HEX + "\n",
        HEX[1:] + "\uff11",
        HEX[:32] + ":" + HEX[33:],
        B64,
        f"0x{HEX[2:]}",
    ],
    ids=short,
)
def test_other_text_than_64_hex_digits_is_malformed(text: str) -> None:
    with pytest.raises(Malformed, match="64 hex digits"):
        parse_sha256(text)


def test_a_digest_is_formatted_as_in_the_rfc() -> None:
    """RFC 9530, appendix D: the digest of '{"hello": "world"}' and a line break."""
    digest = hashlib.sha256(b'{"hello": "world"}\n').hexdigest()
    assert repr_digest(digest) == "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"


@pytest.mark.parametrize(
    ("field", "wanted"),
    [
        (None, False),
        ("", False),
        ("sha-256=1", True),
        ("sha-256=10", True),
        ("sha-256=010", True),
        ("sha-256=1;x=y", True),
        ("sha-512=3, sha-256=10, unixsum=0", True),
        ("sha-512=10, sha-256=1", True),
        ("sha-256=0, sha-256=1", True),
        (" sha-256=5 ", True),
        ("sha-256=0", False),
        ("sha-256=-0", False),
        ("sha-256=000", False),
        ("sha-256=1, sha-256=0", False),
        ("sha-512=3", False),
        ("sha-256", False),
        ("sha-256=?1", False),
        ("sha-256=11", False),
        ("sha-256=-1", False),
        ("sha-256=1.0", False),
        ('sha-256="1"', False),
        ("sha-256=x", False),
        ("sha-256=(1)", False),
        ("sha-256=:AA==:", False),
        ("sha-256=99999999999999999", False),
        ("sha-256=1,", False),
        ("SHA-256=1", False),
        ("sha-256=1, sha-512=11", False),
        ("sha-256=1, sha-512", False),
        ("sha-256=\uff11", False),
        ("sha-256;q=1", False),
        ("*", False),
    ],
)
def test_a_digest_is_wanted_if_a_valid_field_asks_for_it(field: str | None, wanted: bool) -> None:
    """RFC 9530, 4."""
    assert wants_sha256(field) == wanted


@quick
@given(st.binary(min_size=32, max_size=32))
def test_a_formatted_digest_is_parsed(digest: bytes) -> None:
    assert declared_sha256(repr_digest(digest.hex())) == digest.hex()
    assert parse_sha256(digest.hex().upper()) == digest.hex()


@quick
@given(st.binary(max_size=40))
def test_only_32_bytes_are_a_digest(digest: bytes) -> None:
    field = f"sha-256=:{base64.b64encode(digest).decode()}:"
    if len(digest) == 32:
        assert declared_sha256(field) == digest.hex()
    else:
        with pytest.raises(Malformed):
            declared_sha256(field)


keys = st.from_regex(r"[a-z*][a-z0-9_.*-]{0,5}", fullmatch=True)
bare_items = st.one_of(
    st.integers(-(10**15) + 1, 10**15 - 1).map(str),
    st.decimals(-(10**12) + 1, 10**12 - 1, places=2).map(lambda number: f"{number:f}"),
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E)).map(
        lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    ),
    st.from_regex(r"[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]{0,5}", fullmatch=True),
    st.binary(max_size=6).map(lambda data: f":{base64.b64encode(data).decode()}:"),
    st.sampled_from(["?0", "?1"]),
    st.integers(-(10**12), 10**12).map("@{}".format),
    st.text(max_size=5).map(
        lambda text: '%"' + "".join(f"%{byte:02x}" for byte in text.encode()) + '"'
    ),
)
parameters = st.lists(
    st.builds(";{}{}{}".format, st.sampled_from(["", "  "]), keys, st.just(""))
    | st.builds(";{}={}".format, keys, bare_items),
    max_size=2,
).map("".join)
items = st.builds("{}{}".format, bare_items, parameters)
inner_lists = st.lists(items, max_size=3).map(lambda listed: f"( {'  '.join(listed)} )")
members = st.one_of(
    st.builds("{}={}".format, keys, items),
    st.builds("{}={}{}".format, keys, inner_lists, parameters),
    st.builds("{}{}".format, keys, parameters),
)


@quick
@given(st.lists(members, max_size=4), st.integers(0, 4), st.sampled_from([",", ", ", "\t, \t"]))
def test_a_digest_is_found_in_every_dictionary(around: list[str], at: int, comma: str) -> None:
    assert declared_sha256(comma.join([*around[:at], DIGEST, *around[at:]])) == HEX
    assert declared_sha256(comma.join(around)) is None


@quick
@given(st.text() | st.text(st.sampled_from('sha-256=:A;,()"?@% \t')))
def test_any_text_is_parsed_or_malformed(text: str) -> None:
    assert wants_sha256(text) in (True, False)
    for parse in (declared_sha256, parse_sha256):
        try:
            digest = parse(text)
        except Malformed:
            continue
        assert digest is None or len(bytes.fromhex(digest)) == 32


@quick
@given(st.integers(0, len(DIGEST) - 1))
def test_a_field_without_one_character_declares_no_other_digest(at: int) -> None:
    try:
        assert declared_sha256(DIGEST[:at] + DIGEST[at + 1 :]) in (None, HEX)
    except Malformed:
        return


LONG: list[Callable[[int], str]] = [
    lambda size: "a," * (size // 2) + "a",
    lambda size: "a, " * (size // 3) + "!",
    lambda size: "a" + " " * size + "!",
    lambda size: "a" + " ," * (size // 2),
    lambda size: "a" * size + "!",
    lambda size: "a=" + "x" * size + "!",
    lambda size: 'a="' + "\\\\" * (size // 2),
    lambda size: "a=:" + "A" * size,
    lambda size: "a=" + "1" * size,
    lambda size: "a=(" + "1 " * (size // 2),
    lambda size: "a=(" + "1" + " " * size + "!",
    lambda size: "a=(" + "x;a " * (size // 4) + ",",
    lambda size: "a=(" * (size // 3),
    lambda size: "a" + ";a" * (size // 2) + "!",
    lambda size: "a" + ";a=:A" * (size // 5),
    lambda size: "a;" + " " * size,
    lambda size: 'a=%"' + "%c3" * (size // 3),
    lambda size: "sha-256=:" + "A" * size + ":",
]


def cost_s(field: str) -> float:
    """The least processor time, in seconds, to parse `field`."""
    spent = []
    for _ in range(5):
        started_s = time.thread_time()
        wants_sha256(field)
        with contextlib.suppress(Malformed):
            declared_sha256(field)
        spent.append(time.thread_time() - started_s)
    return min(spent)


@pytest.mark.parametrize("long", LONG, ids=lambda long: short(long(40)))
def test_parsing_a_long_field_takes_linear_time(long: Callable[[int], str]) -> None:
    """A field 16 times as long takes about 16 times as long."""
    small, large = cost_s(long(16 << 10)), cost_s(long(256 << 10))
    assert small < 0.1
    assert large < small * 16 * 4 + 0.001
