"""Every failure that a caller can be told about, with its code, HTTP status and reason.

Pure. The rooms raise these; `answers` turns them into JSON. What is not one of these is a fault of
ours and is answered as 500 with an incident id and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar


class MediaError(Exception):
    """A failure with an answer of its own.

    `code` is the contract's code, `status` the HTTP status, `reason` a sentence that a stranger can
    act on, `headers` what the answer carries besides. When several failures are true of one file,
    the one with the lowest `rank` is told (docs/http.md, "Storing").
    """

    code: ClassVar[int]
    status: ClassVar[int]
    rank: ClassVar[int] = 0

    def __init__(self, reason: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.headers: Mapping[str, str] = headers or {}


def is_refusal(status: int) -> bool:
    """Whether a response of this HTTP status refuses a request for a reason that is not our fault.
    One client can cause any number of such responses in a short time.
    """
    return 400 <= status < 500 or status == Busy.status


class Malformed(MediaError):
    """The request breaks its own format, or ended early."""

    code, status, rank = 510, 400, 0


class EmptyUpload(MediaError):
    """A form without any file part."""

    code, status, rank = 502, 400, 1

    def __init__(self) -> None:
        super().__init__("the upload is empty: the form has no file part")


class MissingArgument(MediaError):
    """An argument that the request needs is absent or empty."""

    code, status, rank = 503, 400, 1

    def __init__(self, argument: str, hint: str = "") -> None:
        super().__init__(f"the argument '{argument}' is missing" + (f": {hint}" if hint else ""))
        self.argument = argument


class NameNotAllowed(MediaError):
    """A directory or filename that breaks the rules for names."""

    code, status, rank = 505, 400, 2

    def __init__(self, why: str) -> None:
        super().__init__(f"the name is not allowed: {why}")


class FormatNotSupported(MediaError):
    """A filename whose extension is not among the formats that this service stores."""

    code, status, rank = 504, 415, 3

    def __init__(self, formats: Iterable[str]) -> None:
        super().__init__(
            f"the format is not supported; supported are: {', '.join(sorted(formats))}"
        )


class TooLarge(MediaError):
    """More bytes than the limit. `limit` is in bytes."""

    code, status, rank = 506, 413, 4

    def __init__(self, limit: int, what: str = "the file") -> None:
        super().__init__(f"{what} is larger than the limit of {limit} bytes")
        self.limit = limit


class NoSpace(MediaError):
    """The storage is full, or would be."""

    code, status, rank = 507, 507, 5

    def __init__(self) -> None:
        super().__init__("there is no space left on the storage")


class AlreadyExists(MediaError):
    """The name is taken; nothing is overwritten by accident."""

    code, status, rank = 501, 409, 6

    def __init__(self) -> None:
        super().__init__("the file exists already")


class NameTaken(AlreadyExists):
    """While an upload went on its name has become another file's. It is not to be tried again,
    which 409 would ask clients to do for ever.
    """

    status = 410

    def __init__(self, reason: str = "the file exists already") -> None:
        super().__init__()
        self.reason = reason


class DigestMismatch(MediaError):
    """The content is not what the request declares it to be, by its digest."""

    code, status, rank = 508, 400, 7

    def __init__(self, reason: str = "the digest does not match the content") -> None:
        super().__init__(reason)


class ChecksumMismatch(DigestMismatch):
    """A part of an upload is not what its checksum says (tus 1.0, Checksum)."""

    status = 460

    def __init__(self) -> None:
        super().__init__("the checksum does not match; nothing of this part was kept")


class NotAudio(MediaError):
    """Not the audio that the name promises. `problem` says what is wrong, in words."""

    code, status, rank = 509, 422, 8

    def __init__(self, problem: str) -> None:
        super().__init__(f"not the audio that the name promises: {problem}")
        self.problem = problem


class NameConflict(MediaError):
    """A file stands where a directory is meant, or a directory where a file is."""

    code, status, rank = 409, 409, 6


LOCKED_RETRY_AFTER_S = 1  # a newer request is usually over by then


class WrongOffset(MediaError):
    """409: an upload goes on elsewhere than the request says (tus 1.0, PATCH). `offset` is where,
    in bytes.
    """

    code = status = 409

    def __init__(self, offset: int) -> None:
        super().__init__(f"the upload goes on at byte {offset}; ask with HEAD where to go on")


class Superseded(MediaError):
    """409: a newer request for the same upload has come, and only the last one counts."""

    code = status = 409

    def __init__(self) -> None:
        super().__init__("a newer request has taken this upload over; ask with HEAD where it is")


class Locked(MediaError):
    """423: the client asked how far an upload is, and a newer request for the same upload has come
    (RFC 4918, 11.3). tus-js-client takes any other failure of a HEAD for the end of the upload and
    begins a new one.
    """

    code = status = 423

    def __init__(self) -> None:
        super().__init__(
            "a newer request has taken this upload over; ask again how far it is",
            {"Retry-After": str(LOCKED_RETRY_AFTER_S)},
        )


class StillEnding(MediaError):
    """409: an older request for the same upload was told to end and has not ended yet, and this one
    brings content, with which it may not wait.
    """

    code = status = 409

    def __init__(self) -> None:
        super().__init__(
            "an older request for this upload is still ending; ask with HEAD where to go on"
        )


RETRY_AFTER_S = 5  # what is told to those who come when there is no place


class Busy(MediaError):
    """As many uploads, or fetches, are in progress as this service allows."""

    code, status = 514, 503

    state: ClassVar[str] = "busy"

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(
            f"the service is {self.state}; try again in {retry_after_s} s",
            {"Retry-After": str(retry_after_s)},
        )


class Stopping(Busy):
    """The service was told to stop, and takes no new work."""

    state = "stopping"


class StorageFailed(MediaError):
    """The storage cannot be read or written at the moment, and the client can do nothing about it.

    `doing` is "read" or "written". `why` is the operating system's reason or ours. It never names a
    path of the host.
    """

    code, status, rank = 515, 503, 5

    def __init__(self, doing: str, why: str) -> None:
        super().__init__(
            f"the storage cannot be {doing}: {why}", {"Retry-After": str(RETRY_AFTER_S)}
        )
        self.doing = doing


class AddressRefused(MediaError):
    """What is not to be fetched. Nobody learns why: whether a name leads to an address that is not
    allowed, or nowhere, is the business of our own network.
    """

    code, status = 511, 403

    def __init__(self, where: str = "") -> None:
        """`where` is for the operator: the origin that was refused."""
        super().__init__("that address may not be fetched")
        self.where = where


class UpstreamFailed(MediaError):
    """The service that a URL names did not give what it was asked for. `why` completes "the
    upstream ...".
    """

    code, status = 512, 502

    def __init__(self, why: str) -> None:
        super().__init__(f"the upstream {why}")


class UpstreamBrokeOff(UpstreamFailed):
    """It lost the connection in the middle of the content. `received` bytes had come."""

    def __init__(self, received: int) -> None:
        super().__init__(f"broke off after {received} bytes")


class UpstreamTooSlow(MediaError):
    """The service that a URL names took too long; `why` as before."""

    code, status = 513, 504

    def __init__(self, why: str) -> None:
        super().__init__(f"the upstream took too long: {why}")


class BadRequest(MediaError):
    """400: the request makes no sense to this resource."""

    code = status = 400


class Forbidden(MediaError):
    """403: this service does not do that."""

    code = status = 403


class NotFound(MediaError):
    """404: nothing is there."""

    code = status = 404

    def __init__(self, reason: str = "there is no such media") -> None:
        super().__init__(reason)


class IsDirectory(NotFound):
    """A directory has the name that was asked for as a file's."""


