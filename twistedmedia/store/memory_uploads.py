"""Resumable uploads of the memory store. They do not survive the process."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from twisted.internet.defer import Deferred, execute

from twistedmedia.errors import NotFound
from twistedmedia.names import MediaName
from twistedmedia.store.clock_steps import ClockReading, adjusted_time
from twistedmedia.store.interface import (
    Resumed,
    Sealed,
    StoredFile,
    UploadSpec,
    UploadState,
    UploadStatus,
)
from twistedmedia.store.preconditions import Precondition
from twistedmedia.store.validators import UniqueTimestamps

if TYPE_CHECKING:
    from twistedmedia.store.memory import MemoryStore

P = ParamSpec("P")
T = TypeVar("T")


def _done(method: Callable[P, T]) -> Callable[P, Deferred[T]]:
    """`method`, with its result in a Deferred that has fired."""

    @functools.wraps(method)
    def done(*args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        return execute(method, *args, **kwargs)

    return done


@dataclass
class _Upload:
    spec: UploadSpec
    status: UploadStatus
    modified_ns: int
    content: bytearray = field(default_factory=bytearray)  # the bytes that count
    inspection: object | None = None
    etag: str | None = None  # of the file that it has become
    is_held: bool = False  # by a draft, which also gives back its space


class MemoryResumableDrafts:
    """`interface.ResumableDrafts` in a dict."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.uploads: dict[str, _Upload] = {}
        self.timestamps = UniqueTimestamps()
        self._last_reading: ClockReading | None = None

    @_done
    def create(self, upload: str, spec: UploadSpec, etag: str | None = None) -> None:
        status = UploadStatus.UNFINISHED if etag is None else UploadStatus.STORED
        self.uploads[upload] = _Upload(spec, status, self.timestamps.now_ns(), etag=etag)

    @_done
    def find(self, upload: str, *, synced: bool = False, caller: str = "") -> UploadState:
        found = self.get(upload)
        ended = found.status is not UploadStatus.UNFINISHED
        size = found.spec.length or 0 if ended else len(found.content)
        return UploadState(found.spec, found.status, size, found.modified_ns, found.etag)

    def resume(
        self, upload: str, declared: int | None, *, provisional: bool, caller: str = ""
    ) -> MemoryResumableDraft:
        return MemoryResumableDraft(self, upload, declared or 0, provisional)

    @_done
    def declare(self, upload: str, length: int, *, caller: str = "") -> None:
        found = self.get(upload)
        found.spec = replace(found.spec, length=length)

    @_done
    def settle(self, upload: str, etag: str | None, *, caller: str = "") -> None:
        found = self.uploads.get(upload)
        if found is not None and found.status is UploadStatus.UNFINISHED:
            found.status, found.etag = (
                UploadStatus.TAKEN if etag is None else UploadStatus.STORED,
                etag,
            )
            self._drop_content(found)

    @_done
    def forget(self, upload: str, *, caller: str = "") -> bool:
        return self._forget(upload)

    @_done
    def expire(self, before_ns: int, spared: Collection[str] = ()) -> list[str]:
        expired = [
            upload
            for upload, found in self.uploads.items()
            if found.modified_ns < before_ns and not found.is_held and upload not in spared
        ]
        return [upload for upload in expired if self._forget(upload)]

    @_done
    def learn(self) -> None:
        pass

    @_done
    def adjust(self, wall_ns: int, monotonic_ns: int) -> None:
        now = ClockReading("", monotonic_ns, wall_ns)
        step_ns = self._last_reading.step_to(now) if self._last_reading else 0
        for upload in self.uploads.values():
            upload.modified_ns = adjusted_time(upload.modified_ns, step_ns, wall_ns)
        self._last_reading = now

    @_done
    def callers(self) -> dict[str, str]:
        return {
            upload: found.spec.caller
            for upload, found in self.uploads.items()
            if found.status is UploadStatus.UNFINISHED
        }

    def get(self, upload: str) -> _Upload:
        """:raises NotFound: if it does not exist."""
        try:
            return self.uploads[upload]
        except KeyError:
            raise NotFound("there is no such upload; it may have expired") from None

    def _forget(self, upload: str) -> bool:
        found = self.uploads.pop(upload, None)
        if found is not None:
            self._drop_content(found)
        return found is not None

    def _drop_content(self, upload: _Upload) -> None:
        if not upload.is_held:
            self.store.take(-len(upload.content))
        upload.content = bytearray()


