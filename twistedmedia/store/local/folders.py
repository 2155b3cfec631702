"""The folders under a root: walked without following links, made and removed as files come and go,
and known to be on stable storage or not. Everything here blocks and runs in threads.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Callable, Generator, Iterator
from secrets import token_hex

from twistedmedia.errors import NameConflict, PreconditionFailed
from twistedmedia.names import MediaName
from twistedmedia.store.interface import Condition
from twistedmedia.store.local.dirty_folders import DirtyFolders
from twistedmedia.store.local.syscalls import SystemCalls
from twistedmedia.store.validators import etag_of

HIDDEN = ".twistedmedia"  # the folder in the root that holds what is not media

# Names a file, whose name and folder's descriptor it is given; FileExistsError when that is taken.
Link = Callable[[str, int], None]

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
# A publish makes its folder again when a delete has just removed it. Losing that race this often in
# a row is not bad luck but a fault.
_ATTEMPTS = 100
# Why a folder may outlive its last file: in use, gone already, a mount point, a link by now.
_STAYS = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.EBUSY, errno.ENOTDIR)
_NO_SUCH_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_NAME_LOCKS = 64
# Folders that one step makes or removes, each with a sync. A name can have 511.
_A_STEP = 8
_SETTLED_AT_MOST = 10_000  # folders remembered; forgetting one costs a sync, no more


class Folders:
    """The folders under one root.

    Work that can take long is a generator: where it yields, a thread may do other work before it
    goes on. A name of up to eight folders is one step.

    Each step of a walk opens one name below an open folder with O_NOFOLLOW, so neither a link nor
    a rename in mid-walk leads out of the root. `..` cannot occur: a `MediaName` has none.
    """

    def __init__(
        self,
        calls: SystemCalls,
        root_fd: int,
        drafts_fd: int,
        durable: bool,
        check_root: Callable[[], None],
        touched: DirtyFolders,
    ) -> None:
        """`drafts_fd` is a folder in the same file system for files on their way. `check_root`
        raises if the root is no longer at its path. Each change calls it before the caller is told
        of success; a replacement and a removal, which may not be undone, before the change as well.
        """
        self._calls = calls
        self._root_fd = root_fd
        self._drafts_fd = drafts_fd
        self._durable = durable
        self._check_root = check_root
        self._touched = touched
        self._lock = threading.Lock()
        # Between looking at a file and replacing or deleting it nobody else may do either.
        self._name_locks = [threading.Lock() for _ in range(_NAME_LOCKS)]
        self._settled: set[tuple[str, ...]] = set()  # their entries in their parents are synced
        self._removals = 0
        self.swept = threading.Event()  # what a killed service has left of uploads is swept
        self.swept.set()

    @contextlib.contextmanager
    def walk(self, folders: tuple[str, ...]) -> Iterator[int]:
        """The last of `folders`, open; the root when there is none.

        :raises OSError: ENOENT, or ENOTDIR or ELOOP where a file or a link stands in the way.
        """
        with self._chain(folders, None) as chain:
            yield chain[-1]

    def has_file(self, name: MediaName) -> bool:
        """Whether something has the name.

        :raises NameConflict: when a folder has.
        :raises OSError: when that cannot be found out, or a file or a link stands in the way.
        """
        with contextlib.suppress(FileNotFoundError), self._chain(name.folders, None) as chain:
            if stat.S_ISDIR(self._calls.lstat(name.filename, dir_fd=chain[-1]).st_mode):
                raise NameConflict("a directory has this name")
            return True
        return False

    def check(self, name: MediaName, condition: Condition) -> None:
        """Look whether the file `name` is one of which `condition` is true.

        :raises PreconditionFailed: when it is not, or is not there.
        :raises NameConflict: when it is a folder.
        """
        try:
            with self.walk(name.folders) as folder:
                self._check(name, condition, folder)
        except OSError as error:
            if error.errno in _NO_SUCH_FILE:
                raise PreconditionFailed from None
            raise

    def confirm(self, name: MediaName, identity: tuple[int, int]) -> bool:
        """Whether `name` is that of the file with this device and inode; if so, what leads to it is
        synced.

        :raises OSError: when syncing fails.
        """
        with self._lock:
            removals = self._removals
        try:
            with self._chain(name.folders, None) as chain:
                found = self._calls.lstat(name.filename, dir_fd=chain[-1])
                if (found.st_dev, found.st_ino) != identity:
                    return False
                self._sync(chain[-1])
                self._settle(name.folders, chain, [], removals)
                self._check_root()
                return True
        except OSError as error:
            if error.errno in _NO_SUCH_FILE:
                return False
            raise

    def place(
        self, name: MediaName, link: Link, identity: tuple[int, int]
    ) -> Generator[None, None, None]:
        """Make the folders of `name`, have `link` name the file there, and sync what changed.

        `identity` is the device and inode of the file that `link` names. When anything fails, what
        was done is undone.

        :raises NameConflict: when the name is a folder's.
        :raises OSError: what `link` raises, or making or syncing a folder.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return (yield from self._place(name, link, identity))
            except FileNotFoundError:  # a delete removed a folder under our feet
                if attempt == _ATTEMPTS:
                    raise

    def replace(self, name: MediaName, link: Link, condition: Condition) -> None:
        """Have the file that `link` names take the place of the one that has `name`, in one step,
        if `condition` is true of that; and sync. When anything fails, the name is as it was, unless
        the file that has it is another user's: then it may be the new file's.

        :raises PreconditionFailed: when the condition is not true, or no file has the name.
        :raises NameConflict: when it is a folder's.
        :raises OSError: what `link` raises, or renaming or syncing.
        """
        self._wait_for_sweep(name)
        with self._lock:
            removals = self._removals
        with self._hidden(link) as new:
            try:
                with self._lock_of(name), self._chain(name.folders, None) as chain:
                    self._check(name, condition, chain[-1])
                    self._settle(name.folders, chain, [], removals)  # now: there is a way back
                    self._exchange(new, name.filename, chain[-1])
            except OSError as error:
                if error.errno in _NO_SUCH_FILE:
                    raise PreconditionFailed from None
                raise

    def remove(
        self, name: MediaName, condition: Condition | None = None
    ) -> Generator[None, None, bool]:
        """Remove the file `name`, sync, and remove the folders that this leaves empty.

        :raises PreconditionFailed: when there is a condition and it is not true.
        :raises NameConflict: when it is a folder.
        :raises OSError: when removing or syncing fails.
        """
        self._wait_for_sweep(name)
        with contextlib.ExitStack() as noted:
            if (left := self._remove(name, condition, noted)) is not None:
                yield from self._prune_rest(name.folders, left)
                self._check_root()
                return True
        if condition is not None and not condition(None, 0):
            raise PreconditionFailed
        return False

    def _remove(
        self, name: MediaName, condition: Condition | None, noted: contextlib.ExitStack
    ) -> int | None:
        """Remove the file, and some folders: what is left of that as `_prune` says it. None if
        there is no such file.
        """
        try:
            with self._lock_of(name), self._chain(name.folders, None) as chain:
                status = self._calls.lstat(name.filename, dir_fd=chain[-1])
                if stat.S_ISDIR(status.st_mode):
                    raise NameConflict("this is a directory; it goes when its last file goes")
                if condition is not None:
                    self._check(name, condition, chain[-1])
                if not stat.S_ISREG(status.st_mode):
                    return None
                self._check_root()
                noted.enter_context(self._touched.noted(name.folders))
                self._calls.unlink(name.filename, dir_fd=chain[-1])
                self._sync(chain[-1])
                return self._prune(name.folders, chain)
        except OSError as error:
            if error.errno not in _NO_SUCH_FILE:
                raise
            return None

    def _wait_for_sweep(self, name: MediaName) -> None:
        """If the file has a second name, wait until uploads are `swept`. An upload whose publish
        was interrupted has it, too, and would be taken for unfinished if this name were gone.
        """
        if self.swept.is_set():
            return
        try:
            with self._chain(name.folders, None) as chain:
                links = self._calls.lstat(name.filename, dir_fd=chain[-1]).st_nlink
        except OSError:  # whoever changes the file finds out
            return
        if links > 1:
            self.swept.wait()

    def _lock_of(self, name: MediaName) -> threading.Lock:
        return self._name_locks[hash(name) % _NAME_LOCKS]

    def _check(self, name: MediaName, condition: Condition, folder: int) -> None:
        status = self._calls.lstat(name.filename, dir_fd=folder)
        if stat.S_ISDIR(status.st_mode):
            raise NameConflict("a directory has this name")
        etag = etag_of(status.st_size, status.st_mtime_ns)
        if not stat.S_ISREG(status.st_mode) or not condition(etag, status.st_mtime_ns):
            raise PreconditionFailed

    def _exchange(self, new: str, filename: str, folder: int) -> None:
        def keep(old: str, drafts: int) -> None:
            self._calls.link(filename, old, source_dir_fd=folder, dir_fd=drafts)

        with contextlib.ExitStack() as kept:
            old = None
            # The way back, for as long as it may be needed. Another user's file can be renamed but
            # not linked (proc(5), protected_hardlinks): there is none then.
            with contextlib.suppress(PermissionError):
                old = kept.enter_context(self._hidden(keep))
            self._check_root()
            self._rename_draft(new, filename, folder)
            try:
                self._sync(folder)
                self._check_root()
            except BaseException:
                if old is not None:
                    self._rename_draft(old, filename, folder)
                raise

    def _rename_draft(self, draft: str, filename: str, folder: int) -> None:
        self._calls.rename(draft, filename, source_dir_fd=self._drafts_fd, dir_fd=folder)

    @contextlib.contextmanager
    def _hidden(self, link: Link) -> Iterator[str]:
        """The name among the drafts of a file that `link` names. It goes at the end; after a crash,
        at the next sweep.
        """
        name = token_hex(16)
        link(name, self._drafts_fd)
        try:
            yield name
        finally:
            with contextlib.suppress(OSError):  # renamed
                self._calls.unlink(name, dir_fd=self._drafts_fd)

    def _place(
        self, name: MediaName, link: Link, identity: tuple[int, int]
    ) -> Generator[None, None, None]:
        made: list[int] = []  # the depths at which a folder is new
        with contextlib.ExitStack() as noted:
            try:
                if len(name.folders) > _A_STEP and name.folders not in self._settled:
                    noted.enter_context(self._touched.noted(name.folders))
                    yield from self._make(name.folders, made)
                    # When all are there: one sync brings many of them to stable storage.
                    yield from self._settle_in_steps(name.folders, made)
                self._place_in(name, link, identity)
            except Exception:
                if made:
                    # A delete that runs between the steps leaves what is above to this upload.
                    with contextlib.suppress(OSError):  # as in `_undo`
                        yield from self._prune_rest(name.folders, self._there(name.folders))
                raise

    def _make(self, folders: tuple[str, ...], made: list[int]) -> Generator[None, None, None]:
        """Make those of `folders` that lack."""

        def open_or_make(depth: int, parent: int) -> int:
            with contextlib.suppress(FileNotFoundError):
                return self._calls.open(folders[depth], _FOLDER, dir_fd=parent)
            return self._open_new(folders[: depth + 1], parent, made)

        return self._descend(len(folders), open_or_make)

    def _settle_in_steps(
        self, folders: tuple[str, ...], made: list[int]
    ) -> Generator[None, None, None]:
        """As `_settle`, of folders that are there."""

        def settle(depth: int, parent: int) -> int:
            prefix = folders[: depth + 1]
            with self._lock:
                removals = self._removals
            if depth in made or prefix not in self._settled:
                self._sync(parent)
            fd = self._calls.open(folders[depth], _FOLDER, dir_fd=parent)
            self._note_settled([prefix], removals)
            return fd

        return self._descend(len(folders), settle)

    def _descend(
        self, depths: int, open_below: Callable[[int, int], int]
    ) -> Generator[None, None, None]:
        """Go down `depths` folders, each opened below the one before, which is closed then."""
        at = self._root_fd
        try:
            for depth in range(depths):
                if depth and depth % _A_STEP == 0:
                    yield
                above, at = at, open_below(depth, at)
                self._close(above)
        finally:
            self._close(at)

    def _close(self, fd: int) -> None:
        if fd != self._root_fd:
            with contextlib.suppress(OSError):  # opened for reading: a close can lose nothing
                self._calls.close(fd)

    def _prune_rest(self, folders: tuple[str, ...], left: int) -> Generator[None, None, None]:
        """As `_prune`, of the first `left` of `folders`, each time in a step of its own."""
        while left:
            yield
            left = self._prune_on(folders[:left])

    def _there(self, folders: tuple[str, ...]) -> int:
        """How many of `folders` are there."""
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

    def _place_in(self, name: MediaName, link: Link, identity: tuple[int, int]) -> None:
        made: list[int] = []
        with self._lock:
            removals = self._removals
        with self._chain(name.folders, made) as chain:
            try:
                self._link(name.filename, link, chain[-1])
                self._sync(chain[-1])
                self._settle(name.folders, chain, made, removals)
                self._check_root()
            except BaseException:
                self._undo(name, chain, made, identity)
                raise

    def _link(self, filename: str, link: Link, folder: int) -> None:
        try:
            link(filename, folder)
        except FileExistsError:
            if stat.S_ISDIR(self._calls.lstat(filename, dir_fd=folder).st_mode):
                raise NameConflict("a directory has this name") from None
            raise

    def sweep(self) -> None:
        """Remove the folders that are empty because the process was killed that was making or
        removing them.

        :raises OSError: if the storage cannot be read.
        """
        for folders in self._touched.left():
            for depth in range(len(folders), 0, -1):
                # A folder that is not there, or that cannot be removed, is in nobody's way.
                with contextlib.suppress(OSError), self._chain(folders[:depth], None) as chain:
                    left = self._prune(folders[:depth], chain)
                    for _ in self._prune_rest(folders, left):
                        pass  # nobody else has work at the start
                    break
        self._touched.clear()

    @contextlib.contextmanager
    def _chain(self, folders: tuple[str, ...], made: list[int] | None) -> Iterator[list[int]]:
        """The root and each of `folders`, open. With `made`, those that lack are made and noted."""
        chain = [self._root_fd]
        is_touched = False
        try:
            for depth, folder in enumerate(folders):
                try:
                    fd = self._calls.open(folder, _FOLDER, dir_fd=chain[-1])
                except FileNotFoundError:
                    if made is None:
                        raise
                    if not is_touched:
                        self._touched.begin(folders)
                        is_touched = True
                    fd = self._open_new(folders[: depth + 1], chain[-1], made)
                chain.append(fd)
            yield chain
        except OSError:
            if made and len(chain) <= len(folders):  # failed while making: nothing is in them
                self._remove_made(folders, chain, made)
            raise
        finally:
            for fd in chain[1:]:
                self._close(fd)
            if is_touched:
                self._touched.end(folders)

    def _open_new(self, folders: tuple[str, ...], parent: int, made: list[int]) -> int:
        """Make the last of `folders`, and open it. Its depth is added to `made`."""
        with contextlib.suppress(FileExistsError):  # another upload was faster
            self._calls.mkdir(folders[-1], dir_fd=parent)
            made.append(len(folders) - 1)
            # Somebody may have removed it behind our back when it was settled.
            self._settled.discard(folders)
        return self._calls.open(folders[-1], _FOLDER, dir_fd=parent)

    def _settle(
        self, folders: tuple[str, ...], chain: list[int], made: list[int], removals: int
    ) -> None:
        """Sync each parent that holds a folder which is new, or not known to be synced: another
        upload may have made it and not have come to its own sync yet.
        """
        prefixes = [folders[: depth + 1] for depth in range(len(folders))]
        for depth, prefix in enumerate(prefixes):
            if depth in made or prefix not in self._settled:
                self._sync(chain[depth])
        self._note_settled(prefixes, removals)

    def _note_settled(self, prefixes: list[tuple[str, ...]], removals: int) -> None:
        with self._lock:
            if self._removals == removals:  # else one of them may be a new folder by now
                if len(self._settled) > _SETTLED_AT_MOST:
                    self._settled.clear()
                self._settled.update(prefixes)

    def _undo(
        self, name: MediaName, chain: list[int], made: list[int], identity: tuple[int, int]
    ) -> None:
        # The failure that brought us here is the one to tell; a second one changes nothing. The
        # file could be seen: without the lock somebody could delete it and another take its name
        # between the two calls.
        with contextlib.suppress(OSError), self._lock_of(name):
            found = self._calls.lstat(name.filename, dir_fd=chain[-1])
            if (found.st_dev, found.st_ino) == identity:
                self._calls.unlink(name.filename, dir_fd=chain[-1])
        self._remove_made(name.folders, chain, made)

    def _remove_made(self, folders: tuple[str, ...], chain: list[int], made: list[int]) -> None:
        for depth in reversed(made):
            with contextlib.suppress(OSError):  # not empty: another upload is in it already
                self._forget(folders[: depth + 1])
                self._calls.rmdir(folders[depth], dir_fd=chain[depth])

    def _prune_on(self, folders: tuple[str, ...]) -> int:
        """As `_prune`, in a later step: somebody may have removed them by now."""
        try:
            with self._chain(folders, None) as chain:
                return self._prune(folders, chain)
        except OSError as error:
            if error.errno in _NO_SUCH_FILE:
                return 0
            raise

    def _prune(self, folders: tuple[str, ...], chain: list[int]) -> int:
        """Remove the last of `folders`, and those above it that this leaves empty, as many as one
        step may. Returns how many of `folders` are still to be looked at.
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
            self._sync(chain[depth])
        return 0

    def _forget(self, folder: tuple[str, ...]) -> None:
        with self._lock:
            self._removals += 1
            self._settled.discard(folder)

    def _sync(self, fd: int) -> None:
        if self._durable:
            self._calls.fsync(fd)
