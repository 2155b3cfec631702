"""Files under media names: published, replaced and deleted, each in one step."""

from __future__ import annotations

import contextlib
import stat
import threading
from collections.abc import Callable, Generator, Iterator
from secrets import token_hex

from twistedmedia.errors import NameConflict, PreconditionFailed
from twistedmedia.names import MediaName
from twistedmedia.store.local.folders import NO_SUCH_FILE, Folders
from twistedmedia.store.local.syscalls import SystemCalls
from twistedmedia.store.preconditions import Precondition
from twistedmedia.store.validators import etag_of

# Links a file to a name in an open folder. Raises FileExistsError if the name is taken.
Link = Callable[[str, int], None]

# A publish makes its folder again if a delete has just removed it. To lose that race this often in
# a row is not bad luck but a fault.
_ATTEMPTS = 100
_NAME_LOCKS = 64


class PublishedFiles:
    """The files under one root. Everything here blocks and runs in threads, in steps as `Folders`
    does.
    """

    def __init__(
        self,
        calls: SystemCalls,
        folders: Folders,
        drafts_fd: int,
        check_root: Callable[[], None],
    ) -> None:
        """`drafts_fd` is the folder of hidden files, in the same file system. `check_root` raises
        if the root is no longer at its path. Each change calls it before it reports success. A
        replacement and a removal, which may be impossible to undo, call it before the change, too.
        """
        self._calls = calls
        self._folders = folders
        self._drafts_fd = drafts_fd
        self._check_root = check_root
        # Held from the check of a file until it is replaced or deleted.
        self._name_locks = [threading.Lock() for _ in range(_NAME_LOCKS)]
        self.swept = threading.Event()  # cleared while the uploads of a killed service are swept
        self.swept.set()

    def has_file(self, name: MediaName) -> bool:
        """Whether the name is taken.

        :raises NameConflict: if it is a folder's.
        :raises OSError: if this cannot be found out, or a file or a link is in the way.
        """
        with contextlib.suppress(FileNotFoundError), self._folders.walk(name.folders) as folder:
            if stat.S_ISDIR(self._calls.lstat(name.filename, dir_fd=folder).st_mode):
                raise NameConflict("a directory has this name")
            return True
        return False

    def check(self, name: MediaName, precondition: Precondition) -> None:
        """Check that the file `name` exists and that `precondition` holds.

        :raises PreconditionFailed: if not.
        :raises NameConflict: if it is a folder.
        """
        try:
            with self._folders.walk(name.folders) as folder:
                self._check(name, precondition, folder)
        except OSError as error:
            if error.errno in NO_SUCH_FILE:
                raise PreconditionFailed from None
            raise

    def confirm(self, name: MediaName, identity: tuple[int, int]) -> bool:
        """Whether `name` is that of the file with this device and inode. If so, syncs the folders
        that lead to it.

        :raises OSError: if syncing fails.
        """
        removals = self._folders.removals
        try:
            with self._folders.chain(name.folders) as chain:
                found = self._calls.lstat(name.filename, dir_fd=chain[-1])
                if (found.st_dev, found.st_ino) != identity:
                    return False
                self._folders.sync(chain[-1])
                self._folders.sync_parents(name.folders, chain, [], removals)
                self._check_root()
                return True
        except OSError as error:
            if error.errno in NO_SUCH_FILE:
                return False
            raise

    def place(
        self, name: MediaName, link: Link, identity: tuple[int, int]
    ) -> Generator[None, None, None]:
        """Make the folders of `name`, call `link` to name the file there, and sync what changed. If
        anything fails, this is undone. `identity` is the device and inode of the file.

        :raises NameConflict: if the name is a folder's.
        :raises OSError: from `link`, or if a folder cannot be made or synced.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return (yield from self._place(name, link, identity))
            except FileNotFoundError:  # a delete has removed a folder meanwhile
                if attempt == _ATTEMPTS:
                    raise

    def replace(self, name: MediaName, link: Link, precondition: Precondition) -> None:
        """Replace the file `name`, if `precondition` holds, by the one that `link` names, in one
        step, and sync. If anything fails, the name is as it was. The exception is a file of
        another user, which may have been replaced.

        :raises PreconditionFailed: if the precondition does not hold, or no file has the name.
        :raises NameConflict: if it is a folder's.
        :raises OSError: from `link`, or if renaming or syncing fails.
        """
        self._wait_for_sweep(name)
        removals = self._folders.removals
        with self._hidden(link) as new:
            try:
                with self._lock_of(name), self._folders.chain(name.folders) as chain:
                    self._check(name, precondition, chain[-1])
                    # While it can still fail without a change.
                    self._folders.sync_parents(name.folders, chain, [], removals)
                    self._exchange(new, name.filename, chain[-1])
            except OSError as error:
                if error.errno in NO_SUCH_FILE:
                    raise PreconditionFailed from None
                raise

    def remove(
        self, name: MediaName, precondition: Precondition | None = None
    ) -> Generator[None, None, bool]:
        """Remove the file `name`, sync, and remove the folders that this leaves empty. Returns
        whether the file existed.

        :raises PreconditionFailed: if there is a precondition and it does not hold.
        :raises NameConflict: if it is a folder.
        :raises OSError: if removing or syncing fails.
        """
        self._wait_for_sweep(name)
        with contextlib.ExitStack() as noted:
            if (left := self._remove(name, precondition, noted)) is not None:
                yield from self._folders.prune_rest(name.folders, left)
                self._check_root()
                return True
        if precondition is not None and not precondition.allows(None, 0):
            raise PreconditionFailed
        return False

    def _remove(
        self, name: MediaName, precondition: Precondition | None, noted: contextlib.ExitStack
    ) -> int | None:
        """Remove the file and some folders. Returns what `Folders.prune` does, None if there is no
        such file.
        """
        try:
            with self._lock_of(name), self._folders.chain(name.folders) as chain:
                status = self._calls.lstat(name.filename, dir_fd=chain[-1])
                if stat.S_ISDIR(status.st_mode):
                    raise NameConflict("this is a directory; it is removed with its last file")
                if precondition is not None:
                    self._check(name, precondition, chain[-1])
                if not stat.S_ISREG(status.st_mode):
                    return None
                self._check_root()
                noted.enter_context(self._folders.noted(name.folders))
                self._calls.unlink(name.filename, dir_fd=chain[-1])
                self._folders.sync(chain[-1])
                return self._folders.prune(name.folders, chain)
        except OSError as error:
            if error.errno not in NO_SUCH_FILE:
                raise
            return None

    def _wait_for_sweep(self, name: MediaName) -> None:
        """If the file has a second name, wait until uploads are `swept`. That name may be of an
        upload whose publish was interrupted. It would be taken for unfinished without this name.
        """
        if self.swept.is_set():
            return
        try:
            with self._folders.walk(name.folders) as folder:
                links = self._calls.lstat(name.filename, dir_fd=folder).st_nlink
        except OSError:  # the change itself will report it
            return
        if links > 1:
            self.swept.wait()

    def _lock_of(self, name: MediaName) -> threading.Lock:
        return self._name_locks[hash(name) % _NAME_LOCKS]

    def _check(self, name: MediaName, precondition: Precondition, folder: int) -> None:
        status = self._calls.lstat(name.filename, dir_fd=folder)
        if stat.S_ISDIR(status.st_mode):
            raise NameConflict("a directory has this name")
        etag = etag_of(status.st_size, status.st_mtime_ns)
        if not stat.S_ISREG(status.st_mode) or not precondition.allows(etag, status.st_mtime_ns):
            raise PreconditionFailed

    def _exchange(self, new: str, filename: str, folder: int) -> None:
        def link_old(hidden: str, drafts: int) -> None:
            self._calls.link(filename, hidden, source_dir_fd=folder, dir_fd=drafts)

        with contextlib.ExitStack() as undoing:
            old = None
            # A second name for the old file, to undo the rename. A file of another user can be
            # renamed but not linked (proc(5), protected_hardlinks).
            with contextlib.suppress(PermissionError):
                old = undoing.enter_context(self._hidden(link_old))
            self._check_root()
            self._rename_draft(new, filename, folder)
            try:
                self._folders.sync(folder)
                self._check_root()
            except BaseException:
                if old is not None:
                    self._rename_draft(old, filename, folder)
                raise

    def _rename_draft(self, draft: str, filename: str, folder: int) -> None:
        self._calls.rename(draft, filename, source_dir_fd=self._drafts_fd, dir_fd=folder)

    @contextlib.contextmanager
    def _hidden(self, link: Link) -> Iterator[str]:
        """A name among the drafts, which `link` gives to a file. It is removed at the end; after a
        crash, by the next sweep.
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
        folders = name.folders
        made: list[int] = []
        with contextlib.ExitStack() as noted:
            try:
                if self._folders.need_steps(folders):
                    noted.enter_context(self._folders.noted(folders))
                    yield from self._folders.make(folders, made)
                self._place_in(name, link, identity)
            except Exception:
                if made:
                    # A delete that ran between the steps has left the folders above to this upload.
                    with contextlib.suppress(OSError):  # as in `_undo`
                        left = self._folders.existing(folders)
                        yield from self._folders.prune_rest(folders, left)
                raise

    def _place_in(self, name: MediaName, link: Link, identity: tuple[int, int]) -> None:
        made: list[int] = []
        removals = self._folders.removals
        with self._folders.chain(name.folders, made) as chain:
            try:
                self._link(name.filename, link, chain[-1])
                self._folders.sync(chain[-1])
                self._folders.sync_parents(name.folders, chain, made, removals)
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

    def _undo(
        self, name: MediaName, chain: list[int], made: list[int], identity: tuple[int, int]
    ) -> None:
        # The failure that led here is raised; a second one changes nothing. The file was visible:
        # without the lock a delete and another upload could come between the two calls.
        with contextlib.suppress(OSError), self._lock_of(name):
            found = self._calls.lstat(name.filename, dir_fd=chain[-1])
            if (found.st_dev, found.st_ino) == identity:
                self._calls.unlink(name.filename, dir_fd=chain[-1])
        self._folders.remove_made(name.folders, chain, made)
