"""Pages of a folder's names, read in batches. Reading blocks and runs in threads. Each batch is
short, so that the event loop can run between two of them.
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
from twistedmedia.store.local.syscalls import SystemCalls, opened
from twistedmedia.store.validators import etag_of

T = TypeVar("T")

# Names that are read in addition to those of the page, since some may not be media.
_SPARE_NAMES = 256
_NOT_FOUND = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
# Names that are sorted at once. Sorting holds the interpreter's lock: 1 ms for so many.
_SORTED_AT_ONCE = 4096


class Listing:
    """Lists the folders under a root."""

    def __init__(self, calls: SystemCalls, folders: Folders, root: Root) -> None:
        self._calls = calls
        self._folders = folders
        self._root = root

    def batches(self, folders: tuple[str, ...], after: str, limit: int) -> Iterator[Batch]:
        """The page that `interface.Store.list` describes. For the first batch, all names of the
        folder are read. No descriptor is open between two batches.

        :raises NotFound: if the folder does not exist or is empty.
        """
        longest = MAX_NAME_BYTES - len("/".join((*folders, "")).encode())
        at_root = not folders
        missing = limit
        left_out = since_last = 0
        most = limit + _SPARE_NAMES
        while True:
            with self._walk(folders) as folder:
                names, is_cut = self._first_names(folder, after, most, at_root=at_root)
            for at in range(0, max(1, len(names)), BATCH):
                entries: list[ListedFile | str] = []
                more = False
                with self._walk(folders) as folder:
                    for name in names[at : at + BATCH]:
                        entry = self._entry(folder, name, longest, at_root=at_root)
                        if entry is None:
                            since_last += 1
                        elif entry and not missing:  # what was left out since is on the next page
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
            most *= 2  # few of these names were media: avoid reading the folder many times more

    @contextmanager
    def _walk(self, folders: tuple[str, ...]) -> Iterator[int]:
        try:
            with self._folders.walk(folders) as folder:
                yield folder
        except OSError as error:
            if error.errno in _NOT_FOUND:
                raise NotFound("there is no such directory") from None
            raise

    def _first_names(
        self, folder: int, after: str, most: int, *, at_root: bool
    ) -> tuple[list[str], bool]:
        """The first `most` names after `after`, those of folders with a slash, and whether more
        follow. Text sorts by code points, which is the order of the bytes in UTF-8.

        :raises NotFound: if the folder is empty.
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
                    names.sort()  # this merges sorted runs
                    del names[most:]
                    is_cut = True
        if is_empty:
            if not at_root:
                raise NotFound("there is no such directory")
            self._root.check("read")  # a removed root looks like an empty one
        names.sort()
        return names, is_cut

    def _entry(
        self, folder: int, name: str, longest: int, *, at_root: bool
    ) -> ListedFile | str | None:
        """The entry of a name. None if it is not a valid media name of at most `longest` bytes, or
        not media; "" if it does not exist any more.
        """
        if not is_segment(name.removesuffix("/")) or len(name.encode()) > longest:
            return None
        if name.endswith("/"):
            return name if self._is_listed(folder, name) else ""
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

    def _is_listed(self, folder: int, name: str) -> bool:
        """Whether a folder is listed. An empty one is being made or removed, so it is not; nor is
        one that cannot be read, such as the `lost+found` of a file system.
        """
        try:
            with (
                opened(self._calls, name.removesuffix("/"), _FOLDER, dir_fd=folder) as fd,
                self._calls.scandir(fd) as found,
            ):
                return next(found, None) is not None
        except OSError as error:
            if error.errno in (*_NOT_FOUND, errno.EACCES):
                return False
            raise
