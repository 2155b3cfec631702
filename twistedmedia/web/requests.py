"""What routes ask of a request: whom it comes from, which name its URL gives, and the way back."""

from __future__ import annotations

from urllib.parse import quote

from twisted.web.server import Request

from twistedmedia.names import MediaName, media_name_from_path


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


def media_url(request: Request, name: MediaName) -> str:
    """The path under which `name` is served."""
    mounted = "/".join(quote(segment, safe="!$&'()*+,;=:@") for segment in request.prepath or ())
    return f"/{mounted}/{name.url_path}"


def has_query_key(request: Request, key: bytes) -> bool:
    """Whether the query has `key`, with or without a value; Twisted drops those without."""
    query = request.uri.partition(b"?")[2]
    return any(pair.partition(b"=")[0] == key for pair in query.split(b"&"))


def client_address(request: Request) -> str:
    """The address that the request comes from, for a log line."""
    address = request.getClientAddress()
    return str(getattr(address, "host", "local"))
