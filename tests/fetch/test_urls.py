"""URLs to fetch: what they mean, and that none means two things (docs/http.md, Fetching)."""

from __future__ import annotations

import contextlib
import time
from base64 import b64decode
from ipaddress import IPv6Address
from urllib.parse import urlsplit

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from twistedmedia.fetch.urls import (
    MAX_URL_BYTES,
    Url,
    normal_host,
    parse_url,
    resolve,
    without_credentials,
)

quick = settings(max_examples=300)

LONGEST_NAME = ".".join(["a" * 63] * 3 + ["b" * 61])  # 253 characters

# What is asked for, and what it is when it is put together again.
GOOD = {
    "http://example.org": "http://example.org/",
    "http://example.org/": "http://example.org/",
    "https://example.org/a/b.mp3": "https://example.org/a/b.mp3",
    "HTTP://EXAMPLE.org/A": "http://example.org/A",
    "hTTps://Example.Org./": "https://example.org/",
    "  http://example.org/a  ": "http://example.org/a",
    # Ports
    "http://example.org:80/": "http://example.org/",
    "https://example.org:443/": "https://example.org/",
    "http://example.org:443/": "http://example.org:443/",
    "https://example.org:80/": "https://example.org:80/",
    "http://example.org:/a": "http://example.org/a",
    "http://example.org:1": "http://example.org:1/",
    "http://example.org:65535": "http://example.org:65535/",
    "http://example.org:08080": "http://example.org:8080/",
    # Hosts
    "http://127.0.0.1:8000/": "http://127.0.0.1:8000/",
    "http://127.1/": "http://127.1/",
    "http://2130706433/": "http://2130706433/",
    "http://0x7f000001/": "http://0x7f000001/",
    "http://localhost/": "http://localhost/",
    "http://my_host.internal/": "http://my_host.internal/",
    "http://1und1.de/": "http://1und1.de/",
    # Case 59: resolvers know such names, and so do browsers and curl
    "http://a-.example/": "http://a-.example/",
    "http://-a.example/": "http://-a.example/",
    "http://a.-/": "http://a.-/",
    "http://R3---sn-.example:8080/": "http://r3---sn-.example:8080/",
    "http://\u00fc-.example/": "http://xn----dha.example/",
    "http://_-my_host-_.example/": "http://_-my_host-_.example/",
    "http://a--b.example/": "http://a--b.example/",
    f"http://{LONGEST_NAME}/": f"http://{LONGEST_NAME}/",
    f"http://{LONGEST_NAME}./": f"http://{LONGEST_NAME}/",
    "http://[::1]/": "http://[::1]/",
    "http://[::1]:8080/a": "http://[::1]:8080/a",
    "http://[0:0:0:0:0:0:0:1]:80": "http://[::1]/",
    "http://[2001:DB8::A]/": "http://[2001:db8::a]/",
    "http://[::ffff:127.0.0.1]/": f"http://[{IPv6Address('::ffff:7f00:1')}]/",
    # Internationalised ones, as browsers read them
    "http://b\u00fccher.example/": "http://xn--bcher-kva.example/",
    "http://B\u00dcCHER.example:8080/": "http://xn--bcher-kva.example:8080/",
    "http://bu\u0308cher.example/": "http://xn--bcher-kva.example/",
    "http://xn--bcher-kva.example/": "http://xn--bcher-kva.example/",
    "http://stra\u00dfe.example/": "http://xn--strae-oqa.example/",
    "http://\u4f8b\u3048.\u30c6\u30b9\u30c8/": "http://xn--r8jz45g.xn--zckzah/",
    "http://\u4f8b\u3048\u3002\u30c6\u30b9\u30c8/": "http://xn--r8jz45g.xn--zckzah/",
    "http://example\uff0eorg\uff61/": "http://example.org/",
    "http://\uff45\uff58\uff41\uff4d\uff50\uff4c\uff45.org/": "http://example.org/",
    "http://\uff11\uff12\uff17.\uff10.\uff10.\uff11/": "http://127.0.0.1/",
    "http://\u2460\u2461\u2466.\u24ea.\u24ea.\u2460/": "http://127.0.0.1/",
    "http://169\u3002254\uff0e169\uff61254/": "http://169.254.169.254/",
    "http://exa\u00admple.org/": "http://example.org/",
    "http://\u212aelvin.example/": "http://kelvin.example/",
    # Case 60: emoji, as browsers and curl read them
    "http://\U0001f3b5.example/": "http://xn--ml8h.example/",
    "http://i\u2764.ws/": "http://xn--i-7iq.ws/",
    "http://I\u2764\ufe0f.WS/": "http://xn--i-7iq.ws/",
    "http://a\u2044b.example/": "http://xn--ab-c6t.example/",
    "http://a\u2260b.example/": "http://xn--ab-miv.example/",
    "http://\u2603.net/": "http://xn--n3h.net/",
    "http://\U0001f4a9.la:8080/a": "http://xn--ls8h.la:8080/a",
    "http://xn--ls8h.la/": "http://xn--ls8h.la/",
    "http://my_\U0001f3b5.example/": "http://xn--my_-qk13b.example/",
    # Paths and queries
    "http://example.org?a=b": "http://example.org/?a=b",
    "http://example.org/?": "http://example.org/?",
    "http://example.org/a?b?c=/d": "http://example.org/a?b?c=/d",
    "http://example.org/-._~!$&'()*+,;=:@": "http://example.org/-._~!$&'()*+,;=:@",
    "http://example.org//b//": "http://example.org//b//",
    "http://example.org/a b": "http://example.org/a%20b",
    "http://example.org/a%20b": "http://example.org/a%20b",
    "http://example.org/%7Euser/%2e%2E": "http://example.org/%7Euser/%2e%2E",
    "http://example.org/100%": "http://example.org/100%25",
    "http://example.org/100%/%zz?%4": "http://example.org/100%25/%25zz?%254",
    "http://example.org/%%41": "http://example.org/%25%41",
    "http://example.org/\u00fc?\u00fc=\u266b": "http://example.org/%C3%BC?%C3%BC=%E2%99%AB",
    "http://example.org/\ud800": "http://example.org/%ED%A0%80",
    "http://example.org/\x80\u2028": "http://example.org/%C2%80%E2%80%A8",
    "http://example.org/[a]|{b}^`": "http://example.org/%5Ba%5D%7C%7Bb%7D%5E%60",
    'http://example.org/"<>\\': "http://example.org/%22%3C%3E%5C",
    'http://example.org/?"<>\\[]': "http://example.org/?%22%3C%3E%5C%5B%5D",
    "http://example.org/a/../b/./c/..": "http://example.org/a/../b/./c/..",
    "http://example.org/..//evil.com": "http://example.org/..//evil.com",
    # Fragments
    "http://example.org#top": "http://example.org/",
    "http://example.org/a?b#c?d#e": "http://example.org/a?b",
    "http://example.org/#@evil.com/": "http://example.org/",
    "http://example.org/a#\u00fc b%": "http://example.org/a",
    # What looks like another host, and is none
    "http://example.org\\@evil.com/": "http://example.org/%5C@evil.com/",
    "http://example.org\\.evil.com/": "http://example.org/%5C.evil.com/",
    "http://example.org/@evil.com": "http://example.org/@evil.com",
    "http://example.org?@evil.com": "http://example.org/?@evil.com",
    "http://example.org/http://evil.com": "http://example.org/http://evil.com",
}

