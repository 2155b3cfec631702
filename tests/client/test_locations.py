"""URLs of services, and media names as people write them."""

from __future__ import annotations

import pytest

from twistedmedia.client import ClientError, LocalFailure, NotAService
from twistedmedia.client.locations import folders_at, name_at, service


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://my_media:8000/", "http://my_media:8000"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("http://[0:0::1]/", "http://[::1]"),
        ("HTTPS://Example.ORG:443", "https://example.org"),
        ("http://tonstudio-müller.example", "http://xn--tonstudio-mller-9vb.example"),
        ("http://example.org/audio", "http://example.org/audio"),
        ("http://example.org/audio/", "http://example.org/audio"),
        ("http://example.org/media/audio", "http://example.org/media/audio"),
        ("http://example.org/uploads/audio", "http://example.org/uploads/audio"),
        ("http://example.org/v1.0/audio", "http://example.org/v1.0/audio"),
        ("http://example.org/mediathek", "http://example.org/mediathek"),
    ],
)
def test_a_service_can_have_any_host_and_be_below_a_path(written: str, url: str) -> None:
    """Case 74."""
    assert service(written).url == url


@pytest.mark.parametrize(
    ("written", "right"),
    [
        ("http://h:8000/media", "http://h:8000"),
        ("http://h:8000/media/", "http://h:8000"),
        ("http://h:8000/uploads", "http://h:8000"),
        ("http://h:8000/uploads/", "http://h:8000"),
        ("http://h:8000/uploads/" + "0f" * 16, "http://h:8000"),
        ("http://h:8000/media/a/b.wav", "http://h:8000"),
        ("http://h:8000/media/prompts/en/b%20c.wav", "http://h:8000"),
        ("http://h:8000/media/a/b.wav?download", "http://h:8000"),
        ("http://h:8000/health", "http://h:8000"),
        ("http://h:8000/ready", "http://h:8000"),
        ("http://h:8000/fetch?url=http://e/", "http://h:8000"),
        ("http://h:8000/openapi.json", "http://h:8000"),
        ("http://h/audio/health/", "http://h/audio"),
        ("http://h/audio/media", "http://h/audio"),
        ("http://h/audio/media/a/b.wav", "http://h/audio"),
        ("http://my_media:8000/media", "http://my_media:8000"),
        ("http://[::1]:8000/media/a/b.wav", "http://[::1]:8000"),
    ],
)
def test_a_resource_of_a_service_is_refused_with_the_right_url(written: str, right: str) -> None:
    """Case 75."""
    with pytest.raises(NotAService) as caught:
        service(written)
    assert caught.value.reason.endswith(f"the URL of the service itself is {right}")


@pytest.mark.parametrize("url", [None, 5, b"http://h", "", "ftp://h", "http://h h", "http://[::1"])
def test_an_invalid_url_is_a_client_error_and_a_value_error(url: object) -> None:
    for kind in (ClientError, ValueError):
        with pytest.raises(kind):
            service(url)  # type: ignore[arg-type]


@pytest.mark.parametrize("scheme", ["http", "ftp"])
def test_a_password_is_never_shown(scheme: str) -> None:
    with pytest.raises(NotAService) as caught:
        service(f"{scheme}://user:secret@h/media")
    assert "secret" not in caught.value.reason
    assert "user:" not in caught.value.reason


def test_a_name_may_begin_with_a_slash() -> None:
    assert str(name_at("/prompts/en/a.wav")) == str(name_at("prompts/en/a.wav"))
    assert folders_at("/prompts/en") == folders_at("prompts/en/") == ("prompts", "en")
    assert folders_at("/") == folders_at("") == ()
    for wrong in ("//a/b.wav", "/../b.wav", "/a//b/c.wav"):
        with pytest.raises(LocalFailure):
            name_at(wrong)
    for wrong in ("//a", "/..", "/a/..", "/a//b"):
        with pytest.raises(LocalFailure):
            folders_at(wrong)
