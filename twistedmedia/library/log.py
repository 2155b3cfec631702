"""The log of what happens to media: one line for each event of the library that operators need."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from twistedmedia.errors import MediaError, is_refusal
from twistedmedia.library.events import (
    Event,
    FetchRefused,
    FileDeleted,
    FileStored,
    UploadBegun,
    UploadExpired,
    UploadInterrupted,
    UploadRefused,
)

_log = Logger()


def log_event(event: Event) -> None:
    """Log `event`, if it is one that operators need. A subscriber of `Events`."""
    match event:
        case UploadBegun():
            _log.info("arriving: {name!r} from {source}", name=str(event.name), source=event.source)
        case FileStored():
            _log.info(
                "{how}: {name!r}, {size} bytes, from {source}{problem}",
                how=event.how.value,
                name=str(event.file.name),
                size=event.file.size,
                source=event.source,
                problem=f": {event.problem}" if event.problem else "",
            )
        case UploadRefused():
            _log_refused(event)
        case UploadInterrupted():
            _log.info(
                "broke off: {name!r} at {size} bytes from {source}: {why}",
                name=str(event.name),
                size=event.size,
                source=event.caller.address,
                why=event.why,
            )
        case UploadExpired():
            _log.info("expired: upload {upload}", upload=event.upload_id)
        case FileDeleted():
            _log.info(
                "deleted: {name!r} by {source}", name=str(event.name), source=event.caller.address
            )
        case FetchRefused():
            # Not the whole URL: paths and queries may hold secrets.
            _log.warn(
                "not fetched: {where!r}, for {source}",
                where=event.where,
                source=event.caller.address,
                is_refusal=True,
            )


def _log_refused(event: UploadRefused) -> None:
    error = event.error
    is_lost = isinstance(error, CancelledError)
    # The name may be anything that a client sent; repr escapes what could break the line.
    _log.warn(
        "not stored: {name!r}{others} from {source}: {why}",
        name=f"{event.directory}/{event.filename}",
        others=f" and {event.others} more of a form" if event.others else "",
        source=event.source,
        why="its connection was lost" if is_lost else str(error),
        is_refusal=is_lost or (isinstance(error, MediaError) and is_refusal(error.status)),
    )
