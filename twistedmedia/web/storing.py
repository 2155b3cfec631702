"""Routes that store: `PUT` of one file, `POST` of a form."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack

from klein import Klein, Response
from twisted.web.server import Request

from twistedmedia.answers import FileOutcome, stored_answer
from twistedmedia.arrival import Arrival, Coding
from twistedmedia.errors import (
    BadRequest,
    EmptyUpload,
    MediaError,
    MissingArgument,
    TooLarge,
    UnsupportedContent,
)
from twistedmedia.intake import Intake
from twistedmedia.limits import ByteBudget
from twistedmedia.streaming import Body
from twistedmedia.web.answering import add_route, respond
from twistedmedia.web.fields import Fields
from twistedmedia.web.requests import (
    client_address,
    condition_of_change,
    header,
    media_url,
    name_in_path,
)
from twistedmedia.wire.body import body_of
from twistedmedia.wire.digests import declared_sha256, sha256_from_hex
from twistedmedia.wire.forms import (
    MULTIPART,
    URLENCODED,
    MultipartDecoder,
    PartBegins,
    PartEnds,
    UrlencodedDecoder,
    content_type_of,
    decode_urlencoded,
    decoded_size,
)

_URLENCODED = Coding(decode=decode_urlencoded, measure=decoded_size)


class Storing:
    """`PUT /media/<directory>/<filename>` and `POST /media`."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    def add_to(self, app: Klein) -> None:
        """Add the routes."""
        add_route(app, "/media/", ["PUT"], self.put, branch=True)
        add_route(app, "/media", ["POST"], self.post)

    async def put(self, request: Request) -> Response:
        """The content is the file."""
        sha256 = declared_sha256(header(request, "content-digest"), header(request, "repr-digest"))
        name = name_in_path(request)
        _refuse_what_is_no_file(request)
        _require_declared_content(request)
        means_one = header(request, "if-match") is not None
        replacing = condition_of_change(request) if means_one else None
        body = body_of(request)
        with (
            self._intake.upload(),
            self._intake.arrival(client_address(request), declared=body.length) as arrival,
        ):
            arrival.sha256, arrival.replacing = sha256, replacing
            arrival.accepted(name)
            waits = header(request, "expect") is not None
            await arrival.prepare(awaited=waits)
            _raise_failure(arrival)
            if not (arrival.identical and waits):  # who waits need not send
                async for chunks in body:
                    await arrival.write(chunks)
                    _raise_failure(arrival)
            await arrival.end()
            await self._intake.publish([arrival])
            _raise_failure(arrival)
        return _stored(request, [arrival])

    async def post(self, request: Request) -> Response:
        """The content is a form."""
        media_type, parameters = content_type_of(header(request, "content-type"))
        _refuse_what_is_no_file(request)
        body = body_of(request)
        if body.length is not None and body.length > self._intake.limits.max_form:
            raise TooLarge(self._intake.limits.max_form, "the form")
        with self._intake.upload():
            if media_type == MULTIPART:
                decoder = MultipartDecoder(parameters.get("boundary"))
                return _stored(request, await self._multipart(request, body, decoder))
            if media_type == URLENCODED:
                return _stored(request, [await self._urlencoded(request, body)])
        raise UnsupportedContent(f"send {MULTIPART} or {URLENCODED}")

    async def _multipart(
        self, request: Request, body: Body, decoder: MultipartDecoder
    ) -> list[Arrival]:
        """Each file part is a file: the part's name is the directory, its filename the filename."""
        source = client_address(request)
        arrivals: list[Arrival] = []
        with ExitStack() as arriving:
            arrival: Arrival | None = None  # of the part that is being received, if it is a file
            empty = True
            async for chunks in self._counted(body):
                pieces: list[bytes] = []
                for chunk in chunks:
                    for event in decoder.feed(chunk):
                        if isinstance(event, bytes):
                            pieces.append(event)
                            continue
                        if arrival is not None and pieces:
                            await arrival.write(pieces)
                            empty = False
                        pieces = []
                        if isinstance(event, PartBegins):
                            if event.filename is None:
                                continue
                            empty = True
                            arrival = arriving.enter_context(self._intake.arrival(source))
                            _named(arrival, event, event.filename)
                        elif arrival is not None:
                            await arrival.end()
                            await arrival.seal()
                            if arrival.filename or not empty:  # else an untouched browser field
                                arrivals.append(arrival)
                            arrival = None
                if arrival is not None and pieces:
                    await arrival.write(pieces)
                    empty = False
            decoder.end()
            if not arrivals:
                raise EmptyUpload
            await self._intake.publish(arrivals)
        return arrivals

    async def _urlencoded(self, request: Request, body: Body) -> Arrival:
        """The fields `directory`, `filename` and `body` are a file, in any order."""
        fields = Fields(request.args, ("directory", "filename"))
        decoder = UrlencodedDecoder()
        source = client_address(request)
        with self._intake.arrival(source, coding=_URLENCODED) as arrival:
            field = ""
            empty = True
            async for chunks in self._counted(body):
                pieces: list[bytes] = []
                for chunk in chunks:
                    for event in decoder.feed(chunk):
                        if isinstance(event, PartBegins):
                            field = event.name
                            fields.begin(field)
                        elif isinstance(event, PartEnds):
                            field = ""
                        elif field == "body":
                            pieces.append(event)
                        elif field in ("directory", "filename", "sha256"):
                            fields.add(field, event)
                if pieces:
                    await arrival.write(pieces)
                    empty = False
            for event in decoder.end():
                if isinstance(event, PartBegins):
                    fields.begin(event.name)
            try:
                if fields.has("sha256"):
                    arrival.sha256 = sha256_from_hex(fields.require("sha256"))
                directory, filename = fields.require("directory"), fields.require("filename")
                if empty:
                    raise MissingArgument("body")
            except MediaError as error:
                arrival.fail(error)
            else:
                arrival.named(directory, filename)
            await arrival.end()
            await self._intake.publish([arrival])
            _raise_failure(arrival)
        return arrival

    async def _counted(self, body: Body) -> AsyncIterator[list[bytes]]:
        budget = ByteBudget(self._intake.limits.max_form, "the form")
        async for chunks in body:
            budget.spend(sum(map(len, chunks)))
            yield chunks