# What is refused, and a word of the reason.
BAD = {
    "": "begin with",
    " ": "begin with",
    "example.org": "begin with",
    "//example.org/": "begin with",
    "/a/b.mp3": "begin with",
    "example.org:80/": "only http",
    "localhost:8000": "only http",
    "://example.org": "begin with",
    "1http://example.org": "begin with",
    "\u00a0http://example.org/": "begin with",
    "\ufeffhttp://example.org/": "begin with",
    "\uff48ttp://example.org/": "begin with",
    "ftp://example.org/": "only http",
    "file:///etc/passwd": "only http",
    "gopher://127.0.0.1:6379/_x": "only http",
    "data:text/plain,a": "only http",
    "javascript:alert(1)": "only http",
    "http+unix://a/": "only http",
    "httpx://example.org/": "only http",
    "url:http://example.org": "only http",
    "http:": "no host",
    "http:/": "no host",
    "http://": "no host",
    "http:example.org": "no host",
    "http:/example.org": "no host",
    "http:///example.org": "no host",
    "http://?a": "no host",
    "http://#a": "no host",
    "http:\\\\example.org\\": "no host",
    "http:/\\example.org/": "no host",
    "http://\\example.org/": "no host",
    # Userinfo
    "http://user@example.org/": "user name",
    "http://user:secret@example.org/": "user name",
    "http://:secret@example.org/": "user name",
    "http://@example.org/": "user name",
    "http://example.org@evil.com/": "user name",
    "http://example.org:80@evil.com/": "user name",
    "http://example.org:80%40@evil.com/": "user name",
    "http://a@b@c/": "user name",
    "http://[::1]@evil.com/": "user name",
    # Ports
    "http://example.org:0/": "port",
    "http://example.org:00/": "port",
    "http://example.org:65536/": "port",
    "http://example.org:99999/": "port",
    "http://example.org:800000/": "port",
    "http://example.org:4294967376/": "port",
    "http://example.org:-1/": "host",
    "http://example.org:+80/": "host",
    "http://example.org:8 0/": "host",
    "http://example.org:http/": "host",
    "http://example.org:80:80/": "host",
    "http://example.org:\uff18\uff10/": "host",
    "http://example.org:80;/": "host",
    "http://:80/": "host",
    # Hosts
    "http://./": "host",
    "http://../": "host",
    "http://.example.org/": "host",
    "http://example..org/": "host",
    "http://example.org../": "host",
    "http://exam ple.org/": "host",
    "http:// example.org/": "host",
    "http://example.org /": "host",
    "http://example%2eorg/": "host",
    "http://%65xample.org/": "host",
    "http://127.0.0.1%00.example/": "host",
    "http://*.example.org/": "host",
    "http://a,b/": "host",
    "http://a;b/": "host",
    "http://a&b/": "host",
    "http://<b>/": "host",
    'http://a"b/': "host",
    "http://a'b/": "host",
    "http://a|b/": "host",
    "http://a\u3000b/": "host",
    "http://a\u2100b/": "host",
    "http://example.org\uff0f.evil.com/": "host",
    "http://example.org\uff1f.evil.com/": "host",
    "http://example.org\uff03.evil.com/": "host",
    "http://evil.com\uff20example.org/": "host",
    "http://example.org\uff1a80/": "host",
    "http://\ufe68example.org/": "host",
    "http://\ud800.example/": "host",
    "http://\u00ad/": "host",
    "http://\u0301a.example/": "host",
    "http://a\u200db.example/": "host",
    "http://\U0001f468\u200d\U0001f469.example/": "host",
    "http://\u05d0a.example/": "host",
    "http://xn--\u00fc.example/": "host",
    "http://\U0001f3b5\u2100.example/": "host",
    "http://\U0001f3b5\u202e.example/": "host",
    "http://" + "a" * 64 + ".example/": "host",
    "http://" + "\u00fc" * 60 + ".example/": "host",
    f"http://{LONGEST_NAME}c/": "host",
    # Addresses in brackets
    "http://[]/": "host",
    "http://[::1": "host",
    "http://::1]/": "host",
    "http://::1/": "host",
    "http://2001:db8::1/": "host",
    "http://[::1]a/": "host",
    "http://a[::1]/": "host",
    "http://[::1]80/": "host",
    "http://[[::1]]/": "host",
    "http://[127.0.0.1]/": "host",
    "http://[example.org]/": "host",
    "http://[v1.fe80]/": "host",
    "http://[1:2:3]/": "host",
    "http://[::12345]/": "host",
    "http://[::\uff11]/": "host",
    "http://[ ::1]/": "host",
    "http://[::1/64]/": "host",
    "http://[fe80::1%eth0]/": "zone",
    "http://[fe80::1%25eth0]/": "zone",
    "http://[::1%1]:80/": "zone",
    "http://[::1%]/": "host",
    # Control characters
    "http://example.org/\r\nX-Injected: yes": "control",
    "http://example.org/a HTTP/1.1\r\nHost: evil.com\r\n\r\n": "control",
    "http://example.org\r\n/": "control",
    "http://exam\nple.org/": "control",
    "http://exam\tple.org/": "control",
    "ht\ntp://example.org/": "control",
    "http://example.org/\0": "control",
    "http://example.org/\x1b[2J": "control",
    "http://example.org/\x7f": "control",
    "http://example.org/?a\nb": "control",
    "http://example.org/#a\nb": "control",
    "http://example.org/\n": "control",
    "\thttp://example.org/": "control",
}


