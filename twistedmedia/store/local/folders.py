"""The folders under a root: walked without following links, made, removed, and synced."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Generator, Iterator

from twistedmedia.store.local.dirty_folders import DirtyFolders
from twistedmedia.store.local.syscalls import SystemCalls

HIDDEN = ".twistedmedia"  # the folder in the root that holds what is not media
NO_SUCH_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
# Why a folder may outlive its last file: in use, removed already, a mount point, a link by now.
_STAYS = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.EBUSY, errno.ENOTDIR)
# Folders that one step makes or removes, each with a sync. A name can have 511.
_A_STEP = 8
_SYNCED_AT_MOST = 10_000  # folders remembered; forgetting one costs a sync, no more


class Folders:
    """The folders under one root. Everything here blocks and runs in threads.

    Work that can take long is a generator. Where it yields, the thread may do other work before it
    continues. Up to eight folders are made or removed in one step.

    Each step of a walk opens one name below an open folder with O_NOFOLLOW. So neither a link nor a
    concurrent rename leads out of the root. `..` cannot occur: a `MediaName` has none.

    `made` lists the depths of folders that an upload has made. `removals`, the number of removals
    so far, is read before a walk: if it has changed, a folder may be a new one under an old name.
    """

    def __init__(
        self, calls: SystemCalls, root_fd: int, dirty: DirtyFolders, *, durable: bool
    ) -> None:
        self._calls = calls
        self._root_fd = root_fd
        self._dirty = dirty
        self._durable = durable
        self._lock = threading.Lock()
        self._synced: set[tuple[str, ...]] = set()  # those whose entries in their parents are
        self._removals = 0
        self.noted = dirty.noted  # a context: these folders are being made or emptied

    @property
    def removals(self) -> int:
        """How many folders were removed so far."""
        with self._lock:
            return self._removals

    @contextlib.contextmanager
    def walk(self, folders: tuple[str, ...]) -> Iterator[int]:
        """The last of `folders`, open; the root if there are none.

        :raises OSError: ENOENT, or ENOTDIR or ELOOP if a file or a link is in the way.
        """
        with self.chain(folders) as chain:
            yield chain[-1]

    @contextlib.contextmanager
    def chain(self, folders: tuple[str, ...], made: list[int] | None = None) -> Iterator[list[int]]:
        """The root and each of `folders`, open. With `made`, missing folders are made."""
        chain = [self._root_fd]
        is_dirty = False
        try:
            for depth, folder in enumerate(folders):
                try:
                    fd = self._calls.open(folder, _FOLDER, dir_fd=chain[-1])
                except FileNotFoundError:
                    if made is None:
                        raise
                    if not is_dirty:
                        self._dirty.begin(folders)
                        is_dirty = True
                    fd = self._open_new(folders[: depth + 1], chain[-1], made)
                chain.append(fd)
            yield chain
        except OSError:
            if made and len(chain) <= len(folders):  # failed while making: nothing is in them
                self.remove_made(folders, chain, made)
            raise
        finally:
            for fd in chain[1:]:
                self._close(fd)
            if is_dirty:
                self._dirty.end(folders)

    def need_steps(self, folders: tuple[str, ...]) -> bool:
        """Whether `make` is to be called, since these are too many to be made by `chain`."""
        return len(folders) > _A_STEP and folders not in self._synced

    def make(self, folders: tuple[str, ...], made: list[int]) -> Generator[None, None, None]:
        """Make the missing ones of `folders`, then sync all: one sync often brings several of them
        to stable storage.
        """

        def open_or_make(depth: int, parent: int) -> int:
            with contextlib.suppress(FileNotFoundError):
                return self._calls.open(folders[depth], _FOLDER, dir_fd=parent)
            return self._open_new(folders[: depth + 1], parent, made)

        def sync(depth: int, parent: int) -> int:
            prefix = folders[: depth + 1]
            removals = self.removals
            if depth in made or prefix not in self._synced:
                self.sync(parent)
            fd = self._calls.open(folders[depth], _FOLDER, dir_fd=parent)
            self._note_synced([prefix], removals)
            return fd

        yield from self._descend(len(folders), open_or_make)
        yield from self._descend(len(folders), sync)

    def sync_parents(
        self, folders: tuple[str, ...], chain: list[int], made: list[int], removals: int
    ) -> None:
        """Sync each parent of a folder that is new, or not known to be synced. The latter may have
        been made by another upload that has not synced it yet.
        """
        prefixes = [folders[: depth + 1] for depth in range(len(folders))]
        for depth, prefix in enumerate(prefixes):
            if depth in made or prefix not in self._synced:
                self.sync(chain[depth])
        self._note_synced(prefixes, removals)

    def sync(self, fd: int) -> None:
        """Sync an open folder, in a durable store."""
        if self._durable:
            self._calls.fsync(fd)

    def remove_made(self, folders: tuple[str, ...], chain: list[int], made: list[int]) -> None:
        """Remove the folders that an upload has made, if they are empty."""
        for depth in reversed(made):
            with contextlib.suppress(OSError):  # not empty: another upload uses it already
                self._forget(folders[: depth + 1])
                self._calls.rmdir(folders[depth], dir_fd=chain[depth])

    def prune(self, folders: tuple[str, ...], chain: list[int]) -> int:
        """Remove the last of `folders`, and those above it that this leaves empty, as many as one
        step may. Returns how many of `folders` are left for `prune_rest`.
        """
        for depth in reversed(range(len(folders))):
            if len(folders) - depth > _A_STEP:
                return depth + 1
            self._forget(folders[: depth + 1])
            try:
                self._calls.rmdir(folders[depth], dir_fd=chain[depth])
            except OSError as error:
                if error.errno in _STAYS:
                    return 0
                raise
            self.sync(chain[depth])
        return 0

    def prune_rest(self, folders: tuple[str, ...], left: int) -> Generator[None, None, None]:
        """As `prune`, of the first `left` of `folders`, in further steps."""
        while left:
            yield
            left = self._prune_next(folders[:left])

    def existing(self, folders: tuple[str, ...]) -> int:
        """How many of `folders` exist."""
        at, depth = self._root_fd, 0
        try:
            for folder in folders:
                above, at = at, self._calls.open(folder, _FOLDER, dir_fd=at)
                self._close(above)
                depth += 1
        except FileNotFoundError:
            return depth
        finally:
            self._close(at)
        return depth

    def sweep(self) -> None:
        """Remove the folders that are empty because the process was killed while it made or removed
        them.

        :raises OSError: if the storage cannot be read.
        """
        for folders in self._dirty.left():
            for depth in range(len(folders), 0, -1):
                # A folder that does not exist, or that cannot be removed, does no harm.
                with contextlib.suppress(OSError), self.chain(folders[:depth]) as chain:
                    left = self.prune(folders[:depth], chain)
                    for _ in self.prune_rest(folders, left):
                        pass  # nothing else runs at the start
                    break
        self._dirty.clear()

    def _descend(
        self, depths: int, open_below: Callable[[int, int], int]
    ) -> Generator[None, None, None]:
        """Go down `depths` folders. Each is opened below the previous one, which is then closed."""
        at = self._root_fd
        try:
            for depth in range(depths):
                if depth and depth % _A_STEP == 0:
                    yield
                above, at = at, open_below(depth, at)
                self._close(above)
        finally:
            self._close(at)

    def _open_new(self, folders: tuple[str, ...], parent: int, made: list[int]) -> int:
        """Make the last of `folders`, and open it."""
        with contextlib.suppress(FileExistsError):  # another upload was faster
            self._calls.mkdir(folders[-1], dir_fd=parent)
            made.append(len(folders) - 1)
            # Another program may have removed the folder that was synced.
            self._synced.discard(folders)
        return self._calls.open(folders[-1], _FOLDER, dir_fd=parent)

    def _prune_next(self, folders: tuple[str, ...]) -> int:
        """As `prune`, in a later step, when the folders may be gone."""
        try:
            with self.chain(folders) as chain:
                return self.prune(folders, chain)
        except OSError as error:
            if error.errno in NO_SUCH_FILE:
                return 0
            raise

    def _note_synced(self, prefixes: list[tuple[str, ...]], removals: int) -> None:
        with self._lock:
            if self._removals == removals:  # else one of them may be a new folder by now
                if len(self._synced) > _SYNCED_AT_MOST:
                    self._synced.clear()
                self._synced.update(prefixes)

    def _forget(self, folder: tuple[str, ...]) -> None:
        with self._lock:
            self._removals += 1
            self._synced.discard(folder)

    def _close(self, fd: int) -> None:
        if fd != self._root_fd:
            with contextlib.suppress(OSError):  # opened for reading: a close can lose nothing
                self._calls.close(fd)
