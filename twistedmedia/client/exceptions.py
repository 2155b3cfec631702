"""The errors of the client, each with a reason that a person can act on.

Pure. A request was refused, it could not be made, or something failed on this machine. An exception
that is not a `ClientError` is a bug in this package, or comes from a function of the caller, such
as `progress`.
"""

from __future__ import annotations

from twistedmedia import errors

# The service's code for what does not exist. A 404 of a proxy has no code: behind the proxy the
# file or directory may well exist.
NOT_FOUND = errors.NotFound.code


class ClientError(Exception):
    """`reason` is a sentence without a full stop. `code` is a code of docs/http.md, or None."""

    code: int | None = None

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Refused(ClientError):
    """The service, or a proxy in front of it, refused the request.

    `status` is the HTTP status. `is_from_service` is whether the response is the service's JSON;
    otherwise `code` is None. `retry_after_s` is the value of `Retry-After` in seconds. `incident`
    identifies a failure of the service in its log.
    """

    def __init__(
        self,
        status: int,
        code: int | None,
        reason: str,
        *,
        is_from_service: bool = True,
        retry_after_s: float | None = None,
        incident: str | None = None,
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.code = code
        self.is_from_service = is_from_service
        self.retry_after_s = retry_after_s
        self.incident = incident

    @property
    def is_temporary(self) -> bool:
        """Whether the same request may succeed a little later.

        A 502 or 504 of the service is about another upstream, which it has retried itself. A 502
        or 504 of a proxy is about the service.
        """
        return self.status in (408, 429, 503) or (
            self.status in (502, 504) and not self.is_from_service
        )


class Unreachable(ClientError):
    """The connection to the service failed, broke or stalled.

    `was_sent`: the service may have carried out the request although no response arrived.
    `is_temporary`: a retry may succeed; it does not help against an untrusted certificate.
    """

    def __init__(self, reason: str, *, was_sent: bool = False, is_temporary: bool = True) -> None:
        super().__init__(reason)
        self.was_sent = was_sent
        self.is_temporary = is_temporary


class InvalidResponse(ClientError):
    """The response is not one that the service sends: it comes from another server, or was
    modified on its way.
    """


class IntegrityError(ClientError):
    """The downloaded or stored content differs from what was sent."""


class LocalFailure(ClientError):
    """A failure on this machine: a file that cannot be read or written, or an argument that is not
    allowed. For a name, `code` is the code that the service would send.
    """

    def __init__(self, reason: str, code: int | None = None) -> None:
        super().__init__(reason)
        self.code = code


class TooManyEntries(LocalFailure):
    """A directory has more than `max_entries` entries. `advice` says what to do."""

    def __init__(self, max_entries: float, advice: str) -> None:
        super().__init__(f"the service lists more than {max_entries:,} entries; {advice}")
        self.max_entries = max_entries


class NotAService(LocalFailure, ValueError):
    """The URL is not the URL of a service. The reason says why, and has the right URL if it is
    known.
    """


def local_failure(error: OSError | ValueError, path: object) -> LocalFailure:
    """Translate an error of the operating system about `path`. Python raises ValueError for a path
    that the system cannot represent.
    """
    if isinstance(error, OSError):
        return LocalFailure(f"{path}: {error.strerror or error}")
    return LocalFailure(f"{path!r} is not a valid path")
