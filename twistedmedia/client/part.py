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

from twistedmedia.client.errors import LocalFailure, local_failure
from twistedmedia.client.files import path_of

_MAX_NAME_BYTES = 255  # what Linux file systems take for one name
_READ_AT_A_TIME_BYTES = 256 << 10


@dataclass(frozen=True, slots=True)
class Note:
    """Which file at the service the part is of: resumed only while it still is that one."""

    url: str
    etag: str
    size: int


class Part:
    """The part of `target`, open and locked. `size` is how many bytes of `note`'s file it has."""

    note: Note | None = None
    size: int = 0

    def __init__(self, path: str | Path) -> None:
        """Open what an earlier attempt has left, or begin.

        :raises LocalFailure: when that cannot be, or another download of the same goes on.
        """
        # A link is followed: what it leads to is what is meant.
        try:
            self.target = target = Path(os.path.realpath(path_of(path)))
        except ValueError as error:
            raise local_failure(error, path) from None
        self._path, self._note_path = _names(target)
        self._descriptor = -1
        try:
            if target.is_dir():
                raise LocalFailure(f"{target}: is a directory")
            if target.exists() and not target.is_file():  # nor is a device to be replaced by one
                raise LocalFailure(f"{target}: is not a regular file")
            self._descriptor = _locked(self._path)
            self.note = _read_note(self._note_path)
            self.size = os.fstat(self._descriptor).st_size if self.note else 0
        except OSError as error:
            self.close()
            raise local_failure(error, target) from None
        except LocalFailure:
            self.close()
            raise

    def begin(self, note: Note | None) -> None:
        """Begin anew, with the file that `note` is of; without a note it cannot be resumed."""
        os.ftruncate(self._descriptor, 0)  # first: a note is never of other bytes
        self.size, self.note = 0, note
        self._note_path.unlink(missing_ok=True)
        if note is not None:
            draft = self._note_path.with_name(self._note_path.name + "~")
            draft.write_text(json.dumps(asdict(note)), encoding="utf-8")
            draft.replace(self._note_path)

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
        """Give it the target's name, on stable storage, and close it."""
        os.fsync(self._descriptor)
        self._path.replace(self.target)
        self._note_path.unlink(missing_ok=True)
        folder = os.open(self.target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self.close()

    def discard(self) -> None:
        """Remove it."""
        self._path.unlink(missing_ok=True)
        self._note_path.unlink(missing_ok=True)
        self.close()

    def stop(self) -> None:
        """A job that runs ends by itself."""

    def close(self) -> None:
        """Close it; what cannot be resumed, or is empty, is removed. Idempotent."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        try:
            if self.note is None or self.size == 0:
                with suppress(OSError):
                    if os.fstat(descriptor).st_ino == os.stat(self._path).st_ino:
                        self._path.unlink()
                        self._note_path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


def _locked(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between opening and locking another download may have given it its final name.
            if os.path.exists(path) and os.fstat(descriptor).st_ino == os.stat(path).st_ino:
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise LocalFailure(f"{path}: another download writes this file") from None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _names(target: Path) -> tuple[Path, Path]:
    part, note = f".{target.name}.part", f".{target.name}.part.json"
    if len(os.fsencode(note)) + 1 > _MAX_NAME_BYTES:
        stem = hashlib.sha256(os.fsencode(target.name)).hexdigest()
        part, note = f".{stem}.part", f".{stem}.part.json"
    return target.with_name(part), target.with_name(note)


def _read_note(path: Path) -> Note | None:
    try:
        found = json.loads(path.read_bytes())
        note = Note(found["url"], found["etag"], found["size"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    strings = isinstance(note.url, str) and isinstance(note.etag, str)
    return note if strings and isinstance(note.size, int) else None