class MethodNotAllowed(MediaError):
    """405, with the methods that are."""

    code = status = 405

    def __init__(self, allowed: Iterable[str]) -> None:
        methods = ", ".join(sorted(allowed))
        super().__init__(
            f"the method is not allowed here; allowed are: {methods}", {"Allow": methods}
        )


class PreconditionFailed(MediaError):
    """412: a condition of the request does not hold."""

    code = status = 412
    rank = 6  # of a file: it is no longer the one that was to be replaced

    def __init__(
        self,
        reason: str = "the file is not the one that is meant",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(reason, headers)


class UnsupportedVersion(PreconditionFailed):
    """412: a version of tus that is not spoken here."""

    def __init__(self, versions: str) -> None:
        super().__init__(
            f"the Tus-Resumable header has to name a version that is spoken: {versions}",
            {"Tus-Version": versions},
        )


class TooSlow(MediaError):
    """408: the client took too long to send what it had begun (RFC 9110, 15.5.9)."""

    code = status = 408

    def __init__(self, what: str) -> None:
        """`what` is what did not come, or not fast enough."""
        super().__init__(f"{what} took too long to come", {"Connection": "close"})


class GaveWay(TooSlow):
    """408: the slowest request of a caller, when the thing that it holds is used up."""

    def __init__(
        self,
        why: str = "this was one of the slowest requests; try again with fewer requests at a time",
    ) -> None:
        """`why` is the request's part in it, and what to do."""
        MediaError.__init__(
            self,
            f"the service is busy, and {why}",
            {"Connection": "close", "Retry-After": str(RETRY_AFTER_S)},
        )


class TargetTooLong(MediaError):
    """414: a request line that is longer than `limit` bytes."""

    code = status = 414

    def __init__(self, limit: int) -> None:
        super().__init__(f"the request line is longer than {limit} bytes")


class UnsupportedContent(MediaError):
    """415: content of a type, or in a coding, that this resource does not take."""

    code = status = 415


class RangeNotSatisfiable(MediaError):
    """416: no byte of the range asked for exists (RFC 9110, 15.5.17). `size` is in bytes."""

    code = status = 416

    def __init__(self, size: int) -> None:
        super().__init__(
            f"the range lies outside the file's {size} bytes",
            {"Content-Range": f"bytes */{size}"},
        )


class ExpectationFailed(MediaError):
    """417: an `Expect` other than `100-continue` (RFC 9110, 10.1.1)."""

    code = status = 417

    def __init__(self) -> None:
        super().__init__("the only expectation that can be met is 100-continue")


class TooManyConnections(MediaError):
    """429: one address has as many connections as one may have."""

    code = status = 429

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(
            f"there are too many connections from your address; try again in {retry_after_s} s",
            {"Retry-After": str(retry_after_s)},
        )


class TooManyUnfinished(MediaError):
    """429: one caller has as many unfinished uploads as one may have."""

    code = status = 429

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"there are {limit} unfinished uploads from your address; finish some, or end them"
        )


class HeadTooLarge(MediaError):
    """431: more header lines, or larger ones, than anybody needs (RFC 6585, 5)."""

    code = status = 431

    def __init__(self, limit: str) -> None:
        super().__init__(f"the headers are more than {limit}")


class InternalError(MediaError):
    """500: our fault. `incident` is in the log as well, with what really happened."""

    code = status = 500
    rank = 5  # of a file: the storage failed

    def __init__(self, incident: str) -> None:
        super().__init__("internal error; the incident's id is in the service's log")
        self.incident = incident


class ConfigurationError(Exception):
    """The service cannot start as it is configured; the text is one line for the operator."""
