"""What the client accepts: checks of a program's arguments, and limits on what a server may send.

Pure. A server can be broken or malicious, so everything that it sends is bounded (docs/client.md).
"""

from __future__ import annotations

from twistedmedia.client.exceptions import LocalFailure

# The service's default page size (docs/http.md); the client never asks for larger pages.
MAX_PAGE_ENTRIES = 1_000
# A response that is read as a whole. An entry of a listing has a few KiB at most.
MAX_RESPONSE_BYTES = 1 << 20
MAX_PAGE_BYTES = 8 << 20
# A reason is shown to people. The service's own are a sentence or two.
MAX_REASON_CHARACTERS = 2_000
# Entries in and below one directory, unless the caller allows more. Each may cost a request.
MAX_ENTRIES = 10_000_000

# The least average rate of received content, over `ClientTimeouts.stall_s` seconds of waiting for
# the service. The service requires the same of its clients.
MIN_BYTES_PER_S = 64
# An attempt that transfers fewer bytes counts as no progress. Without this limit a server could
# make the client retry forever.
MIN_PROGRESS_BYTES = 4 << 10
# Chunked coding can be nearly all overhead. After this many pieces their average size must reach
# SMALL_PIECE_BYTES.
MAX_SMALL_PIECES, SMALL_PIECE_BYTES = 16_384, 64

# For content of unknown size: the service's default for its largest file, and the space that stays
# free on the disk. The service itself always sends the size.
MAX_UNKNOWN_SIZE_BYTES = 2 << 30
MIN_FREE_BYTES = 64 << 20


def check_kind(argument: object, kind: type, what: str) -> None:
    """:raises LocalFailure: when `argument` is not of the `kind`."""
    if not isinstance(argument, kind):
        raise wrong_type(argument, what, kind.__name__)


def check_function(argument: object, what: str) -> None:
    """:raises LocalFailure: when `argument` cannot be called."""
    if not callable(argument):
        raise wrong_type(argument, what, "function")


def check_number(argument: object, what: str) -> None:
    """:raises LocalFailure: when `argument` is not a number from 0 on."""
    if not isinstance(argument, int | float) or isinstance(argument, bool) or not argument >= 0:
        raise LocalFailure(f"{what} must be a number from 0 on, not {argument!r}")


def wrong_type(argument: object, what: str, kind: str) -> LocalFailure:
    """The failure for `argument`, which was passed as `what` and is not of the `kind`."""
    return LocalFailure(f"{what} must be a {kind}, not {type(argument).__name__}")
