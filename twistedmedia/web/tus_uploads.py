"""Routes of tus 1.0.0, resumable uploads (https://tus.io/protocols/resumable-upload)."""

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
    header,
    media_url,
    mounted_at,
    refuse_what_is_no_file,
    segments_below,
)
from twistedmedia.web.routing import add_route

_NO_CACHE = {"Cache-Control": "no-store"}


class TusRoutes:
    """`/uploads/`: `POST` there, or below it at the path of a directory, begins an upload. Its own
    URL has `HEAD`, `PATCH` and `DELETE`.
    """

    def __init__(self, uploads: ResumableUploads) -> None:
        self._uploads = uploads

    def add_to(self, app: Klein) -> None:
        """Add the routes."""
        for url, below in (("/uploads", False), ("/uploads/", True)):
            add_route(app, url, ["OPTIONS"], self.tell, branch=below)
            add_route(app, url, ["POST"], self.post, branch=below)
        for method, handler in (("HEAD", self.look), ("PATCH", self.add), ("DELETE", self.end)):
            add_route(app, "/uploads/", [method], handler, branch=True)

    async def tell(self, request: Request) -> Response:
        """What is spoken here."""
        headers = {
            "Tus-Version": VERSION,
            "Tus-Extension": EXTENSIONS,
            "Tus-Checksum-Algorithm": ",".join(ALGORITHMS),
            "Tus-Max-Size": str(self._uploads.library.limits.max_upload),
            "Allow": "OPTIONS, POST, HEAD, PATCH, DELETE",
        }
        return Response(204, headers)

    async def post(self, request: Request) -> Response:
        """Begin an upload, or, for those who can send nothing else, another method."""
        _begin(request)
        method = header(request, "x-http-method-override")
        if method is None or method == "POST":
            return await self._create(request)
        handler = {"PATCH": self.add, "DELETE": self.end, "HEAD": self.look}.get(method)
        if handler is None:
            raise BadRequest("X-HTTP-Method-Override: only HEAD, PATCH and DELETE are known")
        return await handler(request)

    async def look(self, request: Request) -> Response:
        """How far an upload is."""
        _begin(request)
        body_of(request).discard()  # it may wait, and a request that waits holds no content
        try:
            progress = await self._uploads.status(caller_of(request), _upload_in_path(request))
        except Superseded:  # 409 would make a client begin a new upload
            raise Locked from None
        headers = {"Upload-Offset": str(progress.offset), **_NO_CACHE}
        if progress.length is None:
            headers["Upload-Defer-Length"] = "1"
        else:
            headers["Upload-Length"] = str(progress.length)
        if progress.note:
            headers["Upload-Metadata"] = progress.note
        return Response(200, {**headers, **_ahead(request, progress), "Content-Length": "0"}, b"")

    async def add(self, request: Request) -> Response:
        """The content goes on with an upload."""
        _begin(request)
        upload_id = _upload_in_path(request)
        if not _is_part(request):
            raise UnsupportedContent(f"send the content as {CONTENT_TYPE}")
        refuse_what_is_no_file(request)
        length = header(request, "upload-length")
        part = UploadPart(
            parse_bytes("Upload-Offset", header(request, "upload-offset")),
            body_of(request),
            None if length is None else parse_bytes("Upload-Length", length),
            parse_checksum(header(request, "upload-checksum")),
        )
        progress = await self._uploads.append(caller_of(request), upload_id, part)
        headers = {"Upload-Offset": str(progress.offset), **_ahead(request, progress)}
        return Response(204, headers)

    async def end(self, request: Request) -> Response:
        """Drop an upload."""
        _begin(request)
        body_of(request).discard()  # as in `look`
        await self._uploads.terminate(caller_of(request), _upload_in_path(request))
        return Response(204, {})

    async def _create(self, request: Request) -> Response:
        _begin(request)
        length = parse_length(
            header(request, "upload-length"), header(request, "upload-defer-length")
        )
        if header(request, "upload-concat") is not None:  # a part would be stored as the whole
            raise BadRequest(
                "uploads are not put together here: send the whole without Upload-Concat"
            )
        note = header(request, "upload-metadata") or ""
        metadata = parse_metadata(note)
        sha256 = parse_sha256(decode(metadata["sha256"])) if "sha256" in metadata else None
        checksum = parse_checksum(header(request, "upload-checksum"))
        body = body_of(request)
        if body.length != 0 and not _is_part(request):
            raise UnsupportedContent(f"send the content as {CONTENT_TYPE}, or none")
        refuse_what_is_no_file(request)
        caller = caller_of(request)
        spec = UploadSpec(_name(request, metadata), length, sha256, caller.key, note)
        part = UploadPart(0, body, None, checksum)
        progress = await self._uploads.create(caller, spec, part)
        url = f"{mounted_at(request)}/{progress.upload_id}"
        headers = {
            "Location": url,
            "Upload-Offset": str(progress.offset),
            **_ahead(request, progress),
            **_NO_CACHE,
        }
        payload = {**OK, "upload": url, "offset": progress.offset, "length": progress.length}
        return json_response(201, payload, headers)


def _begin(request: Request) -> None:
    check_version(header(request, "tus-resumable"))


def _ahead(request: Request, progress: UploadProgress) -> dict[str, str]:
    """Where the upload leads, or until when it is there."""
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
    """The name that the file is to have: its directory is in the path, or in the metadata."""
    filename = metadata.get("filename") or metadata.get("name") or b""
    directory = metadata.get("directory") or b""
    segments = segments_below(request)
    if segments and segments[-1] == b"":
        del segments[-1]
    if not segments:
        return media_name(decode(directory), decode(filename))
    name = media_name_from_path([*segments, filename])
    if directory and name != media_name(decode(directory), decode(filename)):
        raise Malformed("the path and the metadata name two directories")
    return name