def _named(arrival: Arrival, part: PartBegins, filename: str) -> None:
    arrival.named(part.name, filename)
    try:
        arrival.sha256 = declared_sha256(
            part.headers.get("content-digest"), part.headers.get("repr-digest")
        )
    except MediaError as error:
        arrival.fail(error)


def _raise_failure(arrival: Arrival) -> None:
    if arrival.failure is not None:
        raise arrival.failure


def _stored(request: Request, arrivals: list[Arrival]) -> Response:
    return respond(
        stored_answer(
            [_outcome(arrival) for arrival in arrivals], lambda name: media_url(request, name)
        )
    )


def _outcome(arrival: Arrival) -> FileOutcome:
    stored = arrival.stored
    if stored is None:
        return FileOutcome(arrival.directory, arrival.filename, failure=arrival.failure)
    return FileOutcome(
        stored.name.directory,
        stored.name.filename,
        stored.name,
        stored.size,
        stored.sha256,
        stored.etag,
        identical=arrival.identical,
        replaced=arrival.replacing is not None,
        problem=arrival.problem,
    )


def _require_declared_content(request: Request) -> None:
    """An old client that ends its content by closing would leave an empty file behind."""
    if not any(map(request.requestHeaders.hasHeader, ("content-length", "transfer-encoding"))):
        raise BadRequest("the content is not declared; send Content-Length, or send it chunked")


def _refuse_what_is_no_file(request: Request) -> None:
    """Content that would be stored as something else than the file that the client means."""
    coding = (header(request, "content-encoding") or "identity").strip().lower()
    if coding != "identity":
        raise UnsupportedContent("send the content without Content-Encoding")
    if header(request, "content-range") is not None:  # RFC 9110, 14.4: what curl -C - -T sends
        raise BadRequest("a part of a file cannot be stored; send the whole without Content-Range")
