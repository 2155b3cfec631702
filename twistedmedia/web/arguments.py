"""What routes ask of a request: whom it comes from, which name its URL gives, and the way back.

The small fields of a request: from its query and from an urlencoded form.
"""

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


def precondition_of(request: Request) -> Precondition | None:
    """The precondition of the change that the request asks for, None if it has none."""
    return conditions_of(request).precondition(int(time.time()))


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


def caller_of(request: Request) -> Caller:
    """Who has sent the request: so far, the address that it comes from."""
    return Caller.at(str(getattr(request.getClientAddress(), "host", "local")))


ARGUMENTS = ("url", "directory", "filename", "sha256")  # of forms, and of imports
MAX_JSON_BYTES = 32 << 10
FILE_FIELD = "body"  # of an urlencoded form
MAX_FIELD_BYTES = 8 << 10  # as sent; a name of 1,024 bytes takes 3,072 with every byte escaped


class Arguments:
    """Fields by name, each given at most once, in the query or in the form."""

    def __init__(self, query: Mapping[bytes, Sequence[bytes]], names: Sequence[str]) -> None:
        """`query` is parsed and decoded; of it `names` count.

        :raises Malformed: when one of them is there twice.
        """
        self._values: dict[str, bytes] = {}
        self._given: set[str] = set()
        for name in names:
            for value in query.get(name.encode(), ()):
                self.begin(name)
                self._values[name] = value

    def begin(self, name: str) -> None:
        """A field of the form begins.

        :raises Malformed: when it was given before.
        """
        if name in self._given:
            raise Malformed(f"the field {name[:64]!r} is given twice")
        self._given.add(name)

    def add(self, name: str, piece: bytes) -> None:
        """More of a field's value, still encoded.

        :raises Malformed: when it is too long, or encoded wrongly.
        """
        self.give(name, decode_urlencoded(piece))

    def give(self, name: str, piece: bytes) -> None:
        """More of a field's value, as it is.

        :raises Malformed: when it is too long.
        """
        value = self._values.get(name, b"") + piece
        if len(value) > MAX_FIELD_BYTES:
            raise Malformed(f"the field {name[:64]!r} is longer than {MAX_FIELD_BYTES} bytes")
        self._values[name] = value

    def has(self, name: str) -> bool:
        """Whether `name` was given, be it empty."""
        return name in self._given

    def get(self, name: str) -> str | None:
        """The value of `name`, None when it is absent or empty.

        :raises NameNotAllowed: when it is not UTF-8.
        """
        return decode(self._values[name]) if self._values.get(name) else None

    def require(self, name: str) -> str:
        """The value of `name`.

        :raises MissingArgument: when it is absent or empty.
        :raises NameNotAllowed: when it is not UTF-8.
        """
        return decode(self.require_bytes(name))

    def require_bytes(self, name: str) -> bytes:
        """The value of `name`, whatever bytes it is.

        :raises MissingArgument: when it is absent or empty.
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
    """Read an urlencoded form. Its fields with one of `names`, or all of them, become `arguments`.
    With `write` the field `body` is a file: `write` gets its pieces, still encoded.

    :raises TooLarge: when the form has more than `max_bytes`.
    :raises Malformed: when it is malformed, or a field is given twice or is too long.
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
                    arguments.add(field, event)
        if pieces and write is not None:
            await write(pieces)
    for event in decoder.end():
        if isinstance(event, PartBegins):
            arguments.begin(event.name)


async def read_json(body: Body, arguments: Arguments, names: Sequence[str]) -> None:
    """Read a JSON object. Its members with one of `names` become `arguments`.

    :raises Malformed: when it is not a JSON object, or one of them is not text, or is given twice.
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
            arguments.give(name, value.encode("utf-8", "surrogatepass"))
        elif name == FILE_FIELD:
            arguments.begin(name)