@pytest.mark.parametrize(("text", "written"), GOOD.items())
def test_a_url_is_read_and_written_as_it_goes_to_the_wire(text: str, written: str) -> None:
    url = parse_url(text)
    assert str(url) == written
    assert parse_url(written) == url


@pytest.mark.parametrize(("text", "why"), BAD.items())
def test_what_is_no_url_to_fetch_is_refused_with_the_reason(text: str, why: str) -> None:
    """Cases 35 and 38."""
    with pytest.raises(ValueError, match=why) as caught:
        parse_url(text)
    assert not isinstance(caught.value, UnicodeError)
    assert str(caught.value).isascii()
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("text", ["http://me:secret@example.org/", "http://secret@[::1/"])
def test_a_refusal_does_not_repeat_a_password(text: str) -> None:
    """Case 42."""
    with pytest.raises(ValueError, match="user name") as caught:
        parse_url(text)
    assert "secret" not in str(caught.value)


def test_the_parts_of_a_url() -> None:
    url = parse_url("HTTPS://Example.org:8443/a/b%20c.mp3?d=/e#f")
    assert url == Url("https", "example.org", 8443, "/a/b%20c.mp3?d=/e")
    assert parse_url("http://[::1]") == Url("http", "::1", 80, "/")


@pytest.mark.parametrize("letter", ["a", "\u00fc", "\ud800"])
def test_a_url_takes_8_kib_and_no_more(letter: str) -> None:
    size = len(letter.encode("utf-8", "surrogatepass"))
    begun = "http://example.org/"
    fitting = begun + letter * ((MAX_URL_BYTES - len(begun)) // size)
    assert parse_url(fitting).host == "example.org"
    with pytest.raises(ValueError, match=f"longer than {MAX_URL_BYTES} bytes"):
        parse_url(fitting + letter)


@pytest.mark.parametrize(
    "text",
    [
        "http://" + "a." * 4000 + "/",
        "http://" + "a" * 8000 + "/",
        "http://" + "a-" * 4000 + "/",
        "http://" + "\u00fc" * 4000 + "/",
        "http://" + "\u00fc." * 2600 + "/",
        "http://" + "\u0661" * 4000 + "/",
        "http://" + "xn--" * 2000 + "\u00fc/",
        "http://xn--" + "a" * 8000 + "\u3002/",
        "http://a\u3002xn--" + "9" * 8000 + "/",
        "http://" + "a\u0301" * 2600 + "/",
        "http://" + "\u06dd" * 4000 + "/",
        "http://[" + ":" * 8000 + "]/",
        "http://[" + "1:" * 4000 + "]/",
        "http://[" + "[" * 8000 + "/",
        "http://a:" + "9" * 8000 + "/",
        "http://a/" + "%" * 8000,
        "http://a/" + "\\" * 8000,
        "http://a/?" + "#" * 8000,
        "a" * 8000,
        " " * 8000 + "x",
    ],
    ids=range(20),
)
def test_the_dearest_url_is_read_at_once(text: str) -> None:
    begun = time.thread_time()
    with contextlib.suppress(ValueError):
        parse_url(text)
    assert time.thread_time() - begun < 0.5


hostile = st.text(
    st.sampled_from("abz019AZ:/?#[]@!$&%\\.-_~ \t\r\n\0\u00fc\uff0f\u3002\u2460\u00ad\ud800\u202e")
    | st.characters(codec=None),
    max_size=30,
)
like_urls = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["http://", "https://", "HTTP:", "http:/", "ftp://", "//", ""]),
    st.sampled_from(["", "a", "example.org", "b\u00fccher.example", "[::1]", "a:80", "u@a"])
    | hostile,
    st.sampled_from(["", "/", ":8080/", "?", "#", "\\"]),
    hostile,
)


