"""Pages of a folder's names. Everything here blocks and runs in threads; each step is short, since
the event loop needs the interpreter in between.
"""

from __future__ import annotations

import errno
import heapq
import os
import stat
from itertools import islice

from twistedmedia.boundaries import Entry, Page
from twistedmedia.errors import NotFound
from twistedmedia.names import MAX_NAME_BYTES, is_segment
from twistedmedia.store.calls import SystemCalls
from twistedmedia.store.folders import HIDDEN, Folders
from twistedmedia.store.root import Root
from twistedmedia.store.validators import etag_of

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

    def page(self, folders: tuple[str, ...], after: str, limit: int) -> Page:
        """See `boundaries.Store.list`.

        :raises NotFound: when there is no such folder, or nothing in it.
        """
        try:
            with self._folders.walk(folders) as folder:
                return self._page(folders, folder, after, limit)
        except OSError as error:
            if error.errno in _NOT_THERE:
                raise NotFound("there is no such directory") from None
            raise

    def _page(self, folders: tuple[str, ...], folder: int, after: str, limit: int) -> Page:
        entries: list[Entry | str] = []
        left_out = since_last = 0
        longest = MAX_NAME_BYTES - len("/".join((*folders, "")).encode())
        runs = self._sorted_runs(folder, after, at_root=not folders)
        if not runs:
            if folders:
                raise NotFound("there is no such directory")
            self._root.check("read")  # a root that was removed looks like an empty one
        for name in heapq.merge(*runs):
            entry = self._entry(folder, name, longest, at_root=not folders)
            if entry is None:
                since_last += 1
            elif entry:
                if len(entries) == limit:  # what lies between is counted on the next page
                    return Page(tuple(entries), more=True, left_out=left_out)
                entries.append(entry)
                left_out, since_last = left_out + since_last, 0
        return Page(tuple(entries), more=False, left_out=left_out + since_last)

    def _sorted_runs(self, folder: int, after: str, *, at_root: bool) -> list[list[str]]:
        """All names after `after`, those of folders with a slash, in sorted runs. Text sorts by
        code points, which is the order of the bytes in UTF-8.
        """
        runs = []
        with self._calls.scandir(folder) as found:
            while run := [
                entry.name + "/" if entry.is_dir(follow_symlinks=False) else entry.name
                for entry in islice(found, _SORTED_AT_ONCE)
            ]:
                if at_root and HIDDEN + "/" in run:
                    run.remove(HIDDEN + "/")
                if after:
                    run = [name for name in run if name > after]
                run.sort()
                runs.append(run)
        return runs

    def _entry(self, folder: int, name: str, longest: int, *, at_root: bool) -> Entry | str | None:
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
        return Entry(name, status.st_size, status.st_mtime_ns, etag)

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
