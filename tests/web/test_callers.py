"""Each call of the store names the caller that has sent the request."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from twisted.internet.address import IPv4Address

from tests.http.connection import Connection, result
from tests.web.test_tus_uploads import HELLO, SHA256, TUS, WHOLE, Service, metadata
from twistedmedia.http.header_fields import repr_digest
from twistedmedia.http.site import MediaSite
from twistedmedia.library.library import Library
from twistedmedia.library.resumable import ResumableUploads
from twistedmedia.library.upload_limits import UploadLimits
from twistedmedia.store.interface import UploadSpec
from twistedmedia.store.memory import MemoryStore
from twistedmedia.web.tree import media_resource

CLIENT = "192.0.2.7"
MEDIA = "/media/prompts/en/hello.mp3"
DIGEST = f"Repr-Digest: {repr_digest(SHA256)}"
NAMED = metadata(filename="hello.mp3", directory="prompts/en")
NAMED_WITH_DIGEST = metadata(filename="hello.mp3", directory="prompts/en", sha256=SHA256)


class Noting:
    """Passes calls on, and records their callers."""

    def __init__(self, inner: Any, noted: list[tuple[str, str]]) -> None:
        self._inner = inner
        self._noted = noted

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        if "caller" not in inspect.signature(method).parameters:
            return method

        def note(*args: Any, **options: Any) -> Any:
            given = inspect.signature(method).bind(*args, **options).arguments
            self._noted.append((name, given.get("caller", "nobody")))
            return method(*args, **options)

        return note


class NotedService(Service):
    """A service whose store records the caller of each call."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[tuple[str, str]] = []
        self.store = inner = MemoryStore()
        store: Any = Noting(inner, self.noted)
        library = Library(store, UploadLimits())
        kept: Any = Noting(inner.resumable, self.noted)
        self.site = MediaSite(
            media_resource(library, uploads=ResumableUploads(library, kept)), reactor=self.clock
        )

    def connect(self) -> Connection:
        return Connection(self.site, self.clock, None, IPv4Address("TCP", CLIENT, 50_000))

    def stored(self) -> None:
        assert self.ask("PUT", MEDIA, content=WHOLE).status == 201

    def asked_for(self) -> set[str]:
        """The methods of the store that were called since the last look, all for the client."""
        methods = {method for method, _ in self.noted}
        assert {caller for _, caller in self.noted} <= {CLIENT}
        self.noted.clear()
        return methods


@pytest.fixture
def service() -> NotedService:
    return NotedService()


def test_files(service: NotedService) -> None:
    service.stored()
    assert service.asked_for() == {"begin"}
    assert service.ask("GET", MEDIA).content == WHOLE
    assert service.asked_for() == {"open"}
    assert service.ask("HEAD", MEDIA).status == 200
    assert service.asked_for() == {"open"}
    assert service.ask("PUT", MEDIA, DIGEST, content=WHOLE).status == 200
    assert service.asked_for() == {"begin", "recognise"}
    assert service.ask("DELETE", MEDIA).status == 200
    assert service.ask("DELETE", "/media?directory=prompts/en&filename=hello.mp3").status == 200
    assert service.asked_for() == {"delete"}


def test_resumable_uploads(service: NotedService) -> None:
    upload = service.created(target="/uploads")
    assert service.asked_for() == {"begin"}  # the spec has the caller
    assert service.ask("HEAD", upload, TUS).status == 200
    assert service.asked_for() == {"find"}
    deferred = service.created("Upload-Defer-Length: 1")
    assert service.patch(deferred, 0, WHOLE[:5], "Upload-Length: 11").status == 204
    assert service.asked_for() == {"begin", "find", "resume", "declare"}
    assert service.patch(upload, 0, WHOLE).status == 204
    assert service.asked_for() == {"find", "resume"}
    assert service.ask("HEAD", upload, TUS).status == 200
    assert service.asked_for() == {"find", "open"}
    assert service.patch(deferred, 5, WHOLE[5:]).status == 410  # the name is taken
    assert service.asked_for() == {"find", "resume", "settle"}
    assert service.ask("DELETE", deferred, TUS).status == 204
    assert service.asked_for() == {"forget"}


def test_a_resumable_upload_of_a_file_that_is_stored_already(service: NotedService) -> None:
    upload = service.created(NAMED_WITH_DIGEST)
    service.stored()
    service.noted.clear()
    assert service.patch(upload, 0, WHOLE).status == 204
    assert service.asked_for() == {"find", "resume", "recognise", "settle"}


def test_a_complete_upload_that_was_not_published(service: NotedService) -> None:
    """The service was killed. The upload is published when a client asks for its offset."""
    upload = "a" * 32
    kept = service.store.resumable
    result(kept.create(upload, UploadSpec(HELLO, len(WHOLE), None, CLIENT, "")))
    draft = kept.resume(upload, None, provisional=False)
    result(draft.resume())
    result(draft.append([WHOLE]))
    result(draft.keep(None, synced=True))
    assert service.ask("HEAD", f"/uploads/{upload}", TUS).status == 200
    assert service.asked_for() == {"find", "resume"}
    assert service.ask("GET", MEDIA).content == WHOLE
