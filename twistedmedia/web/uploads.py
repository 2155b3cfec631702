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
from twistedmedia.library.events import Source
from twistedmedia.library.library import Library
from twistedmedia.library.upload import ContentCoding, Upload
from twistedmedia.library.upload_slots import UploadSlot
from twistedmedia.limits import ByteBudget
from twistedmedia.web.arguments import (
    Arguments,
    caller_of,
    condition_of_change,
    header,
    media_url,
    name_in_path,
    refuse_what_is_no_file,
)
from twistedmedia.web.fetches import JSON, fetching_or_forbidden
from twistedmedia.web.form_parts import FormParts
from twistedmedia.web.imports import ARGUMENTS, import_url, read_json
from twistedmedia.web.routing import Reply, add_route, respond

_URLENCODED = ContentCoding(decode=decode_urlencoded, measure=decoded_size)


class UploadRoutes:
    """`PUT /media/<directory>/<filename>` and `POST /media`."""

    def __init__(self, library: Library) -> None:
        self._library = library

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
        caller = caller_of(request)
        with (
            await self._library.admit_upload(caller, body),
            self._library.begin(Source(caller), declared=body.length) as upload,
        ):
            upload.sha256, upload.replacing = sha256, replacing
            upload.accepted(name)
            waits = header(request, "expect") is not None
            await upload.prepare(awaited=waits)
            upload.raise_failure()
            if not (upload.identical and waits):  # who waits need not send
                async for chunks in body:
                    await upload.write(chunks)
                    upload.raise_failure()
            await upload.end()
            await self._library.publish([upload])
            upload.raise_failure()
        return _stored(request, [upload])

    async def post(self, request: Request) -> Reply:
        """The content is a form."""
        media_type, parameters = content_type_of(header(request, "content-type"))
        refuse_what_is_no_file(request)
        body = body_of(request)
        if body.length is not None and body.length > self._library.limits.max_form:
            raise TooLarge(self._library.limits.max_form, "the form")
        with await self._library.admit_upload(caller_of(request), body) as slot:
            if media_type == MULTIPART:
                decoder = MultipartDecoder(parameters.get("boundary"))
                return await self._multipart(request, body, decoder, slot)
            if media_type == URLENCODED:
                return await self._urlencoded(request, body, slot)
            if media_type == JSON:
                arguments = _named_in_query(request)
                await read_json(body, arguments)
                return await self._import(request, arguments, slot)
        raise UnsupportedContent(f"send {MULTIPART}, {URLENCODED} or {JSON}")

    async def _multipart(
        self, request: Request, body: Body, decoder: MultipartDecoder, slot: UploadSlot
    ) -> Reply:
        """Each file part is a file: the part's name is the directory, its filename the filename,
        unless text parts say otherwise. Without any, the text parts may be the arguments of an
        import.
        """
        caller = caller_of(request)
        site: Any = request.site  # a `MediaSite`, since there is a body
        with self._library.form_files.take(caller.key, slot, 0) as files:
            parts = FormParts(
                lambda: self._library.begin(Source(caller)),
                lambda: self._library.hold_form_file(files),
                body.turn,
                lambda: site.dropping.turn(caller.key),
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
                await self._library.run_shielded(
                    parts.leave(error), "the files of a form, to drop them"
                )
                raise
        if not parts.has("url"):
            raise EmptyUpload
        return await self._import(request, parts.arguments(_named_in_query(request)), slot)

    async def _urlencoded(self, request: Request, body: Body, slot: UploadSlot) -> Reply:
        """The fields `directory`, `filename` and `body` are a file, in any order. With `url` in
        place of `body` they are an import.
        """
        arguments = _named_in_query(request)
        decoder = UrlencodedDecoder()
        source = Source(caller_of(request))
        with self._library.begin(source, coding=_URLENCODED) as upload:
            field = ""
            empty = True
            async for chunks in self._counted(body):
                pieces: list[bytes] = []
                for chunk in chunks:
                    await body.turn()
                    for event in decoder.feed(chunk):
                        if isinstance(event, PartBegins):
                            field = event.name
                            arguments.begin(field)
                        elif isinstance(event, PartEnds):
                            field = ""
                        elif field == "body":
                            pieces.append(event)
                        elif field in ARGUMENTS:
                            arguments.add(field, event)
                if pieces:
                    await upload.write(pieces)
                    empty = False
            for event in decoder.end():
                if isinstance(event, PartBegins):
                    arguments.begin(event.name)
            if not arguments.has("url"):
                await upload.end()  # what is wrong with the content is told before the name
                _named_by(arguments, upload, empty)
                await self._library.publish([upload])
                upload.raise_failure()
                return _stored(request, [upload])
        return await self._import(request, arguments, slot)

    async def _import(self, request: Request, arguments: Arguments, slot: UploadSlot) -> Reply:
        if arguments.has("body") and arguments.has("url"):
            raise Malformed("send either the body or the url, not both")
        fetching_or_forbidden(self._library.fetches)
        upload, timings = await import_url(self._library, request, arguments, slot)
        return _stored(request, [upload], timings)

    async def _counted(self, body: Body) -> AsyncIterator[list[bytes]]:
        budget = ByteBudget(self._library.limits.max_form, "the form")
        async for chunks in body:
            budget.spend(sum(map(len, chunks)))
            yield chunks


def _named_in_query(request: Request) -> Arguments:
    return Arguments(request.args, ("directory", "filename"))


def _named_by(arguments: Arguments, upload: Upload, empty: bool) -> None:
    try:
        if arguments.has("sha256"):
            upload.sha256 = sha256_from_hex(arguments.require("sha256"))
        directory, filename = arguments.require("directory"), arguments.require("filename")
        if empty:
            raise MissingArgument("body")
    except MediaError as error:
        upload.fail(error)
    else:
        upload.named(directory, filename)


def _stored(request: Request, uploads: list[Upload], timings: Timings | None = None) -> Reply:
    return respond(
        stored_answer(
            [_outcome(upload) for upload in uploads],
            lambda name: media_url(request, name),
            {} if timings is None else {"Server-Timing": timings.header},
        )
    )


def _outcome(upload: Upload) -> FileOutcome:
    stored = upload.stored
    if stored is None:
        return FileOutcome(upload.directory, upload.filename, failure=upload.failure)
    return FileOutcome(
        stored.name.directory,
        stored.name.filename,
        stored.name,
        stored.size,
        stored.sha256,
        stored.etag,
        identical=upload.identical,
        replaced=upload.replacing is not None,
        problem=upload.problem,
    )


def _require_declared_content(request: Request) -> None:
    """An old client that ends its content by closing would leave an empty file behind."""
    if not any(map(request.requestHeaders.hasHeader, ("content-length", "transfer-encoding"))):
        raise BadRequest("the content is not declared; send Content-Length, or send it chunked")
