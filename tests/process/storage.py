"""Everything that can be asked of a service's storage, for tests in which the storage fails."""

from __future__ import annotations

from collections.abc import Callable

from tests.process.exchange import (
    MULTIPART,
    URLENCODED,
    Answer,
    chunked,
    form,
    head,
    part,
    urlencoded,
)
from tests.process.running import Process
from tests.process.test_uploading import created, patched
from tests.process.uploading import HERE, LENGTH, OFFSET, PART, REST, TUS, metadata

KEPT = "/media/kept/a.wav"
LARGE_BYTES = 2 << 20  # so large that it is looked first whether it can be stored
CONTENT = b"RIFF"


class Storage:
    """A service that stores a file and begins an upload while all is well."""

    def __init__(self, service: Process) -> None:
        self.service = service
        assert service.ask("PUT", KEPT, CONTENT).status == 201
        assert service.ask("PUT", "/media/kept/large.wav", bytes(LARGE_BYTES)).status == 201
        self.upload = created(service, "kept/upload.wav")
        assert patched(service, self.upload, 0, HERE) == 204

    def changes(self) -> dict[str, Callable[[], Answer]]:
        """Each of these changes something, or would."""
        ask = self.service.ask
        a_form = form(part("new", "form.wav", CONTENT), part("other", "form.mp3", CONTENT))
        fields = urlencoded(("directory", "new"), ("filename", "f.wav"), ("body", CONTENT))
        url = f"http://127.0.0.1:{self.service.port}/health"
        imported = urlencoded(("url", url), ("directory", "new"), ("filename", "i.wav"))
        tus = {"Tus-Resumable": "1.0.0"}
        upload_of_new = dict([TUS, LENGTH, *metadata("t.wav", "new")])
        return {
            "put": lambda: ask("PUT", "/media/new/put.wav", CONTENT),
            "put of a large file": lambda: ask("PUT", "/media/new/l.wav", bytes(LARGE_BYTES)),
            "chunked put": self._chunked,
            "replacement": lambda: ask("PUT", KEPT, b"new", {"If-Match": "*"}),
            "form": lambda: ask("POST", "/media", a_form, {"Content-Type": MULTIPART}),
            "fields": lambda: ask("POST", "/media", fields, {"Content-Type": URLENCODED}),
            "import": lambda: ask("POST", "/media", imported, {"Content-Type": URLENCODED}),
            "delete": lambda: ask("DELETE", KEPT),
            "delete on a condition": lambda: ask(
                "DELETE", "/media/kept/large.wav", headers={"If-Match": "*"}
            ),
            "creation": lambda: ask("POST", "/uploads", b"", upload_of_new),
            "creation with upload": lambda: ask(
                "POST", "/uploads", REST, {**upload_of_new, **dict([PART])}
            ),
            "patch": lambda: ask("PATCH", self.upload, REST, dict([TUS, PART, OFFSET])),
            "termination": lambda: ask("DELETE", self.upload, headers=tus),
        }

    def looks(self) -> dict[str, Callable[[], Answer]]:
        """Each of these only looks at the storage."""
        ask = self.service.ask
        tus = dict([TUS])
        return {
            "file that is missing": lambda: ask("GET", "/media/kept/missing.wav"),
            "file that was there": lambda: ask("GET", KEPT),
            "large file that was there": lambda: ask("GET", "/media/kept/large.wav"),
            "head of a file": lambda: ask("HEAD", KEPT),
            "listing": lambda: ask("GET", "/media/kept/"),
            "listing of the root": lambda: ask("GET", "/media/"),
            "how far an upload is": lambda: ask("HEAD", self.upload, headers=tus),
        }

    def is_well(self) -> None:
        """All of it works."""
        for name, look in self.looks().items():
            assert look().status == (404 if "missing" in name else 200), name
        for name, change in self.changes().items():
            assert change().status in (200, 201, 204), name

    def _chunked(self) -> Answer:
        with self.service.connect() as connection:
            connection.send(head("PUT", "/media/new/c.wav", [("Transfer-Encoding", "chunked")]))
            connection.send(chunked([CONTENT, CONTENT]))
            return connection.answer()


def assert_told(name: str, answer: Answer, reason: str) -> None:
    """`answer` says 515, and `reason`."""
    assert answer.status == 503, (name, answer)
    if name != "form":  # whose files fail each for themselves
        assert answer.headers["Retry-After"] is not None, (name, answer)
    if "head" not in name and "how far" not in name:
        assert answer.json["code"] == 515, (name, answer)
        assert answer.json["reason"] == reason, (name, answer)
