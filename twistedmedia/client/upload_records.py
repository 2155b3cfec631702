"""What is remembered of unfinished uploads, so that another run goes on where this one ended.

A file for each upload, with its URL. The functions block: the client calls them in threads.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Protocol, runtime_checkable
from uuid import uuid4

from twistedmedia.client.exceptions import LocalFailure
from twistedmedia.client.local_files import LocalFile, path_of
from twistedmedia.client.local_folders import Folder
from twistedmedia.client.locations import Service
from twistedmedia.names import MediaName

# Records, and those that were being written. Whatever else lies in the folder is not ours.
_OURS = re.compile(r"[0-9a-f]{64}\.json|\.[0-9a-f]{64}\.[0-9a-f]{32}", re.ASCII)
# Longer than a service keeps an upload that nobody continues.
KEPT_FOR_S = 30 * 24 * 3600
_MAX_RECORD_BYTES = 64 << 10  # a URL from a head of at most this size


@runtime_checkable
class Record(Protocol):
    """Remembers the URL of an upload by a key. Nothing here raises."""

    def recall(self, key: str) -> str | None:
        """The URL that was remembered, if one was."""

    def remember(self, key: str, url: str) -> None:
        """Keep the URL."""

    def forget(self, key: str) -> None:
        """The upload is done, or gone."""


class UploadRecords:
    """Records in a folder, which is made when it is needed. What cannot be read or written there is
    not remembered: an upload works without.
    """

    def __init__(self, folder: str | Path) -> None:
        """:raises LocalFailure: when `folder` is not a path."""
        self._folder = Path(path_of(folder))

    def recall(self, key: str) -> str | None:
        try:
            with closing(Folder(str(self._folder))) as folder:
                found = json.loads(folder.read(_file(key), _MAX_RECORD_BYTES) or b"")
        except (OSError, LocalFailure, ValueError, RecursionError):
            return None
        url = found.get("upload") if isinstance(found, dict) else None
        return url if isinstance(url, str) else None

    def remember(self, key: str, url: str) -> None:
        with suppress(OSError, LocalFailure):
            # Who knows the URL of an upload can write into it.
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with closing(Folder(str(self._folder))) as folder:
                self._forget_old(folder)
                folder.read(_file(key), 0)  # what is not ours is not replaced
                draft = f".{key}.{uuid4().hex}"
                try:
                    folder.create(draft, json.dumps({"upload": url}).encode(), 0o600)
                    folder.rename(draft, _file(key))
                finally:
                    folder.remove(draft)

    def forget(self, key: str) -> None:
        with suppress(OSError, LocalFailure), closing(Folder(str(self._folder))) as folder:
            folder.remove(_file(key))

    def _forget_old(self, folder: Folder) -> None:
        oldest = time.time() - KEPT_FOR_S
        with os.scandir(self._folder) as entries:
            for entry in entries:
                with suppress(OSError, LocalFailure):
                    if not _OURS.fullmatch(entry.name):
                        continue
                    if entry.stat(follow_symlinks=False).st_mtime < oldest:
                        folder.remove(entry.name)


def _file(key: str) -> str:
    return f"{key}.json"


class NoRecords:
    """Remembers nothing."""

    def recall(self, key: str) -> str | None:
        return None

    def remember(self, key: str, url: str) -> None:
        pass

    def forget(self, key: str) -> None:
        pass


def default_records(environment: Mapping[str, str]) -> Record:
    """The records of a user: below `XDG_STATE_HOME` (XDG Base Directory, 0.8). Who has no home has
    none.
    """
    state = environment.get("XDG_STATE_HOME", "")
    try:
        base = Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state"
    except RuntimeError:
        return NoRecords()
    return UploadRecords(base / "twistedmedia" / "uploads")


def upload_key(service: Service, file: LocalFile, name: MediaName, sha256: str) -> str:
    """What tells the upload of `file` with this content to `name` from every other one."""
    what = [service.url, file.path, file.version.size, sha256]
    text = json.dumps([*what, name.directory, name.filename])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
