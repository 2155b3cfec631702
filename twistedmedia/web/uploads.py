"""Routes that store files: `PUT` of a file, `POST` of a form, or of a URL to import."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from klein import Klein
from twisted.web.server import Request

from twistedmedia.errors import (
    BadRequest,
    EmptyUpload,
    Malformed,
    MediaError,
    MissingArgument,
    TooLarge,
    UnsupportedContent,
)
from twistedmedia.fetch.urls import Url
from twistedmedia.http.body import Body, body_of
from twistedmedia.http.forms import (
    MULTIPART,
    URLENCODED,
    MultipartDecoder,
    decode_urlencoded,
    decoded_size,
)
from twistedmedia.http.header_fields import declared_sha256, parse_content_type, parse_sha256
from twistedmedia.http.site import MediaSite
from twistedmedia.json_response import OK, Response, json_response
from twistedmedia.library.events import Source
from twistedmedia.library.library import Library
from twistedmedia.library.upload import ContentCoding, Upload
from twistedmedia.library.upload_slots import UploadSlot
from twistedmedia.limits import ByteBudget
from twistedmedia.names import MediaName, media_name
from twistedmedia.web.arguments import (
    ARGUMENTS,
    FILE_FIELD,
    Arguments,
    caller_of,
    check_whole_content,
    header,
    media_url,
    name_in_path,
    precondition_of,
    read_json,
    read_urlencoded,
)
from twistedmedia.web.fetches import JSON, url_to_fetch
from twistedmedia.web.form_parts import FormParts
from twistedmedia.web.routing import add_route

_URLENCODED = ContentCoding(decode=decode_urlencoded, measure=decoded_size)


class UploadRoutes:
    """`PUT /media/<directory>/<filename>` and `POST /media`."""

    def __init__(self, library: Library) -> None:
        self._library = library

    def add_to(self, app: Klein) -> None:
        """Add the routes."""
        add_route(app, "/media/", ["PUT"], self.put, branch=True)
        add_route(app, "/media", ["POST"], self.post)

    async def put(self, request: Request) -> Response:
        """Store the content as a file."""
        sha256 = declared_sha256(header(request, "content-digest"), header(request, "repr-digest"))
        name = name_in_path(request)
        check_whole_content(request)
        _require_declared_content(request)
        must_replace = header(request, "if-match") is not None
        replacing = precondition_of(request) if must_replace else None
        body = body_of(request)
        caller = caller_of(request)
        with (
            await self._library.admit_upload(caller, body),
            self._library.begin(
                Source(caller), declared=body.length, replacing=replacing
            ) as upload,
        ):
            upload.sha256 = sha256
            upload.accepted(name)
            expects_continue = header(request, "expect") is not None
            await upload.prepare(awaited=expects_continue)
            upload.raise_failure()
            if not (upload.identical and expects_continue):  # else the content is not needed
                async for chunks in body:
                    await upload.write(chunks)
                    upload.raise_failure()
            await upload.end()
            await self._library.publish([upload])
            upload.raise_failure()
        return _stored(request, [upload])

    async def post(self, request: Request) -> Response:
        """Store the files of a form, or import a URL."""
        media_type, parameters = parse_content_type(header(request, "content-type"))
        check_whole_content(request)
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
                await read_json(body, arguments, ARGUMENTS)
                return await self._import(request, arguments, slot)
        raise UnsupportedContent(f"send {MULTIPART}, {URLENCODED} or {JSON}")

    async def _multipart(
        self, request: Request, body: Body, decoder: MultipartDecoder, slot: UploadSlot
    ) -> Response:
        """Store each file part. The name of the part is the directory, unless text parts have the
        name. Without file parts, the text parts can be the arguments of an import.
        """
        caller = caller_of(request)
        site = request.site
        assert isinstance(site, MediaSite), "`body_of` requires it"
        with self._library.form_files.take(caller.key, slot, 0) as files:
            parts = FormParts(
                lambda: self._library.begin(Source(caller)),
                lambda: self._library.hold_form_file(files),
                body.turn,
                lambda: site.discard_queue.turn(caller.key),
            )
            try:
                async for chunks in self._counted(body):
                    await parts.feed(event for chunk in chunks for event in decoder.feed(chunk))
                decoder.end()
                if parts.files:
                    await parts.name_files()
                    await self._library.publish(parts.files, body.turn)
                    return _stored(request, parts.files)
            except Exception as error:  # including the cancellation after a disconnect
                await self._library.run_shielded(parts.abort(error), "dropping the files of a form")
                raise
        if not parts.has("url"):
            raise EmptyUpload
        return await self._import(request, parts.arguments(_named_in_query(request)), slot)

    async def _urlencoded(self, request: Request, body: Body, slot: UploadSlot) -> Response:
        """Store the field `body` under `directory` and `filename`. The fields can have any order.
        With `url` in place of `body`, import that URL.
        """
        arguments = _named_in_query(request)
        source = Source(caller_of(request))
        with self._library.begin(source, coding=_URLENCODED) as upload:
            is_empty = True

            async def write(pieces: list[bytes]) -> None:
                nonlocal is_empty
                is_empty = False
                await upload.write(pieces)

            max_bytes = self._library.limits.max_form
            await read_urlencoded(body, arguments, max_bytes, ARGUMENTS, write)
            if not arguments.has("url"):
                await upload.end()  # failures of the content precede those of the name
                _name(upload, arguments, is_empty)
                await self._library.publish([upload])
                upload.raise_failure()
                return _stored(request, [upload])
        return await self._import(request, arguments, slot)

    async def _import(self, request: Request, arguments: Arguments, slot: UploadSlot) -> Response:
        if arguments.has(FILE_FIELD) and arguments.has("url"):
            raise Malformed("send either the body or the url, not both")
        self._library.require_fetches()  # whatever is wrong with the arguments
        url = url_to_fetch(arguments.require_bytes("url"))
        upload, timings = await self._library.import_url(
            caller_of(request),
            url,
            slot,
            directory=arguments.require("directory"),
            filename=arguments.get("filename") or _filename_of(url),
            sha256=_digest(arguments),
        )
        headers = {} if timings is None else {"Server-Timing": timings.header}
        return _stored(request, [upload], headers)

    async def _counted(self, body: Body) -> AsyncIterator[list[bytes]]:
        budget = ByteBudget(self._library.limits.max_form, "the form")
        async for chunks in body:
            budget.spend(sum(map(len, chunks)))
            yield chunks


def _named_in_query(request: Request) -> Arguments:
    return Arguments(request.args, ("directory", "filename"))


def _name(upload: Upload, arguments: Arguments, is_empty: bool) -> None:
    """Set the name and the digest of the file of an urlencoded form."""
    try:
        upload.sha256 = _digest(arguments)
        directory, filename = arguments.require("directory"), arguments.require("filename")
        if is_empty:
            raise MissingArgument(FILE_FIELD)
    except MediaError as error:
        upload.fail(error)
    else:
        upload.named(directory, filename)


def _digest(arguments: Arguments) -> str | None:
    return parse_sha256(arguments.require("sha256")) if arguments.has("sha256") else None


def _filename_of(url: Url) -> str:
    """The last segment of the path of `url`, if it can be a filename."""
    try:
        filename = url.filename.decode("utf-8")
        media_name("any", filename)
    except (UnicodeDecodeError, MediaError):
        raise MissingArgument("filename", "the URL does not end with one") from None
    return filename


def _stored(
    request: Request, uploads: list[Upload], headers: Mapping[str, str] | None = None
) -> Response:
    return stored_response(uploads, lambda name: media_url(request, name), headers)


def stored_response(
    uploads: Sequence[Upload],
    url_of: Callable[[MediaName], str],
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The response to a request that uploads one or more files, in their order."""
    entries = [_entry(upload, url_of) for upload in uploads]
    failures = [upload.failure for upload in uploads if upload.stored is None]
    if failures:
        first = failures[0]
        assert first is not None
        status = first.status if len(failures) == len(uploads) else 207
        return json_response(status, {"code": first.code, "reason": first.reason, "files": entries})
    created = any(not (upload.identical or upload.replacing) for upload in uploads)
    more = {**(headers or {})}
    if len(uploads) == 1:
        more["ETag"] = entries[0]["etag"]
        if created:
            more["Location"] = entries[0]["url"]
    return json_response(201 if created else 200, {**OK, "files": entries}, more)


def _entry(upload: Upload, url_of: Callable[[MediaName], str]) -> dict[str, Any]:
    stored = upload.stored
    if stored is None:
        assert upload.failure is not None
        return {
            "code": upload.failure.code,
            "reason": upload.failure.reason,
            "directory": upload.directory,
            "filename": upload.filename,
        }
    entry = {
        **OK,
        "directory": stored.name.directory,
        "filename": stored.name.filename,
        "url": url_of(stored.name),
        "size": stored.size,
        "sha256": stored.sha256,
        "etag": stored.etag,
    }
    if upload.identical:
        entry["identical"] = True
    elif upload.replacing is not None:
        entry["replaced"] = True
    if upload.problem is not None:
        entry["audio"] = {"ok": False, "problem": upload.problem}
    return entry


def _require_declared_content(request: Request) -> None:
    """Old clients end their content by closing the connection, which would store an empty file."""
    if not any(map(request.requestHeaders.hasHeader, ("content-length", "transfer-encoding"))):
        raise BadRequest(
            "the length of the content is missing; send Content-Length, or send it chunked"
        )
