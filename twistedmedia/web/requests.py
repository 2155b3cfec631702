"""What routes ask of a request: whom it comes from, which name its URL gives, and the way back."""

from __future__ import annotations

import time

from twisted.web.server import Request

from twistedmedia.boundaries import Condition
from twistedmedia.errors import BadRequest, UnsupportedContent
from twistedmedia.names import MediaName, media_name_from_path, url_path
from twistedmedia.wire.conditions import Conditions
from twistedmedia.wire.hosts import customer_of

MEDIA = "media"  # the segment under which they are served


def header(request: Request, name: str) -> str | None:
    """The value of a header; of one that was sent more than once all values, as a list (RFC 9110,
    5.3). Bytes that are no ASCII come out as Latin-1 (5.5), whatever they are.
    """
    values = request.requestHeaders.getRawHeaders(name.encode())
    return b", ".join(values).decode("latin-1") if values else None


def segments_below(request: Request) -> list[bytes]:
    """The segments of the path that follow the route's own, each decoded; one of them may hold a
    slash that was sent as `%2F`.
    """
    return list(request.postpath or ())


def name_in_path(request: Request) -> MediaName:
    """The name that the path gives.

    :raises MissingArgument: when there is no directory or the filename is empty.
    :raises NameNotAllowed: when a rule for names is broken.
    """
    return media_name_from_path(segments_below(request))


def mounted_at(request: Request) -> str:
    """The path under which media are served."""
    return "/" + url_path(request.prepath or [])


def media_url(request: Request, name: MediaName) -> str:
    """The path under which `name` is served, whichever of our routes the request has come to."""
    return "/" + url_path([*(request.prepath or [])[:-1], MEDIA, *name.folders, name.filename])


def conditions_of(request: Request) -> Conditions:
    """The headers that make the request conditional, or ask for a part."""
    return Conditions(
        if_match=header(request, "if-match"),
        if_unmodified_since=header(request, "if-unmodified-since"),
        if_none_match=header(request, "if-none-match"),
        if_modified_since=header(request, "if-modified-since"),
        if_range=header(request, "if-range"),
        # RFC 9110, 14.2: only GET has ranges.
        range=header(request, "range") if request.method == b"GET" else None,
    )


def condition_of_change(request: Request) -> Condition | None:
    """Under which condition the request may change a file; None when it makes none."""
    conditions = conditions_of(request)
    if conditions.if_match is conditions.if_unmodified_since is conditions.if_none_match is None:
        return None

    def may_change(etag: str | None, modified_ns: int) -> bool:
        if etag is None:  # RFC 9110, 13.1: of these only If-Match asks for a file
            return conditions.if_match is None
        return conditions.allow_change(etag, modified_ns // 10**9, int(time.time()))

    return may_change


def has_query_key(request: Request, key: bytes) -> bool:
    """Whether the query has `key`, with or without a value; Twisted drops those without."""
    query = request.uri.partition(b"?")[2]
    return any(pair.partition(b"=")[0] == key for pair in query.split(b"&"))


def refuse_what_is_no_file(request: Request) -> None:
    """Refuse content that would be stored as something else than the file that the client means.

    :raises UnsupportedContent: when it has a coding.
    :raises BadRequest: when it is said to be a part (RFC 9110, 14.4: what `curl -C - -T` sends).
    """
    coding = (header(request, "content-encoding") or "identity").strip().lower()
    if coding != "identity":
        raise UnsupportedContent("send the content without Content-Encoding")
    if header(request, "content-range") is not None:
        raise BadRequest("a part of a file cannot be stored; send the whole without Content-Range")


def client_address(request: Request) -> str:
    """The address that the request comes from, for a log line."""
    address = request.getClientAddress()
    return str(getattr(address, "host", "local"))


def caller_of(request: Request) -> str:
    """In whose share counts what the request takes."""
    return customer_of(client_address(request))
