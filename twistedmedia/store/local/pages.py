"""Pages of a folder's names, read in batches. What reads folders blocks and runs in threads. Each
step is short, since the event loop needs the interpreter in between.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

from twistedmedia.errors import NotFound
from twistedmedia.names import MAX_NAME_BYTES, is_segment
from twistedmedia.store.batches import BATCH
from twistedmedia.store.interface import Batch, ListedFile, PageEnd
from twistedmedia.store.local.folders import HIDDEN, Folders
from twistedmedia.store.local.root import Root
from twistedmedia.store.local.syscalls import SystemCalls
from twistedmedia.store.validators import etag_of

T = TypeVar("T")

# Names that are kept besides those of the page: some may not be media.
_SPARE_NAMES = 256
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
# Names that are sorted at once: sorting holds the interpreter's lock, a millisecond for so many.
_SORTED_AT_ONCE = 4096


class Listing:
    """Lists the folders under a root."""

    def __init__(self, calls: SystemCalls, folders: Folders, root: Root) -> None:
        self._calls = calls
        self._folders = folders
        self._root = root

    def batches(self, folders: tuple[str, ...], after: str, limit: int) -> Iterator[Batch]:
        """The page that `interface.Store.list` describes. The first batch includes one look at
        all names of the folder. No descriptor is open between two batches.

        :raises NotFound: when there is no such folder, or nothing in it.
        """
        longest = MAX_NAME_BYTES - len("/".join((*folders, "")).encode())
        at_root = not folders
        missing = limit
        left_out = since_last = 0
        kept = limit + _SPARE_NAMES
        while True:
            with self._walk(folders) as folder:
                names, is_cut = self._first_names(folder, after, kept, at_root=at_root)
            for at in range(0, max(1, len(names)), BATCH):
                entries: list[ListedFile | str] = []
                more = False
                with self._walk(folders) as folder:
                    for name in names[at : at + BATCH]:
                        entry = self._entry(folder, name, longest, at_root=at_root)
                        if entry is None:
                            since_last += 1
                        elif entry and not missing:  # what lies between is on the next page
                            more = True
                            break
                        elif entry:
                            entries.append(entry)
                            missing -= 1
                            left_out, since_last = left_out + since_last, 0
                left = len(names) - at - BATCH
                if more or (left <= 0 and not is_cut):
                    end = PageEnd(more, left_out if more else left_out + since_last)
                    yield Batch(tuple(entries), 0, end)
                    return
                yield Batch(tuple(entries), missing if is_cut else min(missing, left))
            after = names[-1]
            kept *= 2  # most of those were no media: read the folder only a few times more

    @contextmanager
    def _walk(self, folders: tuple[str, ...]) -> Iterator[int]:
        try:
            with self._folders.walk(folders) as folder:
                yield folder
        except OSError as error:
            if error.errno in _NOT_THERE:
                raise NotFound("there is no such directory") from None
            raise

    def _first_names(
        self, folder: int, after: str, most: int, *, at_root: bool
    ) -> tuple[list[str], bool]:
        """The first `most` names after `after`, those of folders with a slash, and whether there
        are more. Text sorts by code points, which is the order of the bytes in UTF-8.

        :raises NotFound: when there is nothing in the folder.
        """
        names: list[str] = []
        is_empty, is_cut = True, False
        with self._calls.scandir(folder) as found:
            while run := [
                entry.name + "/" if entry.is_dir(follow_symlinks=False) else entry.name
                for entry in islice(found, _SORTED_AT_ONCE)
            ]:
                is_empty = False
                if at_root and HIDDEN + "/" in run:
                    run.remove(HIDDEN + "/")
                if after:
                    run = [name for name in run if name > after]
                if is_cut:
                    last = names[most - 1]
                    run = [name for name in run if name < last]
                run.sort()
                names += run
                if len(names) > most:
                    names.sort()  # which merges what is sorted
                    del names[most:]
                    is_cut = True
        if is_empty:
            if not at_root:
                raise NotFound("there is no such directory")
            self._root.check("read")  # a root that was removed looks like an empty one
        names.sort()
        return names, is_cut

    def _entry(
        self, folder: int, name: str, longest: int, *, at_root: bool
    ) -> ListedFile | str | None:
        """What the page says of a name: None when it breaks the rules, nothing when it is not there
        any more. `longest` is in bytes.
        """
        if not is_segment(name.removesuffix("/")) or len(name.encode()) > longest:
            return None
        if name.endswith("/"):
            return name if self._has_something(folder, name) else ""
        if at_root:  # a media name has a directory
            return None
        try:
            status = self._calls.lstat(name, dir_fd=folder)
        except FileNotFoundError:
            return ""
        if not stat.S_ISREG(status.st_mode):  # a link, a socket: never served
            return None
        etag = etag_of(status.st_size, status.st_mtime_ns)
        return ListedFile(name, status.st_size, status.st_mtime_ns, etag)

    def _has_something(self, folder: int, name: str) -> bool:
        """A folder without anything in it is being made or removed: it is not there. Nor is one
        that is not ours to look into, as the `lost+found` of a file system.
        """
        try:
            fd = self._calls.open(name.removesuffix("/"), _FOLDER, dir_fd=folder)
            try:
                with self._calls.scandir(fd) as found:
                    return next(found, None) is not None
            finally:
                self._calls.close(fd)
        except OSError as error:
            if error.errno in (*_NOT_THERE, errno.EACCES):
                return False
            raise
