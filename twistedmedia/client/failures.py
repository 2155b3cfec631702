"""Translates the errors of Twisted's HTTP client into errors of this package."""

from __future__ import annotations

from collections.abc import Iterator

from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.python.failure import Failure
from twisted.web.http import PotentialDataLoss

from twistedmedia.client.exceptions import ClientError, Unreachable
from twistedmedia.client.private_apis import CAUSES, FAILURE_TEXTS


def translate(
    error: Exception, service: str, *, cancelled: bool = False, expired: bool = False
) -> Exception:
    """The `ClientError` for `error`, which ended a request to the service at the URL `service`.

    A request that the caller `cancelled` gives a CancelledError; `expired` is whether our timeout
    ended it. An error that does not come from the network, Twisted or the response is a bug in this
    package or in a function of the caller, and is returned unchanged.
    """
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ClientError):  # from reading the file that was being sent
            return cause
    is_cancelled = any(isinstance(cause, CancelledError) for cause in causes)
    if cancelled or (is_cancelled and not expired):
        return CancelledError()
    if expired:  # Twisted has several errors for this
        return Unreachable(f"the service at {service} takes too long", was_sent=True)
    if any(_is_of_certificate(cause) for cause in causes):
        return Unreachable(
            f"the certificate of the service at {service} is not trusted", is_temporary=False
        )
    if isinstance(error, DNSLookupError):
        return Unreachable(f"the host name of the service at {service} is not known")
    if isinstance(error, ConnectError):
        return Unreachable(f"the service at {service} cannot be reached: {_text(error)}")
    if isinstance(error, PotentialDataLoss):
        return Unreachable(
            f"the response of the service at {service} does not say where it ends",
            was_sent=True,
            is_temporary=False,  # the next response would not say it either
        )
    if len(causes) > 1 or _is_of_connection(error):
        why = _text(causes[-1])
        return Unreachable(
            f"the connection to the service at {service} broke: {why}", was_sent=True
        )
    return error


def _causes(error: BaseException) -> Iterator[BaseException]:
    yield error
    reasons = getattr(error, CAUSES, None)
    for reason in reasons if isinstance(reasons, list) else []:
        if isinstance(reason, Failure) and reason.value is not None:
            yield from _causes(reason.value)


def _is_of_connection(error: BaseException) -> bool:
    module = type(error).__module__
    return module.startswith("twisted.") or isinstance(error, OSError) or _is_of_tls(error)


def _is_of_certificate(error: BaseException) -> bool:
    return type(error).__module__.startswith("service_identity") or (
        _is_of_tls(error) and "certificate verify failed" in repr(error)
    )


def _is_of_tls(error: BaseException) -> bool:
    return type(error).__module__.startswith("OpenSSL")


def _text(error: BaseException) -> str:
    if _is_of_tls(error):
        return "TLS failed"
    if not _is_of_connection(error):  # Twisted could not parse what it received
        return "the response is not HTTP"
    if type(error).__name__ in FAILURE_TEXTS:
        return FAILURE_TEXTS[type(error).__name__]
    text = getattr(error, "MESSAGE", "") or str(error) or type(error).__name__
    text = " ".join(text.split())  # Twisted takes its messages from docstrings
    return (text[0].lower() + text[1:]).rstrip(".")
