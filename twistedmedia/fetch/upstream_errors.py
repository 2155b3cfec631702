"""Translates the failures of Twisted's HTTP client into our errors."""

from __future__ import annotations

from OpenSSL.SSL import Error as TLSError
from service_identity import CertificateError, VerificationError
from twisted.internet.defer import CancelledError
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    ConnectionClosed,
    ConnectionRefusedError,
    DNSLookupError,
    TCPTimedOutError,
    TimeoutError,
)
from twisted.python.failure import Failure
from twisted.web.client import (
    RequestGenerationFailed,
    RequestTransmissionFailed,
    ResponseFailed,
)

from twistedmedia.errors import (
    AddressRefused,
    MediaError,
    UpstreamBrokeOff,
    UpstreamFailed,
    UpstreamTooSlow,
)
from twistedmedia.fetch.hops import ConnectionEnd, Hop
from twistedmedia.http.heads import MAX_FIELDS, MAX_INTERIM, MAX_RESPONSE_HEAD_BYTES


def translate(error: Exception, hop: Hop) -> Exception:
    """Returns our error for `error`, which ended the request of `hop` before its headers were
    complete. An unknown `error`, which is a fault of our own, is returned unchanged.
    """
    match error:
        case MediaError():
            return error
        case DNSLookupError():
            return AddressRefused()
        case ConnectionRefusedError():
            return UpstreamFailed("refuses the connection")
        case TimeoutError() | TCPTimedOutError():
            return UpstreamTooSlow("it does not accept a connection")
        case ConnectError():
            return UpstreamFailed("cannot be reached")
        case ResponseFailed() | RequestGenerationFailed() | RequestTransmissionFailed():
            return _connection_error([reason.value for reason in error.reasons], hop)
        case ConnectionClosed():
            return _connection_error([error], hop)
    return error


def content_error(reason: Failure, received: int) -> UpstreamFailed:
    """Returns our error for content that ended early for `reason`, after `received` bytes."""
    causes = reason.value.reasons if isinstance(reason.value, ResponseFailed) else []
    if causes and not isinstance(causes[0].value, ConnectionClosed):
        return UpstreamFailed("does not send its content in HTTP")
    return UpstreamBrokeOff(received)


def was_cancelled(error: BaseException) -> bool:
    """Whether the request was cancelled. Once it is connected, Twisted wraps the error."""
    return isinstance(error, CancelledError | ConnectingCancelledError) or any(
        isinstance(reason.value, CancelledError) for reason in getattr(error, "reasons", ())
    )


def _connection_error(reasons: list[BaseException], hop: Hop) -> UpstreamFailed:
    if hop.is_head_too_large:
        return UpstreamFailed(
            f"sends more than {MAX_RESPONSE_HEAD_BYTES} bytes of headers, {MAX_FIELDS} header"
            f" lines, or {MAX_INTERIM} interim responses"
        )
    if any(
        isinstance(reason, TLSError | VerificationError | CertificateError) for reason in reasons
    ):
        return UpstreamFailed(
            "cannot be verified: TLS failed, or the certificate is not valid for the host"
        )
    closed = all(isinstance(reason, ConnectionClosed) for reason in reasons)
    if closed and hop.connection_end is not ConnectionEnd.CLOSED_BY_US:
        when = "in the middle of its headers" if hop.has_response else "without a response"
        return UpstreamFailed(f"closed the connection {when}")
    return UpstreamFailed("does not respond in HTTP")
