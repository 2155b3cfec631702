"""Layers over the directory store's system calls: they record, fail, hold or shorten them, or make
the disk small.

Each goes between the store and the real calls, so that a real folder shows what came of it.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from twistedmedia.errors import MediaError
from twistedmedia.store.local.syscalls import SystemCalls

T = TypeVar("T")

# These cannot fail as their callers see it.
HINTS = {"append", "empty", "start_writeback", "read_ahead", "get_attribute", "set_attribute"}

OPERATIONS = tuple(
    name
    for name, member in vars(SystemCalls).items()
    if callable(member) and not name.startswith("_")
)


class CallsLayer(SystemCalls):
    """Every call passes through `around`, those that are added to `SystemCalls` later too."""

    def around(self, operation: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        """`call` makes the call with `args`; `operation` is its name."""
        return call()


def _through_around(operation: str) -> Any:
    function = getattr(SystemCalls, operation)

    @functools.wraps(function)
    def layered(self: CallsLayer, *args: Any, **kwargs: Any) -> Any:
        # Keyword arguments are folders; the layers tell them by their names.
        return self.around(operation, lambda: function(self, *args, **kwargs), (*args, kwargs))

    return layered


for _operation in OPERATIONS:
    setattr(CallsLayer, _operation, _through_around(_operation))


class RecordingCalls(CallsLayer):
    """Notes what was done to what, in order, as `"fsync prompts/en"`: paths are below the root,
    `.` is the root, `draft` any file that has no name yet or a hidden one, and what is outside of
    the root is absolute. A call that fails is not noted.
    """

    def __init__(self, root: str) -> None:
        self._root = os.path.realpath(root)
        self._lock = threading.Lock()
        self.events: list[str] = []

    def note(self, event: str) -> None:
        """Add an event of the test's own."""
        with self._lock:
            self.events.append(event)

    def around(self, operation: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        what = self._what(operation, args)
        result = call()
        self.note(f"{operation} {what}")
        return result

    def of(self, *operations: str) -> list[str]:
        """The events of these operations only."""
        with self._lock:
            return [event for event in self.events if event.split(" ")[0] in operations]

    def _what(self, operation: str, args: tuple[Any, ...]) -> str:
        *plain, keywords = args
        if not plain:  # it is of nothing
            return ""
        folder = keywords.get("dir_fd")
        names = [each for each in plain if isinstance(each, str)]
        if names and not operation.endswith("_attribute"):
            base = self._path(folder) if folder is not None else ""
            return self._label(os.path.join(base, names[-1]))
        return self._label(self._path(plain[0]))

    def _path(self, fd: int) -> str:
        return os.readlink(f"/proc/self/fd/{fd}")

    def _label(self, path: str) -> str:
        if path == self._root:
            return "."
        label = path.removeprefix(self._root + "/")
        return "draft" if label.startswith((".twistedmedia/drafts/", "#")) else label


class FailingCalls(CallsLayer):
    """While armed, the Nth call fails once: `failed` says which call that was.

    It fails before it has done anything, but for `close`: on Linux that has let go of its
    descriptor whatever it says. Nothing is really synced, which would only take time.
    """

    def __init__(self) -> None:
        self.failed: str | None = None
        self._lock = threading.Lock()
        self._left = 0
        self._errno = 0
        self._fails: Callable[[str, tuple[Any, ...]], bool] = lambda operation, args: True

    @contextlib.contextmanager
    def armed(
        self,
        nth: int,
        error: int,
        fails: Callable[[str, tuple[Any, ...]], bool] = lambda operation, args: True,
    ) -> Iterator[None]:
        """The `nth` (from 1) of the calls for which `fails` holds fails with the errno `error`."""
        self.failed, self._left, self._errno, self._fails = None, nth, error, fails
        try:
            yield
        finally:
            self._left = 0

    def around(self, operation: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        if operation not in HINTS and self._left and self._fails(operation, args):
            with self._lock:
                self._left -= 1
                now = self._left == 0
            if now:
                if operation == "close":
                    call()
                self.failed = operation
                raise OSError(self._errno, os.strerror(self._errno))
        return os.fstat(args[0]) if operation == "fsync" else call()


async def each_failure(
    calls: FailingCalls, error: int, work: Callable[[], Awaitable[T]]
) -> AsyncIterator[tuple[str, T | Exception]]:
    """Does `work` once for each call that it makes, which fails with the errno `error`: the name of
    the call, and what `work` came to. No descriptor may stay open.
    """
    for nth in range(1, 1000):
        before = descriptors()
        came: T | Exception
        with calls.armed(nth, error):
            try:
                came = await work()
            except Exception as failure:  # noqa: BLE001  # it is the outcome
                came = failure
            for _ in range(10_000):  # a file is closed behind who has waited for it
                if descriptors() == before:
                    break
                await deferLater(reactor, 0.001)
        assert descriptors() == before, f"operation {nth}, {calls.failed}: a descriptor is left"
        if calls.failed is None:
            assert not isinstance(came, Exception)
            return
        yield calls.failed, came
    raise AssertionError("it never came to an end")


class SlowCalls(CallsLayer):
    """Holds calls in their thread until `release`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left = 0
        self._holds: Callable[[str, tuple[Any, ...]], bool] = lambda operation, args: False
        self._gate = threading.Event()
        self._entered: Deferred[None] = Deferred()

    def hold(
        self, *operations: str, times: int = 1, where: Callable[..., bool] | None = None
    ) -> Deferred[None]:
        """The next `times` calls of these operations wait, if `where` holds for their arguments.
        Fires when all of them do.
        """
        self._gate.clear()
        self._holds = lambda operation, args: (
            operation in operations and (where is None or where(*args))
        )
        self._entered = Deferred()
        self._left = times
        return self._entered

    def release(self) -> None:
        """Let all go on."""
        self._gate.set()

    def around(self, operation: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        if operation == "open_cached" and self._left and self._holds("open", args):
            raise BlockingIOError(
                errno.EAGAIN, os.strerror(errno.EAGAIN)
            )  # a thread has to open it
        with self._lock:
            held = self._left > 0 and self._holds(operation, args)
            self._left -= held
            last = held and self._left == 0
        if last:
            reactor.callFromThread(self._entered.callback, None)
        if held:
            self._gate.wait(10)  # so that a failing test ends
        return call()


class ShortWrites(CallsLayer):
    """Takes at most `most` bytes at each write, as a disk that is nearly full may."""

    def __init__(self, most: int) -> None:
        self._most = most

    def writev(self, fd: int, chunks: Sequence[bytes | memoryview]) -> int:
        return os.write(fd, b"".join(chunks)[: self._most])


class SmallDisk(CallsLayer):
    """The root is on a disk of `capacity` bytes, which only the contents of files use up, but for
    what the store notes of its own.
    """

    def __init__(self, root: str, capacity: int) -> None:
        self._root = root
        self._capacity = capacity
        self._open: set[int] = set()
        self._lock = threading.Lock()

    def open(self, path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        fd = super().open(path, flags, mode, dir_fd=dir_fd)
        if flags & (os.O_WRONLY | os.O_RDWR):
            with self._lock:
                self._open.add(fd)
        return fd

    def close(self, fd: int) -> None:
        with self._lock:
            self._open.discard(fd)
            super().close(fd)

    def writev(self, fd: int, chunks: Sequence[bytes | memoryview]) -> int:
        data = b"".join(chunks)
        with self._lock:
            room = self._room()
            if room <= 0 and data:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return os.write(fd, data[:room])

    def append(self, name: str, data: bytes, *, dir_fd: int) -> None:
        """Notes, which are no file's content."""

    def statvfs(self, fd: int) -> os.statvfs_result:
        with self._lock:
            room = self._room()
        return os.statvfs_result((1, 1, self._capacity, room, room, 0, 0, 0, 0, 255))

    def _room(self) -> int:
        sizes: dict[int, int] = {}
        for fd in self._open:
            status = os.fstat(fd)
            sizes[status.st_ino] = status.st_size
        for folder, _, files in os.walk(self._root):
            for name in set(files) - {"clock"}:
                with contextlib.suppress(FileNotFoundError):
                    status = os.lstat(os.path.join(folder, name))
                    sizes[status.st_ino] = status.st_size
        return self._capacity - sum(sizes.values())


class LackingCalls(CallsLayer):
    """A file system that does not know some operations: they fail with the errno `error`, if
    `where` holds for their arguments.
    """

    def __init__(
        self,
        *operations: str,
        error: int = errno.EPERM,
        where: Callable[..., bool] = lambda *args: True,
    ) -> None:
        self._operations = operations
        self._error = error
        self._where = where

    def around(self, operation: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        if operation in self._operations and self._where(*args):
            raise OSError(self._error, os.strerror(self._error))
        return call()


class SwappingCalls(CallsLayer):
    """Calls `swap` right before the `nth` call from when it is set."""

    def __init__(self) -> None:
        self._left = 0
        self._swap: Callable[[], None] = lambda: None
        self.swapped = False

    def before(self, nth: int, swap: Callable[[], None]) -> None:
        """`swap` before the `nth` call (from 1) from now on."""
        self._left, self._swap, self.swapped = nth, swap, False

    def disarm(self) -> None:
        """No swap any more."""
        self._left = 0

    def around(self, operation: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        if self._left:
            self._left -= 1
            if self._left == 0:
                self.swapped = True
                self._swap()
        return call()


def tree(root: Path) -> dict[str, bytes | None]:
    """Everything below `root` but the hidden folder's fixed parts: paths to contents, None for what
    is no regular file. A draft that is left shows.
    """
    found: dict[str, bytes | None] = {}
    for folder, folders, files in os.walk(root):
        for path in (Path(folder) / name for name in folders + files):
            plain = path.is_file() and not path.is_symlink()
            found[str(path.relative_to(root))] = path.read_bytes() if plain else None
    for fixed in (
        ".twistedmedia",
        ".twistedmedia/clock",
        ".twistedmedia/drafts",
        ".twistedmedia/folders",
        ".twistedmedia/lock",
        ".twistedmedia/uploads",
    ):
        found.pop(fixed, None)
    return found


def errno_of(failure: Exception) -> int | None:
    """Of the system call that has led to one of our errors."""
    assert isinstance(failure, MediaError), failure
    assert isinstance(failure.__cause__, OSError), failure
    return failure.__cause__.errno


def descriptors() -> int:
    """How many are open in this process."""
    return len(os.listdir("/proc/self/fd"))