def assert_trustworthy(url: Url) -> None:
    """Whatever the code says: two readers cannot differ about it, and it breaks no line."""
    written = str(url)
    assert written.isascii()
    assert written.isprintable()
    assert not set(written) & set(' "<>\\^`{|}#')
    assert url.scheme in ("http", "https")
    assert url.host == url.host.lower()
    assert 1 <= url.port <= 65535
    assert url.target.startswith("/")
    assert "%" not in url.host
    other = urlsplit(written)
    assert other.hostname == url.host
    assert (other.port or {"http": 80, "https": 443}[other.scheme]) == url.port
    assert other.username is other.password is None
    assert written == f"{url.origin}{url.target}"
    assert parse_url(written) == url


@quick
@given(hostile | like_urls | st.text())
def test_any_text_is_a_trustworthy_url_or_a_value_error(text: str) -> None:
    try:
        url = parse_url(text)
    except ValueError as error:
        reason = str(error)
    else:
        assert_trustworthy(url)
        return
    assert reason.isascii()
    assert len(reason.splitlines()) == 1


@quick
@given(hostile)
def test_any_path_and_query_stay_behind_their_host(text: str) -> None:
    assume(not any(ord(letter) < 32 or letter == "\x7f" for letter in text))
    for begun in ("http://example.org/", "http://example.org?", "http://example.org\\"):
        url = parse_url(begun + text)
        assert url.origin == "http://example.org"
        assert_trustworthy(url)