class MemoryResumableDraft:
    """`interface.ResumableDraft` over the bytes of an upload. While it is in use, it has taken the
    space of these and of the declared bytes.
    """

    def __init__(
        self, drafts: MemoryResumableDrafts, upload: str, declared: int, provisional: bool
    ) -> None:
        self._drafts = drafts
        self._store = drafts.store
        self._id = upload
        self._declared = declared
        self._provisional = provisional
        self._held: _Upload | None = None
        self._content = bytearray()
        self._began_at = self._reserved = self._reviewed = 0

    @_done
    def resume(self) -> Resumed:
        upload = self._drafts.get(self._id)
        if upload.status is not UploadStatus.UNFINISHED or upload.is_held:
            raise NotFound("there is no such upload; it may have expired")
        self._store.take(self._declared)
        size = len(upload.content)
        self._held, upload.is_held = upload, True
        self._content = bytearray(upload.content) if self._provisional else upload.content
        self._began_at, self._reserved = size, size + self._declared
        inspection, upload.inspection = upload.inspection, None
        self._reviewed = 0 if inspection is None else size
        return Resumed(size, size, inspection)

    @_done
    def prepare(self, name: MediaName, replacing: Precondition | None = None) -> None:
        self._store.check(name, replacing)

    @_done
    def append(self, chunks: Iterable[bytes]) -> None:
        upload = self._require()
        for chunk in chunks:
            size = len(self._content) + len(chunk)
            if size > self._reserved:
                self._store.take(size - self._reserved)
                self._reserved = size
            if self._reviewed == len(self._content):
                self._reviewed = size
            self._content += chunk
            upload.modified_ns = self._drafts.timestamps.now_ns()

    @_done
    def review(self, take: Callable[[bytes], object]) -> bool:
        self._require()
        take(bytes(self._content[self._reviewed :]))
        self._reviewed = len(self._content)
        return True

    @_done
    def seal(self) -> Sealed:
        return self._sealed()

    @_done
    def publish(self, name: MediaName, replacing: Precondition | None = None) -> StoredFile:
        upload, sealed = self._require(), self._sealed()
        media = self._store.publish(name, bytes(self._content), replacing)
        upload.status, upload.etag, upload.content = UploadStatus.STORED, media.etag, bytearray()
        self._reserved -= sealed.size  # which are the media's
        self.discard()
        return StoredFile(name, sealed.size, sealed.sha256, media.etag)

    @_done
    def sync(self) -> None:
        self._require()

    @_done
    def keep(self, inspection: object | None, *, synced: bool) -> None:
        upload = self._require()
        upload.content, upload.inspection = self._content, inspection
        self.discard()

    @_done
    def release(self, *, undo: bool) -> None:
        if undo and self._held is not None:
            del self._content[self._began_at :]
        self.discard()

    def discard(self) -> None:
        if self._held is not None:
            upload, self._held = self._held, None
            upload.is_held = False
            if self._drafts.uploads.get(self._id) is not upload:  # dropped meanwhile
                upload.content = bytearray()
            self._store.take(len(upload.content) - self._reserved)

    def _require(self) -> _Upload:
        if self._held is None:
            raise RuntimeError("this draft was discarded")
        return self._held

    def _sealed(self) -> Sealed:
        self._require()
        if self._reviewed != len(self._content):
            raise RuntimeError("review what earlier requests have written before sealing")
        return Sealed(len(self._content), hashlib.sha256(self._content).hexdigest())
