"""What Twisted's HTTP client fails with, as one of our errors."""

from __future__ import annotations

from collections.abc import Iterator

from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.python.failure import Failure
from twisted.web.http import PotentialDataLoss

from twistedmedia.client.exceptions import ClientError, Unreachable

# For these Twisted has no words, and keeps them to itself.
_WORDS = {
    "ParseError": "the answer is not HTTP",
    "BadResponseVersion": "the answer is not HTTP",
    "_DataLoss": "the answer ended early",
    "_MalformedChunkedDataError": "the answer is not well formed",
}


def broken(
    error: Exception, service: str, *, cancelled: bool = False, expired: bool = False
) -> Exception:
    """The `ClientError` that `error` means, with which a request to the service at `service`, a
    URL, has ended. A request that was `cancelled` gives a CancelledError; `expired` is whether we
    have ended it because nothing moved. An error that is not the network's, Twisted's or the
    answer's is returned as it is: it is a fault of this package or of the caller's functions.
    """
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ClientError):  # of the file that was being sent
            return cause
    is_ended = any(isinstance(cause, CancelledError) for cause in causes)
    if cancelled or (is_ended and not expired):
        return CancelledError()
    if expired:  # Twisted has several errors for that
        return Unreachable(f"the service at {service} takes too long", was_sent=True)
    if any(_is_about_trust(cause) for cause in causes):
        return Unreachable(
            f"the certificate of the service at {service} is not to be trusted", is_passing=False
        )
    if isinstance(error, DNSLookupError):
        return Unreachable(f"the host name of the service at {service} is not known")
    if isinstance(error, ConnectError):
        return Unreachable(f"the service at {service} cannot be reached: {_text(error)}")
    if isinstance(error, PotentialDataLoss):
        return Unreachable(
            f"the answer of the service at {service} does not say where it ends",
            was_sent=True,
            is_passing=False,  # the next one would not say it either
        )
    if len(causes) > 1 or _is_of_the_connection(error):
        why = _text(causes[-1])
        return Unreachable(
            f"the connection to the service at {service} broke: {why}", was_sent=True
        )
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
    return type(error).__module__.startswith("OpenSSL")


def _text(error: BaseException) -> str:
    if _is_of_tls(error):
        return "TLS failed"
    if not _is_of_the_connection(error):  # Twisted could not make sense of what it read
        return "the answer is not HTTP"
    if type(error).__name__ in _WORDS:
        return _WORDS[type(error).__name__]
    text = getattr(error, "MESSAGE", "") or str(error) or type(error).__name__
    text = " ".join(text.split())  # Twisted's are docstrings
    return (text[0].lower() + text[1:]).rstrip(".")
