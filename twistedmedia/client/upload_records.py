"""Stores the URLs of unfinished uploads, so that a later run can resume them.

The functions block: the client calls them in threads.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Protocol, runtime_checkable
from uuid import uuid4

from twistedmedia.client.exceptions import LocalFailure
from twistedmedia.client.local_files import LocalFile, check_path
from twistedmedia.client.local_folders import Folder
from twistedmedia.client.locations import Service
from twistedmedia.names import MediaName

# Records, and drafts of records. Other files in the folder are left alone.
_RECORD_NAME = re.compile(r"[0-9a-f]{64}\.json|\.[0-9a-f]{64}\.[0-9a-f]{32}", re.ASCII)
# Longer than a service keeps an unfinished upload.
MAX_AGE_S = 30 * 24 * 3600
_MAX_RECORD_BYTES = 64 << 10  # a URL from a head of at most this size


@runtime_checkable
class ResumeStore(Protocol):
    """Stores the URLs of unfinished uploads by keys. The methods must not raise exceptions."""

    def load(self, key: str) -> str | None:
        """The URL of the upload, or None."""

    def save(self, key: str, url: str) -> None:
        """Store the URL of an upload."""

    def remove(self, key: str) -> None:
        """Remove the URL of an upload that is finished, or that the service no longer has."""


class UploadRecords:
    """A `ResumeStore` with a file for each upload in a folder, which is created when needed. Errors
    are ignored, since an upload without a record only cannot be resumed by a later run.
    """

    def __init__(self, folder: str | Path, clock: Callable[[], float] = time.time) -> None:
        """`clock` returns the time since 1970 in seconds, as the file system does.

        :raises LocalFailure: when `folder` is not a path.
        """
        self._folder = Path(check_path(folder))
        self._clock = clock

    def load(self, key: str) -> str | None:
        try:
            with closing(Folder(str(self._folder))) as folder:
                found = json.loads(folder.read(_file(key), _MAX_RECORD_BYTES) or b"")
        except (OSError, LocalFailure, ValueError, RecursionError):
            return None
        url = found.get("upload") if isinstance(found, dict) else None
        return url if isinstance(url, str) else None

    def save(self, key: str, url: str) -> None:
        with suppress(OSError, LocalFailure):
            # The URL of an upload is enough to write to it, so other users may not read it.
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with closing(Folder(str(self._folder))) as folder:
                self._remove_old(folder)
                folder.read(_file(key), 0)  # raises an error if it is not a file of this user
                draft = f".{key}.{uuid4().hex}"
                try:
                    folder.create(draft, json.dumps({"upload": url}).encode(), 0o600)
                    folder.rename(draft, _file(key))
                finally:
                    folder.remove(draft)

    def remove(self, key: str) -> None:
        with suppress(OSError, LocalFailure), closing(Folder(str(self._folder))) as folder:
            folder.remove(_file(key))

    def _remove_old(self, folder: Folder) -> None:
        oldest = self._clock() - MAX_AGE_S
        with os.scandir(self._folder) as entries:
            for entry in entries:
                with suppress(OSError, LocalFailure):
                    if not _RECORD_NAME.fullmatch(entry.name):
                        continue
                    if entry.stat(follow_symlinks=False).st_mtime < oldest:
                        folder.remove(entry.name)


def _file(key: str) -> str:
    return f"{key}.json"


class NoResumeStore:
    """A `ResumeStore` that stores nothing."""

    def load(self, key: str) -> str | None:
        return None

    def save(self, key: str, url: str) -> None:
        pass

    def remove(self, key: str) -> None:
        pass


def default_resume_store(environment: Mapping[str, str]) -> ResumeStore:
    """The user's records below `XDG_STATE_HOME` (XDG Base Directory, 0.8). A user without a home
    directory has no records.
    """
    state = environment.get("XDG_STATE_HOME", "")
    try:
        base = Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state"
    except RuntimeError:
        return NoResumeStore()
    return UploadRecords(base / "twistedmedia" / "uploads")


def upload_key(service: Service, file: LocalFile, name: MediaName, sha256: str) -> str:
    """The key of the upload of `file` with this content to `name`."""
    parts = [service.url, file.path, file.version.size, sha256]
    text = json.dumps([*parts, name.directory, name.filename])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
