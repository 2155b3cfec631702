"""A service whose storage goes away under it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import pytest

from tests.process.running import Process, eventually
from tests.process.storage import KEPT, Storage, assert_told

IMPORTS = ("--fetch-allow", "127.0.0.0/8")
NOT_WRITTEN = "the storage cannot be written: its root folder is gone"
NOT_READ = "the storage cannot be read: its root folder is gone"
ANOTHER = (
    "another folder is in the place of its root; mount the right one, or start the service again to"
    " use this one"
)


def log_lines(service: Process, text: str) -> list[str]:
    return [line for line in service.log.splitlines() if text in line]


def has_draft(service: Process) -> bool:
    """Whether a file without a name, or a hidden one, is open in the root."""
    drafts = (f"{service.root}/#", f"{service.root}/.twistedmedia/drafts/")
    return any(path.startswith(drafts) for path in service.descriptors().values())


def test_a_root_that_was_removed_is_told_by_everything(serve: Callable[..., Process]) -> None:
    """Cases 79 and 92: in half a second, with a line in the log, no traceback, and no path of the
    host.
    """
    service = serve(*IMPORTS)
    storage = Storage(service)
    shutil.rmtree(service.root)
    for name, change in storage.changes().items():
        reason = NOT_READ if name == "patch" else NOT_WRITTEN  # whose record is read first
        assert_told(name, change(), reason)
    for name, look in storage.looks().items():
        assert_told(name, look(), NOT_READ)
    health = service.ask("GET", "/health")
    assert (health.status, health.json["storage"]) == (200, NOT_READ)
    assert_told("ready", service.ask("GET", "/ready"), NOT_READ)
    assert_told("head of ready", service.ask("HEAD", "/ready"), NOT_READ)
    assert not os.path.lexists(service.root)
    assert "incident" not in service.log
    assert len(log_lines(service, NOT_READ)) == 1
    (upload,) = log_lines(service, "not stored: 'new/put.wav'")
    assert upload.endswith(f"{NOT_WRITTEN}")


def test_a_root_that_comes_back_is_well_again(serve: Callable[..., Process]) -> None:
    """Case 79: what was moved away and back, or unmounted and mounted again at the same place."""
    service = serve(*IMPORTS)
    storage = Storage(service)
    assert service.ask("GET", "/health").json["storage"] == "ok"
    away = service.root.with_name("away")
    service.root.rename(away)
    assert_told("put", service.ask("PUT", "/media/new/x.wav", b"x"), NOT_WRITTEN)
    eventually("it is known", lambda: service.ask("GET", "/ready").status == 503)
    assert service.ask("GET", KEPT).status == 200  # what is there can be read
    away.rename(service.root)
    eventually("it is ready", lambda: service.ask("GET", "/ready").status == 200)
    assert service.ask("GET", "/health").json["storage"] == "ok"
    storage.is_well()


def test_a_root_that_another_folder_replaces_gets_nothing(serve: Callable[..., Process]) -> None:
    """Case 79: the file would be in neither of the two when the service starts again."""
    service = serve()
    away = service.root.with_name("away")
    service.root.rename(away)
    service.root.mkdir()
    answer = service.ask("PUT", "/media/new/x.wav", b"x")
    assert_told("put", answer, f"the storage cannot be written: {ANOTHER}")
    assert os.listdir(service.root) == []
    assert os.listdir(away) == [".twistedmedia"]


def test_a_link_to_itself_in_the_place_of_the_root_is_a_storage_that_fails(
    serve: Callable[..., Process],
) -> None:
    """Case 79: whatever is there, `/health` answers 200."""
    service = serve()
    service.root.rename(service.root.with_name("away"))
    service.root.symlink_to(service.root.name)
    health = service.ask("GET", "/health")
    assert (health.status, health.json["storage"]) == (200, NOT_READ)
    assert_told("ready", service.ask("GET", "/ready"), NOT_READ)
    assert_told("missing", service.ask("GET", "/media/a/none.mp3"), NOT_READ)
    assert "incident" not in service.log


def test_a_root_that_is_moved_during_an_upload_stores_nothing(
    serve: Callable[..., Process],
) -> None:
    """Cases 79 and 92: a success would be of a file that nobody finds."""
    service = serve()
    away = service.root.with_name("away")
    with service.connect() as sending:
        head = (
            "PUT /media/a/slow.mp3 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3000005\r\n\r\n"
        )
        sending.send(head.encode() + bytes(3_000_000))
        eventually("it has a draft", lambda: has_draft(service))
        service.root.rename(away)
        service.root.mkdir()
        sending.send(b"world")
        answer = sending.answer("PUT")
    assert_told("put", answer, f"the storage cannot be written: {ANOTHER}")
    assert os.listdir(service.root) == []
    assert os.listdir(away) == [".twistedmedia"]


def test_a_folder_that_an_administrator_removes_is_made_again(
    serve: Callable[..., Process],
) -> None:
    """Case 79."""
    service = serve()
    assert service.ask("PUT", KEPT, b"first").status == 201
    shutil.rmtree(service.root / "kept")
    assert service.ask("GET", KEPT).status == 404
    assert service.ask("PUT", KEPT, b"again").status == 201
    assert service.ask("GET", KEPT).content == b"again"
    assert service.ask("GET", "/health").json["storage"] == "ok"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_service_that_is_well_is_ready(service: Process, method: str) -> None:
    answer = service.ask(method, "/ready")
    assert answer.status == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.content == (b'{"code": 200, "reason": "OK"}\n' if method == "GET" else b"")
    assert service.ask("PUT", "/ready", b"x").brief == (405, 405)
