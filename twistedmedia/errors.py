"""Every failure that the service reports to a client, as one table: code, HTTP status, reason.

Pure. The rooms raise these errors, and `json_response` turns them into JSON. Any other exception is
a defect: the client gets status 500, an incident id, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

RETRY_AFTER_S = 5  # for clients that are refused because the service is busy
_LOCKED_RETRY_AFTER_S = 1  # a newer request is usually over by then


class MediaError(Exception):
    """A failure that is reported to the client.

    `code` is the code in the response and `status` the HTTP status (docs/http.md). If several
    failures apply to one file, the one with the lowest `rank` is reported (docs/http.md,
    "Storing"). `reason` says what is wrong and what to do. `headers` are sent as well.
    """

    code: ClassVar[int]
    status: ClassVar[int]
    rank: ClassVar[int]
    text: ClassVar[str]

    def __init_subclass__(cls, row: tuple[int, int, int, str] | None = None) -> None:
        super().__init_subclass__()
        if row is not None:
            cls.code, cls.status, cls.rank, cls.text = row

    def __init__(self, detail: str | int = "", headers: Mapping[str, str] | None = None) -> None:
        """`detail` replaces the `{}` in `text`, or the whole `text` if there is no `{}` in it."""
        is_part = "{}" in self.text
        self.reason = self.text.format(detail) if is_part else str(detail) or self.text
        super().__init__(self.reason)
        self.headers: Mapping[str, str] = headers or {}


# Each row: code, HTTP status, rank, reason. A `{}` stands for the detail of the one failure.
# fmt: off

class BadRequest(MediaError, row=(400, 400, 0, "{}")): ...
class Forbidden(MediaError, row=(403, 403, 0, "{}")): ...
class NotFound(MediaError, row=(404, 404, 0, "there is no such media")): ...
class IsDirectory(NotFound): ...  # a directory has the name of the requested file

# A file has a name that a directory needs, or the other way round.
class NameConflict(MediaError, row=(409, 409, 6, "{}")): ...

# The request does not continue the upload at its offset, in bytes (tus 1.0, PATCH).
class WrongOffset(MediaError, row=(409, 409, 0,
    "the upload continues at byte {}; send HEAD to find the offset")): ...

class Superseded(MediaError, row=(409, 409, 0,
    "a newer request has taken over this upload; send HEAD to find the offset")): ...

# The older request was asked to stop. The new one has content, with which it must not wait.
class StillEnding(MediaError, row=(409, 409, 0,
    "an older request for this upload is still ending; send HEAD to find the offset")): ...

class PreconditionFailed(MediaError, row=(412, 412, 6, "the file is not the expected version")): ...
class TargetTooLong(MediaError, row=(414, 414, 0, "the request line is longer than {} bytes")): ...
class UnsupportedContent(MediaError, row=(415, 415, 0, "{}")): ...  # its type, or its coding

# RFC 9110, 10.1.1
class ExpectationFailed(MediaError, row=(417, 417, 0,
    "the only supported expectation is 100-continue")): ...

class TooManyUnfinished(MediaError, row=(429, 429, 0,
    "there are {} unfinished uploads from your address; finish or delete some")): ...

# RFC 6585, 5
class HeadTooLarge(MediaError, row=(431, 431, 0, "the headers are more than {}")): ...

class AlreadyExists(MediaError, row=(501, 409, 6, "the file exists already")): ...

# Another file got the name during the upload. Clients would repeat a request that fails with 409.
class NameTaken(AlreadyExists, row=(501, 410, 6, "the file exists already")): ...

class EmptyUpload(MediaError, row=(502, 400, 1,
    "the upload is empty: the form has no file part")): ...

class NameNotAllowed(MediaError, row=(505, 400, 2, "the name is not allowed: {}")): ...
class NoSpace(MediaError, row=(507, 507, 5, "there is no space left on the storage")): ...
class DigestMismatch(MediaError, row=(508, 400, 7, "the digest does not match the content")): ...

# Of one part of an upload (tus 1.0, Checksum).
class ChecksumMismatch(DigestMismatch, row=(508, 460, 7,
    "the checksum does not match; nothing of this part was kept")): ...

class NotAudio(MediaError, row=(509, 422, 8, "not the audio that the name promises: {}")): ...
class Malformed(MediaError, row=(510, 400, 0, "{}")): ...  # or it ended early
class UpstreamFailed(MediaError, row=(512, 502, 0, "the upstream {}")): ...
class UpstreamBrokeOff(UpstreamFailed, row=(512, 502, 0,
    "the upstream broke off after {} bytes")): ...

class UpstreamTooSlow(MediaError, row=(513, 504, 0, "the upstream took too long: {}")): ...

# fmt: on
# Rows with headers, or with other arguments than a detail.


class MethodNotAllowed(
    MediaError, row=(405, 405, 0, "the method is not allowed here; allowed are: {}")
):
    def __init__(self, allowed: Iterable[str]) -> None:
        methods = ", ".join(sorted(allowed))
        super().__init__(methods, {"Allow": methods})


class TooSlow(MediaError, row=(408, 408, 0, "{} took too long to arrive")):
    """The client was too slow with what it had begun to send (RFC 9110, 15.5.9)."""

    def __init__(self, what: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(what, {"Connection": "close", **(headers or {})})


class GaveWay(TooSlow, row=(408, 408, 0, "the service is busy, and {}")):
    """A scarce resource was used up, and this was the slowest request of its caller."""

    def __init__(
        self,
        why: str = "this was one of the slowest requests; try again with fewer requests at a time",
    ) -> None:
        """`why` says why this request had to end, and what the client can do."""
        super().__init__(why, _retry_after(RETRY_AFTER_S))


class UnsupportedVersion(
    PreconditionFailed,
    row=(412, 412, 6, "the Tus-Resumable header must name a supported version: {}"),
):
    def __init__(self, versions: str) -> None:
        super().__init__(versions, {"Tus-Version": versions})


class RangeNotSatisfiable(
    MediaError, row=(416, 416, 0, "the range lies outside the file's {} bytes")
):
    """No byte of the requested range exists (RFC 9110, 15.5.17)."""

    def __init__(self, size: int) -> None:
        super().__init__(size, {"Content-Range": f"bytes */{size}"})


class Locked(
    MediaError, row=(423, 423, 0, "a newer request has taken over this upload; try again later")
):
    """The answer to a HEAD of an upload that a newer request has taken over (RFC 4918, 11.3). After
    any other failure tus-js-client would begin a new upload.
    """

    def __init__(self) -> None:
        super().__init__(headers=_retry_after(_LOCKED_RETRY_AFTER_S))


class TooManyConnections(
    MediaError,
    row=(429, 429, 0, "there are too many connections from your address; try again in {} s"),
):
    def __init__(self, retry_after_s: int = RETRY_AFTER_S) -> None:
        super().__init__(retry_after_s, _retry_after(retry_after_s))


class InternalError(
    MediaError, row=(500, 500, 5, "internal error; the incident's id is in the service's log")
):
    """A defect of the service. The log has the details of `incident`."""

    def __init__(self, incident: str) -> None:
        super().__init__()
        self.incident = incident


class MissingArgument(MediaError, row=(503, 400, 1, "the argument {}")):
    """A required argument is absent or empty."""

    def __init__(self, argument: str, hint: str = "") -> None:
        super().__init__(f"'{argument}' is missing" + (f": {hint}" if hint else ""))
        self.argument = argument


class FormatNotSupported(
    MediaError, row=(504, 415, 3, "the format is not supported; supported are: {}")
):
    def __init__(self, formats: Iterable[str]) -> None:
        super().__init__(", ".join(sorted(formats)))


class TooLarge(MediaError, row=(506, 413, 4, "{} bytes")):
    """`what` has more bytes than `limit`."""

    def __init__(self, limit: int, what: str = "the file") -> None:
        super().__init__(f"{what} is larger than the limit of {limit}")
        self.limit = limit


class AddressRefused(MediaError, row=(511, 403, 0, "that address may not be fetched")):
    """The client does not learn whether the host has an address that is not allowed, or does not
    exist: that would reveal our own network. `where`, the refused origin, is for the log.
    """

    def __init__(self, where: str = "") -> None:
        super().__init__()
        self.where = where


class Busy(MediaError, row=(514, 503, 0, "the service is busy; try again in {} s")):
    """As many uploads or fetches are in progress as the service allows."""

    def __init__(self, retry_after_s: int = RETRY_AFTER_S) -> None:
        super().__init__(retry_after_s, _retry_after(retry_after_s))


class Stopping(Busy, row=(514, 503, 0, "the service is stopping; try again in {} s")):
    """The service accepts no new work."""


class StorageFailed(MediaError, row=(515, 503, 5, "the storage cannot be {}")):
    """`doing` is "read" or "written". `why` is the reason of the operating system or our own. It
    never contains a path of the host.
    """

    def __init__(self, doing: str, why: str) -> None:
        super().__init__(f"{doing}: {why}", _retry_after(RETRY_AFTER_S))
        self.doing = doing


class ConfigurationError(Exception):
    """The service cannot start with this configuration. The text is one line for the operator."""


def is_refusal(status: int) -> bool:
    """Whether a response with this HTTP status refuses a request and is not a defect of ours. One
    client can cause any number of such responses in a short time.
    """
    return 400 <= status < 500 or status == Busy.status


def _retry_after(delay_s: int) -> dict[str, str]:
    return {"Retry-After": str(delay_s)}
