"""A success or a failure as the JSON that docs/http.md promises.

Pure. Every answer has `code` and `reason`, a true HTTP status, and is never cached when it is an
error.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from twistedmedia.errors import InternalError, MediaError
from twistedmedia.names import MediaName

encode = json.JSONEncoder(ensure_ascii=False).encode

OK = {"code": 200, "reason": "OK"}


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP status, a JSON object, and headers beside those of every answer."""

    status: int
    payload: Mapping[str, Any]
    extra_headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def body(self) -> bytes:
        """UTF-8, on one line, with its line break."""
        return encode(self.payload).encode("utf-8", "backslashreplace") + b"\n"

    @property
    def headers(self) -> dict[str, str]:
        """All headers but the length of the body."""
        headers = {
            "Content-Type": "application/json",
            "X-Content-Type-Options": "nosniff",
            **self.extra_headers,
        }
        if self.status >= 400:
            headers["Cache-Control"] = "no-store"
        return headers


@dataclass(frozen=True, slots=True)
class FileOutcome:
    """What became of one file: it was stored, or `failure` says why not. `identical`: it was stored
    before, with the content that was declared. `problem` is what is wrong with it as audio.
    """

    directory: str
    filename: str
    name: MediaName | None = None
    size: int = 0
    sha256: str = ""
    etag: str = ""
    failure: MediaError | None = None
    identical: bool = False
    replaced: bool = False
    problem: str | None = None


def error_answer(error: MediaError) -> Answer:
    """The answer to a request that failed as a whole."""
    payload = {"code": error.code, "reason": error.reason}
    if isinstance(error, InternalError):
        payload["incident"] = error.incident
    return Answer(error.status, payload, error.headers)


def stored_answer(
    files: Sequence[FileOutcome],
    url_of: Callable[[MediaName], str],
    more_headers: Mapping[str, str] | None = None,
) -> Answer:
    """The answer to an upload of one file or more, in their order."""
    entries = [_entry(file, url_of) for file in files]
    failures = [file.failure for file in files if file.failure is not None]
    if not failures:
        created = any(not (file.identical or file.replaced) for file in files)
        headers = {**(more_headers or {})}
        if len(files) == 1:
            headers["ETag"] = files[0].etag
        if created and len(files) == 1:
            headers["Location"] = entries[0]["url"]
        return Answer(201 if created else 200, {**OK, "files": entries}, headers)
    first = failures[0]
    status = first.status if len(failures) == len(files) else 207
    return Answer(status, {"code": first.code, "reason": first.reason, "files": entries})


def fetched_answer(
    url: str,
    status: int,
    size: int,
    timings: Mapping[str, float | None],
    cache: str,
    headers: Mapping[str, str],
) -> Answer:
    """The answer to a fetch: where it has led, and what it has cost."""
    payload = {
        **OK,
        "url": url,
        "status": status,
        "size": size,
        "time_cost": timings["total"],
        "timings": timings,
        "cache": cache,
    }
    return Answer(200, payload, headers)


def deleted_answer(deleted: bool) -> Answer:
    """The answer to a delete; `deleted` is whether there was such a file."""
    return Answer(200, {**OK, "deleted": deleted})


def _entry(file: FileOutcome, url_of: Callable[[MediaName], str]) -> dict[str, Any]:
    named = {"directory": file.directory, "filename": file.filename}
    if file.failure is not None:
        return {"code": file.failure.code, "reason": file.failure.reason, **named}
    assert file.name is not None
    entry = {
        **OK,
        **named,
        "url": url_of(file.name),
        "size": file.size,
        "sha256": file.sha256,
        "etag": file.etag,
    }
    if file.identical:
        entry["identical"] = True
    elif file.replaced:
        entry["replaced"] = True
    if file.problem is not None:
        entry["audio"] = {"ok": False, "problem": file.problem}
    return entry