@quick
@given(hostile | st.text())
def test_any_host_is_a_name_in_ascii_or_a_value_error(text: str) -> None:
    try:
        host = normal_host(text)
    except ValueError as error:
        reason = str(error)
    else:
        assert normal_host(host) == host
        assert host.isascii()
        assert set(host) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_.")
        assert all(1 <= len(label) <= 63 for label in host.split("."))
        assert len(host) <= 253
        return
    assert reason == "its host is neither a name nor an address"


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("Example.ORG", "example.org"),
        ("example.org.", "example.org"),
        ("B\u00dccher.example\u3002", "xn--bcher-kva.example"),
        ("\u2460\u2461\u2466.\u24ea.\u24ea.\u2460", "127.0.0.1"),
        ("_dmarc.example.org", "_dmarc.example.org"),
        ("\U0001f3b5-.example.org", "xn----yw2s.example.org"),
        ("\u0646\u0627\u0645\u0647\u200c\u0627\u06cc.example", "xn--mgba3gch31f060k.example"),
    ],
)
def test_a_host_name_has_one_spelling(text: str, host: str) -> None:
    assert normal_host(text) == host


@pytest.mark.parametrize("text", ["", ".", "a..b", "a..", "a b", "a/b", "a:80", "[::1]", "a\n"])
def test_what_is_no_host_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="its host is neither a name nor an address"):
        normal_host(text)


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("http://example.org:80/a?b", "http://example.org"),
        ("https://example.org/", "https://example.org"),
        ("http://example.org:443/", "http://example.org:443"),
        ("https://[::1]/", "https://[::1]"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
    ],
)
def test_an_origin_has_the_port_where_it_is_not_the_schemes_own(text: str, origin: str) -> None:
    url = parse_url(text)
    assert url.origin == origin
    assert url.authority == origin.partition("//")[2]


