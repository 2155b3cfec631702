"""The work of one request on a resumable upload."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from twistedmedia.errors import TooLarge
from twistedmedia.http.body import Body
from twistedmedia.http.tus import Checksum
from twistedmedia.library.caller import Caller
from twistedmedia.library.events import Source
from twistedmedia.library.library import Library
from twistedmedia.library.upload import Upload
from twistedmedia.names import MediaName
from twistedmedia.store.interface import ResumableDraft


@dataclass(frozen=True, slots=True)
class UploadProgress:
    """How far an upload is: `offset` of `length` bytes, None while the length is unknown. An
    unfinished upload is dropped at `expires_s`, in seconds since the epoch. `stored` is its name
    once it is stored. `note` is its spec's.
    """

    upload_id: str
    offset: int
    length: int | None
    note: str
    expires_s: float | None = None
    stored: MediaName | None = None


@dataclass(frozen=True, slots=True)
class UploadPart:
    """What one request adds, from `offset` on. `length` is that of the whole upload, if the request
    tells it.
    """

    offset: int
    body: Body
    length: int | None = None
    checksum: Checksum | None = None


class Resumption:
    """An `upload` that goes on with a `draft` of an earlier request. `synced` bytes of it survive a
    crash of the machine.
    """

    def __init__(
        self, library: Library, caller: Caller, draft: ResumableDraft, sync_bytes: int
    ) -> None:
        """While content is received, it is synced each time that `sync_bytes` are not."""
        self.draft = draft
        self.synced = 0
        self._sync_bytes = sync_bytes
        self.upload = library.begin(
            Source(caller), draft=draft, finish_inspection=partial(_inspect_earlier_bytes, draft)
        )

    async def start(self, name: MediaName) -> int:
        """Go on with the draft, which is to become `name`. Returns its size in bytes.

        :raises MediaError: if that is not possible.
        """
        self.upload.resumed(name)
        resumed = await self.draft.resume()
        self.upload.inspection.resume(resumed.size, resumed.inspection)
        self.synced = resumed.synced
        return resumed.size

    async def receive(
        self, body: Body, length: int | None, *, provisional: bool
    ) -> Exception | None:
        """Write what `body` brings, of an upload that has `length` bytes in all, if that is known.
        Returns why the content ended early, None if it did not.
        """
        upload = self.upload
        size = upload.size
        try:
            async for chunks in body:
                size += sum(map(len, chunks))
                if length is not None and size > length:
                    raise TooLarge(length, "the upload")
                await upload.write(chunks)
                if size - self.synced >= self._sync_bytes and not provisional:
                    await upload.attempt(self.draft.sync())
                    self.synced = upload.size
                upload.raise_failure()
        except Exception as error:  # noqa: BLE001  # it is returned
            return error
        finally:
            await upload.end()
        return None

    async def keep(self, *, synced: bool) -> None:
        """Have the store keep the written bytes for the next request; see `ResumableDraft.keep`.

        :raises MediaError: if the storage fails.
        """
        await self.draft.keep(self.upload.inspection.state, synced=synced)


async def _inspect_earlier_bytes(draft: ResumableDraft, upload: Upload) -> None:
    """Inspect the bytes of earlier requests whose inspection the store has forgotten."""
    inspection = upload.inspection
    if inspection.is_complete:
        return
    inspection.start()
    is_read = False
    while not is_read and upload.failure is None:
        is_read = await upload.attempt(draft.review(inspection.look_at)) is True
    if is_read:
        inspection.catch_up()
