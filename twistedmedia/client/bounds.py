"""Checks of the arguments that programs call the client with.

Pure.

How much the client takes from a server, which may mean harm or be broken (docs/client.md).

Pure.
"""

from __future__ import annotations

from twistedmedia.client.exceptions import LocalFailure


def check_kind(argument: object, kind: type, what: str) -> None:
    """:raises LocalFailure: when `argument` is not of the `kind`."""
    if not isinstance(argument, kind):
        raise wrong(argument, what, kind.__name__)


def check_function(argument: object, what: str) -> None:
    """:raises LocalFailure: when `argument` cannot be called."""
    if not callable(argument):
        raise wrong(argument, what, "function")


def check_number(argument: object, what: str) -> None:
    """:raises LocalFailure: when `argument` is not a number from 0 on."""
    if not isinstance(argument, int | float) or isinstance(argument, bool) or not argument >= 0:
        raise LocalFailure(f"{what} must be a number from 0 on, not {argument!r}")


def wrong(argument: object, what: str, kind: str) -> LocalFailure:
    """The failure for `argument`, which was given as `what` and is not of the `kind`."""
    return LocalFailure(f"{what} must be a {kind}, not {type(argument).__name__}")


# The service sends at most so many entries on a page unless it is asked for more (docs/http.md).
MOST_ON_A_PAGE = 1_000
# An answer that is read as a whole. An entry of a listing has some KiB at most.
MAX_ANSWER_BYTES = 1 << 20
MAX_PAGE_BYTES = 8 << 20
# Of a reason that people are to read. The service's own are a sentence or two.
MOST_REASON_CHARACTERS = 2_000
# Entries below one directory, unless more are allowed. Each may cost a request.
MOST_ENTRIES = 10_000_000
# Entries that are given back as one list: some hundred MiB of memory.
MOST_LISTED = 1_000_000

# Content must arrive at least this fast on average over a time of `Patience.stall_s`, in which only
# the service is waited for. The service itself asks as much of its clients.
LEAST_BYTES_PER_S = 64
# An attempt that moved fewer bytes has made no progress. Without this bound a server could have the
# client try for ever.
LEAST_PROGRESS_BYTES = 4 << 10
# Chunked coding can be nearly all coding. So many pieces may be smaller than that on average; more
# of them cost time and traffic for next to no content.
SMALL_PIECES, SMALL_PIECE_BYTES = 16_384, 64

# Content of which the service does not say how long it is: as much as a service stores unless it is
# told otherwise, and so much stays free on the disk. Our service always says it.
MOST_UNSAID_BYTES = 2 << 30
KEPT_FREE_BYTES = 64 << 20
