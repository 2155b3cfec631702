"""Checks of the arguments that programs call the client with.

Pure.
"""

from __future__ import annotations

from twistedmedia.client.errors import LocalFailure


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
