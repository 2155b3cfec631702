"""Routes of tus 1.0.0 (https://tus.io/protocols/resumable-upload), for resumable uploads."""

from __future__ import annotations

from klein import Klein
from twisted.web.server import Request

from twistedmedia.errors import (
    BadRequest,
    Locked,
    Malformed,
    NotFound,
    Superseded,
    UnsupportedContent,
)
from twistedmedia.http.body import body_of
from twistedmedia.http.header_fields import parse_content_type, parse_sha256
from twistedmedia.http.tus import (
    ALGORITHMS,
    CONTENT_TYPE,
    EXTENSIONS,
    VERSION,
    check_version,
    format_expires,
    parse_bytes,
    parse_checksum,
    parse_length,
    parse_metadata,
)
from twistedmedia.json_response import OK, Response, json_response
from twistedmedia.library.resumable import ResumableUploads
from twistedmedia.library.resumption import UploadPart, UploadProgress
from twistedmedia.names import MediaName, decode, is_upload, media_name, media_name_from_path
from twistedmedia.store.interface import UploadSpec
from twistedmedia.web.arguments import (
    caller_of,
    check_whole_content,
    header,
    media_url,
    route_path,
    segments_below,
)
from twistedmedia.web.routing import add_route

_NO_CACHE = {"Cache-Control": "no-store"}


class TusRoutes:
    """`POST` of `/uploads/`, or of a directory below it, creates an upload. The upload has
    `HEAD`, `PATCH` and `DELETE`.
    """

    def __init__(self, uploads: ResumableUploads) -> None:
        self._uploads = uploads

    def add_to(self, app: Klein) -> None:
        """Add the routes."""
        for url, below in (("/uploads", False), ("/uploads/", True)):
            add_route(app, url, ["OPTIONS"], self.options, branch=below)
            add_route(app, url, ["POST"], self.post, branch=below)
        for method, handler in (
            ("HEAD", self.head),
            ("PATCH", self.patch),
            ("DELETE", self.delete),
        ):
            add_route(app, "/uploads/", [method], handler, branch=True)

    async def options(self, request: Request) -> Response:
        """Respond with the version and the extensions of tus."""
        headers = {
            "Tus-Version": VERSION,
            "Tus-Extension": EXTENSIONS,
            "Tus-Checksum-Algorithm": ",".join(ALGORITHMS),
            "Tus-Max-Size": str(self._uploads.library.limits.max_upload),
            "Allow": "OPTIONS, POST, HEAD, PATCH, DELETE",
        }
        return Response(204, headers)

    async def post(self, request: Request) -> Response:
        """Create an upload, or handle the method in `X-HTTP-Method-Override`."""
        _check_version(request)
        method = header(request, "x-http-method-override")
        if method is None or method == "POST":
            return await self._create(request)
        handler = {"PATCH": self.patch, "DELETE": self.delete, "HEAD": self.head}.get(method)
        if handler is None:
            raise BadRequest("X-HTTP-Method-Override: only HEAD, PATCH and DELETE are supported")
        return await handler(request)

    async def head(self, request: Request) -> Response:
        """Respond with the offset of an upload."""
        _check_version(request)
        body_of(request).discard()  # a request that waits must not hold content
        try:
            progress = await self._uploads.status(caller_of(request), _upload_in_path(request))
        except Superseded:  # after 409 a client would create a new upload
            raise Locked from None
        headers = {"Upload-Offset": str(progress.offset), **_NO_CACHE}
        if progress.length is None:
            headers["Upload-Defer-Length"] = "1"
        else:
            headers["Upload-Length"] = str(progress.length)
        if progress.note:
            headers["Upload-Metadata"] = progress.note
        return Response(
            200, {**headers, **_location_or_expiry(request, progress), "Content-Length": "0"}, b""
        )

    async def patch(self, request: Request) -> Response:
        """Append the content to an upload."""
        _check_version(request)
        upload_id = _upload_in_path(request)
        if not _is_part(request):
            raise UnsupportedContent(f"send the content as {CONTENT_TYPE}")
        check_whole_content(request)
        length = header(request, "upload-length")
        part = UploadPart(
            parse_bytes("Upload-Offset", header(request, "upload-offset")),
            body_of(request),
            None if length is None else parse_bytes("Upload-Length", length),
            parse_checksum(header(request, "upload-checksum")),
        )
        progress = await self._uploads.append(caller_of(request), upload_id, part)
        headers = {"Upload-Offset": str(progress.offset), **_location_or_expiry(request, progress)}
        return Response(204, headers)

    async def delete(self, request: Request) -> Response:
        """Terminate an upload."""
        _check_version(request)
        body_of(request).discard()  # as in `head`
        await self._uploads.terminate(caller_of(request), _upload_in_path(request))
        return Response(204, {})

    async def _create(self, request: Request) -> Response:
        _check_version(request)
        length = parse_length(
            header(request, "upload-length"), header(request, "upload-defer-length")
        )
        if header(request, "upload-concat") is not None:  # a part would be stored as a whole file
            raise BadRequest(
                "concatenation is not supported; send the whole file without Upload-Concat"
            )
        note = header(request, "upload-metadata") or ""
        metadata = parse_metadata(note)
        sha256 = parse_sha256(decode(metadata["sha256"])) if "sha256" in metadata else None
        checksum = parse_checksum(header(request, "upload-checksum"))
        body = body_of(request)
        if body.length != 0 and not _is_part(request):
            raise UnsupportedContent(f"send the content as {CONTENT_TYPE}, or none")
        check_whole_content(request)
        caller = caller_of(request)
        spec = UploadSpec(_name(request, metadata), length, sha256, caller.key, note)
        part = UploadPart(0, body, None, checksum)
        progress = await self._uploads.create(caller, spec, part)
        url = f"{route_path(request)}/{progress.upload_id}"
        headers = {
            "Location": url,
            "Upload-Offset": str(progress.offset),
            **_location_or_expiry(request, progress),
            **_NO_CACHE,
        }
        payload = {**OK, "upload": url, "offset": progress.offset, "length": progress.length}
        return json_response(201, payload, headers)


def _check_version(request: Request) -> None:
    check_version(header(request, "tus-resumable"))


def _location_or_expiry(request: Request, progress: UploadProgress) -> dict[str, str]:
    """The header with the path of the stored file, or with the time when the upload expires."""
    if progress.stored is not None:
        return {"Content-Location": media_url(request, progress.stored)}
    if progress.expires_s is not None:
        return {"Upload-Expires": format_expires(progress.expires_s)}
    return {}


def _upload_in_path(request: Request) -> str:
    segments = segments_below(request)
    upload = segments[0].decode() if len(segments) == 1 else ""
    if not is_upload(upload):
        raise NotFound("there is no such upload")
    return upload


def _is_part(request: Request) -> bool:
    return parse_content_type(header(request, "content-type"))[0] == CONTENT_TYPE


def _name(request: Request, metadata: dict[str, bytes]) -> MediaName:
    """The name of the file. Its directory is in the path or in the metadata."""
    filename = metadata.get("filename") or metadata.get("name") or b""
    directory = metadata.get("directory") or b""
    segments = segments_below(request)
    if segments and segments[-1] == b"":
        del segments[-1]
    if not segments:
        return media_name(decode(directory), decode(filename))
    name = media_name_from_path([*segments, filename])
    if directory and name != media_name(decode(directory), decode(filename)):
        raise Malformed("the path and the metadata name different directories")
    return name