@pytest.mark.parametrize(
    ("text", "filename"),
    [
        ("http://example.org", b""),
        ("http://example.org/a/", b""),
        ("http://example.org/a.mp3", b"a.mp3"),
        ("http://example.org/a/b%20c.mp3?d=e/f.wav", b"b c.mp3"),
        ("http://example.org?d=e/f.wav", b""),
        ("http://example.org/a.mp3#/b.mp3", b"a.mp3"),
        ("http://example.org/\u00fc.mp3", b"\xc3\xbc.mp3"),
        ("http://example.org/%ff.mp3", b"\xff.mp3"),
        ("http://example.org/100%.mp3", b"100%.mp3"),
        ("http://example.org/a+b.mp3", b"a+b.mp3"),
        ("http://example.org/%252e.mp3", b"%2e.mp3"),
        ("http://example.org/a%2F..%2Fb.mp3", b"a/../b.mp3"),
        ("http://example.org/a/..", b".."),
    ],
)
def test_the_filename_is_the_last_segment_decoded_once(text: str, filename: bytes) -> None:
    """Case 32: it is bytes that somebody else has chosen, and no name yet."""
    assert parse_url(text).filename == filename


# Redirects

AT = parse_url("https://example.org:8443/a/b/c?d=e")

LEADS = {
    "": "https://example.org:8443/a/b/c?d=e",
    "#f": "https://example.org:8443/a/b/c?d=e",
    "?x": "https://example.org:8443/a/b/c?x",
    "x": "https://example.org:8443/a/b/x",
    "./x": "https://example.org:8443/a/b/x",
    "../x": "https://example.org:8443/a/x",
    "../../../../x": "https://example.org:8443/x",
    "/x": "https://example.org:8443/x",
    "/x/../y/.": "https://example.org:8443/y/",
    "/x y\u00fc%": "https://example.org:8443/x%20y%C3%BC%25",
    "  /x  ": "https://example.org:8443/x",
    "?": "https://example.org:8443/a/b/c?",
    "/x?": "https://example.org:8443/x?",
    "x;": "https://example.org:8443/a/b/x;",
    "/x;?y": "https://example.org:8443/x;?y",
    "/x//y": "https://example.org:8443/x//y",
    "..": "https://example.org:8443/a/",
    "/x?../y": "https://example.org:8443/x?../y",
    "//other.example/x": "https://other.example/x",
    "//other.example:81": "https://other.example:81/",
    "//127.0.0.1": "https://127.0.0.1/",
    "http://other.example": "http://other.example/",
    "HTTP://OTHER.example:80/a/../b": "http://other.example/a/../b",
    "http://[::1]/": "http://[::1]/",
    "http://b\u00fccher.example/": "http://xn--bcher-kva.example/",
    "http://other.example\\@example.org/": "http://other.example/%5C@example.org/",
    "\\\\other.example": "https://example.org:8443/a/b/%5C%5Cother.example",
    "/\\other.example": "https://example.org:8443/%5Cother.example",
    "@other.example": "https://example.org:8443/a/b/@other.example",
    ".other.example": "https://example.org:8443/a/b/.other.example",
}

