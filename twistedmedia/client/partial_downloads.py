"""A download that is not complete: a hidden file beside the target, and a note of what it is.

The functions block: `downloading` calls them in threads, one at a time.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from twistedmedia.client.exceptions import LocalFailure, local_failure
from twistedmedia.client.local_files import path_of
from twistedmedia.client.local_folders import Folder, names_below

_MAX_NAME_BYTES = 255  # what Linux file systems take for one name
_READ_AT_A_TIME_BYTES = 256 << 10
_MAX_NOTE_BYTES = 64 << 10  # a URL and an entity tag, each from a head of at most this size


@dataclass(frozen=True, slots=True)
class PartialNote:
    """Which file at the service the part is of: resumed only while it still is that one."""

    url: str
    etag: str
    size: int


class PartialDownload:
    """The part of `target`, open and locked. `size` is how many bytes of `note`'s file it has."""

    note: PartialNote | None = None
    size: int = 0

    def __init__(self, path: str | Path, within: str | Path | None = None) -> None:
        """Open the part that an earlier attempt has left, or begin one.

        If `path` itself is a link, it is followed, since the caller means what it leads to. With
        `within`, a folder that `path` is in, no link below that folder is followed, and missing
        folders below it are made.

        :raises LocalFailure: when that is not possible, or another download writes this file.
        """
        self._descriptor = -1
        self._folder: Folder | None = None
        try:
            self.target = self._enter(path_of(path), None if within is None else path_of(within))
            self._part, self._note = _names(self.target.name)
            self._in.check_target(self.target.name)
            self._descriptor = self._locked()
            self.note = _note(self._in.read(self._note, _MAX_NOTE_BYTES))
            self.size = os.fstat(self._descriptor).st_size if self.note else 0
        except (OSError, ValueError) as error:
            self.close()
            raise local_failure(error, path) from None
        except LocalFailure:
            self.close()
            raise

    def begin(self, note: PartialNote | None) -> None:
        """Begin anew, with the file that `note` is of; without a note it cannot be resumed."""
        os.ftruncate(self._descriptor, 0)  # first: a note is never of other bytes
        self.size, self.note = 0, note
        self._in.remove(self._note)
        if note is not None:  # half of one, after a crash, is not JSON, and so is not a note
            self._in.create(self._note, json.dumps(asdict(note)).encode())

    def free_bytes(self) -> int | None:
        """How many more bytes there is space for; None if that is not known."""
        return self._in.free_bytes()

    def cut(self, size: int) -> None:
        """Drop all from `size` bytes on."""
        os.ftruncate(self._descriptor, size)
        self.size = size

    def write(self, pieces: list[bytes], digest: Any) -> None:
        """Append `pieces`, and hash them."""
        for piece in pieces:
            digest.update(piece)
            view = memoryview(piece)
            while view:
                written = os.pwrite(self._descriptor, view, self.size)
                self.size += written
                view = view[written:]

    def digest(self) -> Any:
        """A SHA-256 of what is there, which can be gone on with."""
        digest = hashlib.sha256()
        offset = 0
        while offset < self.size:
            piece = os.pread(
                self._descriptor, min(_READ_AT_A_TIME_BYTES, self.size - offset), offset
            )
            if not piece:
                break
            digest.update(piece)
            offset += len(piece)
        return digest

    def publish(self) -> None:
        """Give it the target's name, on stable storage, and close it.

        :raises LocalFailure: when another file has the name of the part by now.
        """
        os.fsync(self._descriptor)
        if not self._in.is_open_as(self._part, self._descriptor):
            raise LocalFailure(
                f"{self.target}: another program has removed or replaced {self._part} in the same"
                " folder while the file was downloaded; download it again"
            )
        self._in.rename(self._part, self.target.name)
        self._in.remove(self._note)
        self._in.sync()
        self.close()

    def stop(self) -> None:
        """A job that runs ends by itself."""

    def close(self) -> None:
        """Close it; what cannot be resumed, or is empty, is removed. Idempotent."""
        descriptor, self._descriptor = self._descriptor, -1
        folder, self._folder = self._folder, None
        if folder is None:
            return
        try:
            is_useless = self.note is None or self.size == 0
            if descriptor >= 0 and is_useless and folder.is_open_as(self._part, descriptor):
                with suppress(OSError, LocalFailure):
                    folder.remove(self._part)
                    folder.remove(self._note)
        finally:
            if descriptor >= 0:
                os.close(descriptor)
            folder.close()

    @property
    def _in(self) -> Folder:
        assert self._folder is not None, "it is closed"
        return self._folder

    def _enter(self, path: str, within: str | None) -> Path:
        """Open the folder of `path`. Returns the target."""
        if within is None:
            target = Path(os.path.realpath(path))
            self._folder = Folder(str(target.parent))
            return target
        *folders, _ = names_below(path, within)
        self._folder = Folder(within)
        self._folder.enter(folders)
        return Path(path)

    def _locked(self) -> int:
        while True:
            try:
                descriptor = self._in.open(self._part)
            except FileNotFoundError:  # another download has just given it its final name
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Between opening and locking another download may have given it its final name.
                if self._in.is_open_as(self._part, descriptor):
                    return descriptor
            except BlockingIOError:
                os.close(descriptor)
                raise LocalFailure(
                    f"{self.target.with_name(self._part)}: another download writes this file"
                ) from None
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)


def _names(target: str) -> tuple[str, str]:
    part, note = f".{target}.part", f".{target}.part.json"
    if len(os.fsencode(note)) > _MAX_NAME_BYTES:
        stem = hashlib.sha256(os.fsencode(target)).hexdigest()
        part, note = f".{stem}.part", f".{stem}.part.json"
    return part, note


def _note(content: bytes | None) -> PartialNote | None:
    try:
        found = json.loads(content or b"")
        note = PartialNote(found["url"], found["etag"], found["size"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    strings = isinstance(note.url, str) and isinstance(note.etag, str)
    return note if strings and isinstance(note.size, int) else None
