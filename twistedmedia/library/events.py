"""What the library tells its subscribers. The log is one of them (`library.log`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from twisted.logger import Logger

from twistedmedia.library.caller import Caller
from twistedmedia.names import MediaName
from twistedmedia.store.interface import StoredFile


@dataclass(frozen=True, slots=True)
class Source:
    """Where content comes from: a caller, and for an import the `origin` of the URL."""

    caller: Caller
    origin: str = ""

    def __str__(self) -> str:
        address = self.caller.address
        return f"{address} by {self.origin}" if self.origin else address


@dataclass(frozen=True, slots=True)
class UploadBegun:
    """A file with a valid name began to arrive."""

    name: MediaName
    source: Source


@dataclass(frozen=True, slots=True)
class UploadResumed:
    """A resumable upload went on at `offset`, in bytes."""

    upload_id: str
    name: MediaName
    offset: int
    caller: Caller


@dataclass(frozen=True, slots=True)
class UploadInterrupted:
    """A request that added to a resumable upload ended early. `size` bytes of the upload stay."""

    name: MediaName
    size: int
    why: str
    caller: Caller


@dataclass(frozen=True, slots=True)
class UploadExpired:
    """An unfinished upload was dropped because nobody added to it for too long."""

    upload_id: str


class Storing(Enum):
    """How a file came to be stored."""

    NEW = "stored"
    REPLACED = "replaced"
    IDENTICAL = "stored before"  # the name had the declared content already


@dataclass(frozen=True, slots=True)
class FileStored:
    """A file was published, or was there already. `problem` says what is wrong with it as audio,
    None if nothing was found.
    """

    file: StoredFile
    how: Storing
    source: Source
    problem: str | None


@dataclass(frozen=True, slots=True)
class UploadRefused:
    """A file was not stored, because of `error`; nor were `others` of the same form, for the same
    reason. Its directory and filename may be anything that a client sent.
    """

    directory: str
    filename: str
    source: Source
    error: BaseException
    others: int = 0


@dataclass(frozen=True, slots=True)
class FileDeleted:
    """A caller deleted a file."""

    name: MediaName
    caller: Caller


@dataclass(frozen=True, slots=True)
class FetchRefused:
    """A URL was not fetched: policy does not allow the address of `where`, a host and port."""

    where: str
    caller: Caller


Event = (
    UploadBegun
    | UploadResumed
    | UploadInterrupted
    | UploadExpired
    | FileStored
    | UploadRefused
    | FileDeleted
    | FetchRefused
)


class Events:
    """Passes each event to all subscribers, in the order in which they subscribed."""

    _log = Logger()

    def __init__(self, *subscribers: Callable[[Event], object]) -> None:
        self._subscribers = [*subscribers]

    def subscribe(self, subscriber: Callable[[Event], object]) -> None:
        """Call `subscriber` with each event from now on, on the event loop. It must not block. What
        it raises is logged, and has no effect on the operation.
        """
        self._subscribers.append(subscriber)

    def publish(self, event: Event) -> None:
        """Tell all subscribers."""
        for subscriber in self._subscribers:
            try:
                subscriber(event)
            except Exception:  # noqa: BLE001  # the operation is done
                self._log.failure("a subscriber failed at {kind}", kind=type(event).__name__)
