"""What a request says besides a file: its caller, media name, headers, and fields."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from twisted.web.server import Request

from twistedmedia.errors import BadRequest, Malformed, MissingArgument, UnsupportedContent
from twistedmedia.http.body import Body
from twistedmedia.http.conditions import Conditions
from twistedmedia.http.forms import PartBegins, PartEnds, UrlencodedDecoder, decode_urlencoded
from twistedmedia.library.caller import Caller
from twistedmedia.limits import ByteBudget
from twistedmedia.names import MediaName, decode, media_name_from_path, url_path
from twistedmedia.store.preconditions import Precondition

MEDIA = "media"  # the segment under which media are served


def header(request: Request, name: str) -> str | None:
    """The value of a header, or all values as a list if it was sent more than once (RFC 9110, 5.3).
    Bytes outside of ASCII are decoded as Latin-1 (5.5).
    """
    values = request.requestHeaders.getRawHeaders(name.encode())
    return b", ".join(values).decode("latin-1") if values else None


def segments_below(request: Request) -> list[bytes]:
    """The decoded segments of the path below the route. A segment can contain a slash, sent as
    `%2F`.
    """
    return list(request.postpath or ())


def name_in_path(request: Request) -> MediaName:
    """The media name in the path.

    :raises MissingArgument: if there is no directory, or the filename is empty.
    :raises NameNotAllowed: if the name breaks a rule.
    """
    return media_name_from_path(segments_below(request))


def route_path(request: Request) -> str:
    """The path of the route, with the prefix under which the tree is mounted."""
    return "/" + url_path(request.prepath or [])


def media_url(request: Request, name: MediaName) -> str:
    """The path under which `name` is served. The request may be for any route of the tree."""
    return "/" + url_path([*(request.prepath or [])[:-1], MEDIA, *name.folders, name.filename])


def conditions_of(request: Request) -> Conditions:
    """The preconditions and the range in the headers of the request."""
    return Conditions(
        if_match=header(request, "if-match"),
        if_unmodified_since=header(request, "if-unmodified-since"),
        if_none_match=header(request, "if-none-match"),
        if_modified_since=header(request, "if-modified-since"),
        if_range=header(request, "if-range"),
        # RFC 9110, 14.2: only GET has ranges.
        range=header(request, "range") if request.method == b"GET" else None,
    )


def precondition_of(request: Request) -> Precondition | None:
    """The precondition of the change that the request asks for, None if it has none."""
    return conditions_of(request).precondition(int(time.time()))


def has_query_key(request: Request, key: bytes) -> bool:
    """Whether the query has `key`. Unlike `request.args`, this finds keys without a value."""
    query = request.uri.partition(b"?")[2]
    return any(pair.partition(b"=")[0] == key for pair in query.split(b"&"))


def check_whole_content(request: Request) -> None:
    """Check that the content is neither encoded nor a part of a file.

    :raises UnsupportedContent: if it has a content coding.
    :raises BadRequest: if it has `Content-Range` (RFC 9110, 14.4), which `curl -C - -T` sends.
    """
    coding = (header(request, "content-encoding") or "identity").strip().lower()
    if coding != "identity":
        raise UnsupportedContent("send the content without Content-Encoding")
    if header(request, "content-range") is not None:
        raise BadRequest("send the whole file without Content-Range; a part of it cannot be stored")


def caller_of(request: Request) -> Caller:
    """The caller that has sent the request, identified by its address so far."""
    return Caller.at(str(getattr(request.getClientAddress(), "host", "local")))


ARGUMENTS = ("url", "directory", "filename", "sha256")  # of forms and imports
MAX_JSON_BYTES = 32 << 10
FILE_FIELD = "body"  # the file in an urlencoded form
MAX_FIELD_BYTES = 8 << 10  # of a value; a name of 1,024 bytes has 3,072 with every byte escaped


class Arguments:
    """Fields of the query and of the form by name. Each may be given only once."""

    def __init__(self, query: Mapping[bytes, Sequence[bytes]], names: Sequence[str]) -> None:
        """Take the fields `names` of `query`, which is decoded already.

        :raises Malformed: if one of them is given twice.
        """
        self._values: dict[str, bytes] = {}
        self._given: set[str] = set()
        for name in names:
            for value in query.get(name.encode(), ()):
                self.begin(name)
                self._values[name] = value

    def begin(self, name: str) -> None:
        """Begin a field of the form.

        :raises Malformed: if it is given already.
        """
        if name in self._given:
            raise Malformed(f"the field {name[:64]!r} is given twice")
        self._given.add(name)

    def add_encoded(self, name: str, piece: bytes) -> None:
        """Append an urlencoded piece to the value of a field.

        :raises Malformed: if the value is too long, or the encoding is invalid.
        """
        self.add(name, decode_urlencoded(piece))

    def add(self, name: str, piece: bytes) -> None:
        """Append a decoded piece to the value of a field.

        :raises Malformed: if the value is too long.
        """
        value = self._values.get(name, b"") + piece
        if len(value) > MAX_FIELD_BYTES:
            raise Malformed(f"the field {name[:64]!r} is longer than {MAX_FIELD_BYTES} bytes")
        self._values[name] = value

    def has(self, name: str) -> bool:
        """Whether `name` is given. Its value may be empty."""
        return name in self._given

    def get(self, name: str) -> str | None:
        """The value of `name`, None if it is absent or empty.

        :raises NameNotAllowed: if it is not UTF-8.
        """
        return decode(self._values[name]) if self._values.get(name) else None

    def require(self, name: str) -> str:
        """The value of `name`.

        :raises MissingArgument: if it is absent or empty.
        :raises NameNotAllowed: if it is not UTF-8.
        """
        return decode(self.require_bytes(name))

    def require_bytes(self, name: str) -> bytes:
        """The undecoded value of `name`.

        :raises MissingArgument: if it is absent or empty.
        """
        if not self._values.get(name):
            raise MissingArgument(name)
        return self._values[name]


async def read_urlencoded(
    body: Body,
    arguments: Arguments,
    max_bytes: int,
    names: Sequence[str] | None = None,
    write: Callable[[list[bytes]], Awaitable[object]] | None = None,
) -> None:
    """Read an urlencoded form. Its fields, or only those in `names`, are added to `arguments`. With
    `write`, the field `body` is a file, and `write` is awaited with its encoded pieces.

    :raises TooLarge: if the form has more than `max_bytes`.
    :raises Malformed: if it is malformed, or a field is given twice or is too long.
    """
    decoder = UrlencodedDecoder()
    budget = ByteBudget(max_bytes, "the form")
    if write is None and body.length is not None:
        ByteBudget(max_bytes, "the form").spend(body.length)
    field = ""
    async for chunks in body:
        budget.spend(sum(map(len, chunks)))
        pieces: list[bytes] = []
        for chunk in chunks:
            await body.turn()
            for event in decoder.feed(chunk):
                if isinstance(event, PartBegins):
                    field = event.name
                    arguments.begin(field)
                elif isinstance(event, PartEnds):
                    field = ""
                elif write is not None and field == FILE_FIELD:
                    pieces.append(event)
                elif names is None or field in names:
                    arguments.add_encoded(field, event)
        if pieces and write is not None:
            await write(pieces)
    for event in decoder.end():
        if isinstance(event, PartBegins):
            arguments.begin(event.name)


async def read_json(body: Body, arguments: Arguments, names: Sequence[str]) -> None:
    """Read a JSON object. Its members in `names` are added to `arguments`.

    :raises Malformed: if it is not a JSON object, or a member is not text or is given twice.
    """
    budget = ByteBudget(MAX_JSON_BYTES, "the JSON")
    data = bytearray()
    async for chunks in body:
        for chunk in chunks:
            budget.spend(len(chunk))
            data += chunk
    try:
        pairs = json.loads(data.decode("utf-8-sig"), object_pairs_hook=tuple)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise Malformed(f"the content is not valid JSON: {error.msg} ({where})") from error
    except (ValueError, RecursionError) as error:
        raise Malformed("the content is not JSON that can be read") from error
    if not isinstance(pairs, tuple):
        raise Malformed("the content is not a JSON object")
    for name, value in pairs:
        if name in names:
            if not isinstance(value, str):
                raise Malformed(f"the argument '{name}' is not text")
            arguments.begin(name)
            arguments.add(name, value.encode("utf-8", "surrogatepass"))
        elif name == FILE_FIELD:
            arguments.begin(name)
