"""An incomplete download: a hidden file beside the target, and a note of what it contains.

The functions block: `downloader` calls them in threads, one at a time.
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
from twistedmedia.client.local_files import check_path
from twistedmedia.client.local_folders import Folder, names_below

_MAX_NAME_BYTES = 255  # of Linux file systems, for one name
_READ_BYTES = 256 << 10
_MAX_NOTE_BYTES = 64 << 10  # a URL and an entity tag, each from a head of at most this size


@dataclass(frozen=True, slots=True)
class PartialDownloadInfo:
    """The file that is being downloaded. The download is resumed only if it has not changed."""

    url: str
    etag: str
    size: int


class PartialDownload:
    """The incomplete download of `target`, open and locked. `size` is the number of bytes that it
    has of the file that `info` describes.
    """

    info: PartialDownloadInfo | None = None
    size: int = 0

    def __init__(self, path: str | Path, within: str | Path | None = None) -> None:
        """Open what an earlier attempt has left, or create a new file.

        A link at `path` is followed, since the caller means its target. With `within`, a folder
        that contains `path`, no link below that folder is followed, and missing folders below it
        are created.

        :raises LocalFailure: when that fails, or another download writes this file.
        """
        self._descriptor = -1
        self._folder: Folder | None = None
        try:
            self.target = self._enter(
                check_path(path), None if within is None else check_path(within)
            )
            self._part_name, self._note_name = _hidden_names(self.target.name)
            self._in.check_target(self.target.name)
            self._descriptor = self._open_locked()
            self.info = _parse_note(self._in.read(self._note_name, _MAX_NOTE_BYTES))
            self.size = os.fstat(self._descriptor).st_size if self.info else 0
        except (OSError, ValueError) as error:
            self.close()
            raise local_failure(error, path) from None
        except LocalFailure:
            self.close()
            raise

    def restart(self, info: PartialDownloadInfo | None) -> None:
        """Start again with the file that `info` describes. With None it cannot be resumed."""
        os.ftruncate(self._descriptor, 0)  # first: a note never describes other bytes
        self.size, self.info = 0, info
        self._in.remove(self._note_name)
        if info is not None:  # after a crash, half a note is invalid JSON and is ignored
            self._in.create(self._note_name, json.dumps(asdict(info)).encode())

    def free_bytes(self) -> int | None:
        """The free space in bytes, or None if it is unknown."""
        return self._in.free_bytes()

    def truncate(self, size: int) -> None:
        """Keep only the first `size` bytes."""
        os.ftruncate(self._descriptor, size)
        self.size = size

    def write(self, pieces: list[bytes], digest: Any) -> None:
        """Append `pieces`, and add them to `digest`."""
        for piece in pieces:
            digest.update(piece)
            view = memoryview(piece)
            while view:
                written = os.pwrite(self._descriptor, view, self.size)
                self.size += written
                view = view[written:]

    def digest(self) -> Any:
        """A SHA-256 hash object of the bytes so far."""
        digest = hashlib.sha256()
        offset = 0
        while offset < self.size:
            piece = os.pread(self._descriptor, min(_READ_BYTES, self.size - offset), offset)
            if not piece:
                break
            digest.update(piece)
            offset += len(piece)
        return digest

    def publish(self) -> None:
        """Sync the file, rename it to the target, and close it.

        :raises LocalFailure: when the hidden file has been removed or replaced.
        """
        os.fsync(self._descriptor)
        if not self._in.is_open_as(self._part_name, self._descriptor):
            raise LocalFailure(
                f"{self.target}: another program has removed or replaced {self._part_name} in the"
                " same folder during the download; download it again"
            )
        self._in.rename(self._part_name, self.target.name)
        self._in.remove(self._note_name)
        self._in.sync()
        self.close()

    def stop(self) -> None:
        """Do nothing: a running job ends by itself."""

    def close(self) -> None:
        """Close the file, and remove it if it is empty or cannot be resumed. Idempotent."""
        descriptor, self._descriptor = self._descriptor, -1
        folder, self._folder = self._folder, None
        if folder is None:
            return
        try:
            is_useless = self.info is None or self.size == 0
            if descriptor >= 0 and is_useless and folder.is_open_as(self._part_name, descriptor):
                with suppress(OSError, LocalFailure):
                    folder.remove(self._part_name)
                    folder.remove(self._note_name)
        finally:
            if descriptor >= 0:
                os.close(descriptor)
            folder.close()

    @property
    def _in(self) -> Folder:
        assert self._folder is not None, "it is closed"
        return self._folder

    def _enter(self, path: str, within: str | None) -> Path:
        """Open the folder that contains `path`. Returns the target."""
        if within is None:
            target = Path(os.path.realpath(path))
            self._folder = Folder(str(target.parent))
            return target
        *folders, _ = names_below(path, within)
        self._folder = Folder(within)
        self._folder.enter(folders)
        return Path(path)

    def _open_locked(self) -> int:
        while True:
            try:
                descriptor = self._in.open(self._part_name)
            except FileNotFoundError:  # another download has just renamed it to the target
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Between opening and locking, another download may have renamed it to the target.
                if self._in.is_open_as(self._part_name, descriptor):
                    return descriptor
            except BlockingIOError:
                os.close(descriptor)
                raise LocalFailure(
                    f"{self.target.with_name(self._part_name)}: another download writes this file"
                ) from None
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)


def _hidden_names(target: str) -> tuple[str, str]:
    part, note = f".{target}.part", f".{target}.part.json"
    if len(os.fsencode(note)) > _MAX_NAME_BYTES:
        stem = hashlib.sha256(os.fsencode(target)).hexdigest()
        part, note = f".{stem}.part", f".{stem}.part.json"
    return part, note


def _parse_note(content: bytes | None) -> PartialDownloadInfo | None:
    try:
        found = json.loads(content or b"")
        info = PartialDownloadInfo(found["url"], found["etag"], found["size"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    are_strings = isinstance(info.url, str) and isinstance(info.etag, str)
    return info if are_strings and isinstance(info.size, int) else None
