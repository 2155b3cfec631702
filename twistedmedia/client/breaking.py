"""What Twisted's HTTP client fails with, as one of our errors."""

from __future__ import annotations

from collections.abc import Iterator

from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectError, ConnectionClosed, DNSLookupError
from twisted.python.failure import Failure
from twisted.web.http import PotentialDataLoss

from twistedmedia.client.errors import ClientError, Unreachable

# For what Twisted has no words, and keeps to itself.
_WORDS = {"ParseError": "what it answers is no HTTP", "_DataLoss": "the answer ended early"}


def broken(error: BaseException, *, expired: bool) -> BaseException:
    """`error`, which a request has ended with, as one of our errors; whatever is none of the
    client's is given back as it is. `expired` is whether we have ended it ourselves because nothing
    moved.
    """
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ClientError):  # what it was sending
            return cause
    if any(isinstance(cause, CancelledError) for cause in causes):
        if expired:
            return Unreachable("the service takes too long", was_sent=True)
        return CancelledError()
    if any(_is_about_trust(cause) for cause in causes):
        return Unreachable("the service's certificate is not to be trusted", is_passing=False)
    if isinstance(error, DNSLookupError):
        return Unreachable("the service's host name is not known")
    if isinstance(error, ConnectError):
        return Unreachable(f"the service cannot be reached: {_text(error)}")
    if isinstance(error, PotentialDataLoss):
        return Unreachable("the answer does not say where it ends", was_sent=True)
    if not _is_of_the_connection(causes[-1]):  # a fault of ours, or of whoever was told
        return causes[-1]
    if error is not causes[-1] or isinstance(error, ConnectionClosed) or _is_of_tls(error):
        why = _text(causes[-1])
        return Unreachable(f"the connection to the service broke: {why}", was_sent=True)
    return error


def _causes(error: BaseException) -> Iterator[BaseException]:
    yield error
    reasons = getattr(error, "reasons", None)  # of the wrappers in twisted.web._newclient
    for reason in reasons if isinstance(reasons, list) else []:
        if isinstance(reason, Failure) and reason.value is not None:
            yield from _causes(reason.value)


def _is_of_the_connection(error: BaseException) -> bool:
    module = type(error).__module__
    return module.startswith("twisted.") or isinstance(error, OSError) or _is_of_tls(error)


def _is_about_trust(error: BaseException) -> bool:
    return type(error).__module__.startswith("service_identity") or (
        _is_of_tls(error) and "certificate verify failed" in repr(error)
    )


def _is_of_tls(error: BaseException) -> bool:
    return type(error).__module__.startswith("OpenSSL")  # which need not be there


def _text(error: BaseException) -> str:
    if _is_of_tls(error):
        return "TLS failed"
    if type(error).__name__ in _WORDS:
        return _WORDS[type(error).__name__]
    text = getattr(error, "MESSAGE", "") or str(error) or type(error).__name__
    text = " ".join(text.split())  # Twisted's are docstrings
    return (text[0].lower() + text[1:]).rstrip(".")
