"""Logs defects with all details, and gives the client only an incident id."""

from __future__ import annotations

import traceback
from secrets import token_hex

from twisted.logger import Logger
from twisted.python.failure import Failure

from twistedmedia.errors import InternalError


def report_incident(log: Logger, doing: str, failure: Failure) -> InternalError:
    """Log `failure`, which happened during `doing`. Returns the error for the client."""
    error = InternalError(token_hex(8))
    log.error(
        "incident {incident}: {doing}: {why}",
        incident=error.incident,
        doing=doing,
        why=on_one_line(failure),
    )
    return error


def on_one_line(failure: Failure) -> str:
    """Describe `failure` and its traceback without line breaks."""
    frames = traceback.extract_tb(failure.getTracebackObject())
    where = " > ".join(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames)
    return f"{type(failure.value).__name__}: {str(failure.value)!r} at {where}"