LEADS_NOWHERE = {
    "ftp://other.example/": "only http",
    "file:///etc/passwd": "only http",
    "gopher://127.0.0.1:70/": "only http",
    "data:,x": "only http",
    "javascript:alert(1)": "only http",
    "//user:pw@other.example/": "user name",
    "http://user@other.example/": "user name",
    "http://other.example:0/": "port",
    "http://other.example:99999/": "port",
    "http://[fe80::1%25eth0]/": "zone",
    "http://exam ple.org/": "host",
    "http://[::1/": "host",
    "http://]/": "host",
    "//a\u2100b/": "host",
    "//user:secret@a\u2100b/": "user name",
    "///other.example/x": "no host",
    "/x\r\nSet-Cookie: a=b": "control",
    "/x\ny": "control",
    "/x\ty": "control",
    "\x00/x": "control",
    "/x\x7f": "control",
    "http://other.example/" + "a" * MAX_URL_BYTES: "longer",
    "a" * MAX_URL_BYTES: "longer",
}


@pytest.mark.parametrize(("location", "leads_to"), LEADS.items())
def test_a_location_is_resolved_against_the_url_that_was_fetched(
    location: str, leads_to: str
) -> None:
    assert str(resolve(location, AT)) == leads_to


@pytest.mark.parametrize(
    ("location", "why"), LEADS_NOWHERE.items(), ids=lambda text: ascii(text[:40])
)
def test_a_location_that_is_no_url_to_fetch_is_refused(location: str, why: str) -> None:
    """Cases 39 and 42."""
    with pytest.raises(ValueError, match=why):
        resolve(location, AT)


def test_a_location_is_resolved_against_an_ipv6_address() -> None:
    assert str(resolve("/x", parse_url("http://[::1]:8080/a"))) == "http://[::1]:8080/x"


@quick
@given(hostile | like_urls | st.text(), st.sampled_from(list(GOOD)))
def test_any_location_is_a_trustworthy_url_or_a_value_error(location: str, at: str) -> None:
    try:
        url = resolve(location, parse_url(at))
    except ValueError:
        return
    assert_trustworthy(url)


# Credentials


@pytest.mark.parametrize(
    ("text", "credentials", "rest"),
    [
        ("http://me:secret@example.org/a?b", b"me:secret", "http://example.org/a?b"),
        ("http://me@example.org/", b"me:", "http://example.org/"),
        ("HTTPS://me:secret@[::1]:8443/", b"me:secret", "HTTPS://[::1]:8443/"),
        ("http://me:@example.org", b"me:", "http://example.org"),
        ("http://:secret@example.org", b":secret", "http://example.org"),
        ("http://me:se:cret@example.org", b"me:se:cret", "http://example.org"),
        ("http://m%65:%40%3A%2F@example.org/", b"me:@:/", "http://example.org/"),
        ("http://m\u00fc:\u00e4@example.org/", b"m\xc3\xbc:\xc3\xa4", "http://example.org/"),
        ("http://a:b@example.org/@c", b"a:b", "http://example.org/@c"),
    ],
)
def test_credentials_in_a_url_are_those_of_basic_authentication(
    text: str, credentials: bytes, rest: str
) -> None:
    """Case 42."""
    authorization, url = without_credentials(text)
    assert authorization is not None
    scheme, _, encoded = authorization.partition(" ")
    assert (scheme, b64decode(encoded, validate=True)) == ("Basic", credentials)
    assert url == rest
    assert "@" not in parse_url(url).origin


@pytest.mark.parametrize(
    "text",
    [
        "",
        "http://example.org/",
        "http://example.org/@a",
        "http://example.org?a:b@c",
        "http://example.org#a:b@c",
        "http://example.org\\a:b@c",
        "me:secret@example.org",
        "//me:secret@example.org",
    ],
)
def test_a_url_without_credentials_is_left_as_it_is(text: str) -> None:
    assert without_credentials(text) == (None, text)


@quick
@given(hostile, like_urls)
def test_no_credentials_break_a_header(credentials: str, text: str) -> None:
    """Case 42."""
    try:
        authorization, url = without_credentials(f"http://{credentials}@{text}")
        parse_url(url)
    except ValueError:
        return
    assert authorization is None or (authorization.isascii() and authorization.isprintable())
