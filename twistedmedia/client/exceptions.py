"""Every way in which a request of the client fails, each with a reason that a person can act on.

Pure. There are three kinds: the service was asked and refused, it could not be asked, or something
broke here. An exception that is not a `ClientError` is a fault of this package, or was raised by a
function of the caller's, such as `progress`.
"""

from __future__ import annotations

# The service's code for what does not exist. A proxy's 404 has no code: behind it the file or
# directory may well exist.
NOT_FOUND = 404


class ClientError(Exception):
    """`reason` is a sentence without a full stop. `code` is the code of docs/http.md, None where
    there is none.
    """

    code: int | None = None

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Refused(ClientError):
    """The service, or a proxy before it, answered that it will not.

    `status` is the HTTP status. `code` is the service's own; it is None if the answer is not the
    service's JSON, and `told` is False then. `retry_after_s` is what `Retry-After` asks for, in
    seconds. `incident` names a failure of the service in its log.
    """

    def __init__(
        self,
        status: int,
        code: int | None,
        reason: str,
        *,
        told: bool = True,
        retry_after_s: float | None = None,
        incident: str | None = None,
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.code = code
        self.told = told
        self.retry_after_s = retry_after_s
        self.incident = incident

    @property
    def is_passing(self) -> bool:
        """Whether the same request may well be answered otherwise a little later.

        A 502 or 504 that the service tells is about another upstream, which it has tried hard
        enough; one of a proxy is about the service.
        """
        return self.status in (408, 429, 503) or (self.status in (502, 504) and not self.told)


class Unreachable(ClientError):
    """The service could not be connected to, or the connection broke or stood still.

    `was_sent`: the request may have been carried out although no answer came. `is_passing`: it may
    well be otherwise a little later, which is not so of a certificate.
    """

    def __init__(self, reason: str, *, was_sent: bool = False, is_passing: bool = True) -> None:
        super().__init__(reason)
        self.was_sent = was_sent
        self.is_passing = is_passing


class InvalidResponse(ClientError):
    """The answer makes no sense: what answers is not the service, or something changes answers."""


class IntegrityError(ClientError):
    """What was downloaded is not what the service says that it sent."""


class LocalFailure(ClientError):
    """Something broke here: a file that cannot be read or written, or a name that is not allowed
    (then `code` is what the service would say).
    """

    def __init__(self, reason: str, code: int | None = None) -> None:
        super().__init__(reason)
        self.code = code


class TooManyEntries(LocalFailure):
    """A directory has more than the `most` entries that are allowed. `advice` says what to do."""

    def __init__(self, most: float, advice: str) -> None:
        super().__init__(f"the service lists more than {most:,} entries; {advice}")
        self.most = most


class NotAService(LocalFailure, ValueError):
    """The URL cannot be that of a service. The reason says why, and names the right one if it is
    known.
    """


def local_failure(error: OSError | ValueError, path: object) -> LocalFailure:
    """The failure of the system to use the file at `path`. A path that the system cannot even be
    asked about is a ValueError.
    """
    if isinstance(error, OSError):
        return LocalFailure(f"{path}: {error.strerror or error}")
    return LocalFailure(f"{path!r} is not a path that the system takes")
