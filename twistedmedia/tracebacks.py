"""Letting go of what an error was raised through. Pure.

An exception refers to the frames that it passed, and these refer to whatever they worked with: the
content of an upload, a page that was being sent. A frame that refers to the exception in turn is a
reference cycle. It would keep all of that in memory until the garbage collector finds it.
"""

from __future__ import annotations


def drop_traceback(error: BaseException | None) -> None:
    """Have `error`, and the errors that led to it, refer to no frames any more, nor to each other.
    To be called by the last one that handles an error, and by one that keeps it.
    """
    errors = [error]
    while errors:
        each = errors.pop()
        # An error that is raised anew can have led to the one that led to it: then it is met again.
        if each is not None:
            errors += (each.__cause__, each.__context__)
            each.__traceback__ = each.__cause__ = each.__context__ = None
