"""The one table from what Twisted's client fails with to one of our errors."""

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
from twistedmedia.fetch.hops import Hop
from twistedmedia.http.heads import MAX_FIELDS, MAX_INTERIM, MAX_RESPONSE_HEAD_BYTES


def translate(error: Exception, hop: Hop) -> Exception:
    """What to tell of `error`, which ended the request of `hop` before its headers were complete;
    `error` itself when it is a fault of ours.
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
            return _of_a_connection([reason.value for reason in error.reasons], hop)
        case ConnectionClosed():
            return _of_a_connection([error], hop)
    return error


def of_content(reason: Failure, received: int) -> UpstreamFailed:
    """What to tell of content that has ended for `reason`, before its end."""
    causes = reason.value.reasons if isinstance(reason.value, ResponseFailed) else []
    if causes and not isinstance(causes[0].value, ConnectionClosed):
        return UpstreamFailed("does not send its content in HTTP")
    return UpstreamBrokeOff(received)


def was_cancelled(error: BaseException) -> bool:
    """Whether the request was cancelled; Twisted wraps that up once a connection is there."""
    return isinstance(error, CancelledError | ConnectingCancelledError) or any(
        isinstance(reason.value, CancelledError) for reason in getattr(error, "reasons", ())
    )


def _of_a_connection(reasons: list[BaseException], hop: Hop) -> UpstreamFailed:
    if hop.head_is_endless:
        return UpstreamFailed(
            f"sends more than {MAX_RESPONSE_HEAD_BYTES} bytes of headers, {MAX_FIELDS} header"
            f" lines, or {MAX_INTERIM} interim responses"
        )
    if any(
        isinstance(reason, TLSError | VerificationError | CertificateError) for reason in reasons
    ):
        return UpstreamFailed("cannot be trusted: TLS fails, or its certificate is not its own")
    if not hop.given_up and all(isinstance(reason, ConnectionClosed) for reason in reasons):
        when = "without a response" if hop.first_byte is None else "in the middle of its headers"
        return UpstreamFailed(f"closed the connection {when}")
    return UpstreamFailed("does not respond in HTTP")
