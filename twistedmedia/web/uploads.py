"""Routes that store: `PUT` of one file, `POST` of a form or of the URL of an import."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from klein import Klein
from twisted.web.server import Request

from twistedmedia.answers import FileOutcome, stored_answer
from twistedmedia.errors import (
    BadRequest,
    EmptyUpload,
    Malformed,
    MediaError,
    MissingArgument,
    TooLarge,
    UnsupportedContent,
)
from twistedmedia.fetch.timings import Timings
from twistedmedia.http.body import Body, body_of
from twistedmedia.http.forms import (
    MULTIPART,
    URLENCODED,
    MultipartDecoder,
    PartBegins,
    PartEnds,
    UrlencodedDecoder,
    decode_urlencoded,
    decoded_size,
)
from twistedmedia.http.header_fields import content_type_of, declared_sha256, sha256_from_hex
from twistedmedia.library.library import Library, UploadSlot
from twistedmedia.library.upload import ContentCoding, Upload
from twistedmedia.limits import ByteBudget
from twistedmedia.web.arguments import (
    Arguments,
    caller_of,
    client_address,
    condition_of_change,
    header,
    media_url,
    name_in_path,
    refuse_what_is_no_file,
)
from twistedmedia.web.fetches import JSON, fetching_or_forbidden
from twistedmedia.web.form_parts import FormParts
from twistedmedia.web.imports import ARGUMENTS, ImportRoutes, read_json
from twistedmedia.web.routing import Reply, add_route, respond

_URLENCODED = ContentCoding(decode=decode_urlencoded, measure=decoded_size)


class UploadRoutes:
    """`PUT /media/<directory>/<filename>` and `POST /media`."""

    def __init__(self, library: Library, importing: ImportRoutes | None) -> None:
        """Without `importing` no URL is fetched."""
        self._library = library
        self._importing = importing

    def add_to(self, app: Klein) -> None:
        """Add the routes."""
        add_route(app, "/media/", ["PUT"], self.put, branch=True)
        add_route(app, "/media", ["POST"], self.post)

    async def put(self, request: Request) -> Reply:
        """The content is the file."""
        sha256 = declared_sha256(header(request, "content-digest"), header(request, "repr-digest"))
        name = name_in_path(request)
        refuse_what_is_no_file(request)
        _require_declared_content(request)
        means_one = header(request, "if-match") is not None
        replacing = condition_of_change(request) if means_one else None
        body = body_of(request)
        source, caller = client_address(request), caller_of(request)
        with (
            await self._library.upload(caller, source, body),
            self._library.arrival(source, declared=body.length, caller=caller) as arrival,
        ):
            arrival.sha256, arrival.replacing = sha256, replacing
            arrival.accepted(name)
            waits = header(request, "expect") is not None
            await arrival.prepare(awaited=waits)
            arrival.raise_failure()
            if not (arrival.identical and waits):  # who waits need not send
                async for chunks in body:
                    await arrival.write(chunks)
                    arrival.raise_failure()
            await arrival.end()
            await self._library.publish([arrival])
            arrival.raise_failure()
        return _stored(request, [arrival])

    async def post(self, request: Request) -> Reply:
        """The content is a form."""
        media_type, parameters = content_type_of(header(request, "content-type"))
        refuse_what_is_no_file(request)
        body = body_of(request)
        if body.length is not None and body.length > self._library.limits.max_form:
            raise TooLarge(self._library.limits.max_form, "the form")
        with await self._library.upload(caller_of(request), client_address(request), body) as place:
            if media_type == MULTIPART:
                decoder = MultipartDecoder(parameters.get("boundary"))
                return await self._multipart(request, body, decoder, place)
            if media_type == URLENCODED:
                return await self._urlencoded(request, body, place)
            if media_type == JSON:
                fields = _named_in_query(request)
                await read_json(body, fields)
                return await self._import(request, fields, place)
        raise UnsupportedContent(f"send {MULTIPART}, {URLENCODED} or {JSON}")

    async def _multipart(
        self, request: Request, body: Body, decoder: MultipartDecoder, place: UploadSlot
    ) -> Reply:
        """Each file part is a file: the part's name is the directory, its filename the filename,
        unless text parts say otherwise. Without any, the text parts may be the arguments of an
        import.
        """
        source, caller = client_address(request), caller_of(request)
        site: Any = request.site  # a `MediaSite`, since there is a body
        with self._library.form_files.take(caller, place, 0) as files:
            parts = FormParts(
                lambda: self._library.arrival(source, caller=caller),
                lambda: self._library.form_file(files),
                body.turn,
                lambda: site.dropping.turn(caller),
            )
            try:
                async for chunks in self._counted(body):
                    await parts.take(event for chunk in chunks for event in decoder.feed(chunk))
                decoder.end()
                if parts.files:
                    await parts.name_files()
                    await self._library.publish(parts.files, body.turn)
                    return _stored(request, parts.files)
            except Exception as error:  # also when the client has left
                await self._library.unbroken(
                    parts.leave(error), "the files of a form, to drop them"
                )
                raise
        if not parts.has("url"):
            raise EmptyUpload
        return await self._import(request, parts.arguments(_named_in_query(request)), place)

    async def _urlencoded(self, request: Request, body: Body, place: UploadSlot) -> Reply:
        """The fields `directory`, `filename` and `body` are a file, in any order. With `url` in
        place of `body` they are an import.
        """
        fields = _named_in_query(request)
        decoder = UrlencodedDecoder()
        source, caller = client_address(request), caller_of(request)
        with self._library.arrival(source, coding=_URLENCODED, caller=caller) as arrival:
            field = ""
            empty = True
            async for chunks in self._counted(body):
                pieces: list[bytes] = []
                for chunk in chunks:
                    await body.turn()
                    for event in decoder.feed(chunk):
                        if isinstance(event, PartBegins):
                            field = event.name
                            fields.begin(field)
                        elif isinstance(event, PartEnds):
                            field = ""
                        elif field == "body":
                            pieces.append(event)
                        elif field in ARGUMENTS:
                            fields.add(field, event)
                if pieces:
                    await arrival.write(pieces)
                    empty = False
            for event in decoder.end():
                if isinstance(event, PartBegins):
                    fields.begin(event.name)
            if not fields.has("url"):
                await arrival.end()  # what is wrong with the content is told before the name
                _named_by(fields, arrival, empty)
                await self._library.publish([arrival])
                arrival.raise_failure()
                return _stored(request, [arrival])
        return await self._import(request, fields, place)

    async def _import(self, request: Request, fields: Arguments, place: UploadSlot) -> Reply:
        if fields.has("body") and fields.has("url"):
            raise Malformed("send either the body or the url, not both")
        importing = fetching_or_forbidden(self._importing)
        arrival, timings = await importing.store(request, fields, place)
        return _stored(request, [arrival], timings)

    async def _counted(self, body: Body) -> AsyncIterator[list[bytes]]:
        budget = ByteBudget(self._library.limits.max_form, "the form")
        async for chunks in body:
            budget.spend(sum(map(len, chunks)))
            yield chunks


def _named_in_query(request: Request) -> Arguments:
    return Arguments(request.args, ("directory", "filename"))


def _named_by(fields: Arguments, arrival: Upload, empty: bool) -> None:
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


def _stored(request: Request, arrivals: list[Upload], timings: Timings | None = None) -> Reply:
    return respond(
        stored_answer(
            [_outcome(arrival) for arrival in arrivals],
            lambda name: media_url(request, name),
            {} if timings is None else {"Server-Timing": timings.header},
        )
    )


def _outcome(arrival: Upload) -> FileOutcome:
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
