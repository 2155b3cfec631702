"""The parts of a multipart form as they are received: files become uploads, texts become fields."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence

from twistedmedia.errors import BadRequest, Malformed, MediaError, UnsupportedContent
from twistedmedia.fairness.loop_queue import PIECE_BYTES
from twistedmedia.http.forms import FormEvent, PartBegins, PartEnds
from twistedmedia.http.header_fields import declared_sha256, parse_content_type, parse_sha256
from twistedmedia.library.upload import MIN_PREPARED_BYTES, Upload
from twistedmedia.names import media_name
from twistedmedia.web.arguments import ARGUMENTS, MAX_FIELD_BYTES, Arguments

_FILE_FIELDS = ("directory", "filename", "sha256")
_SINGLE_FILE_FIELDS = ("filename", "sha256")
_NAME_FIELDS = ("directory", "filename")
_ANY = "a"  # stands for any valid directory or filename
# Encodings that do not change the content (RFC 2045, 6.1).
_PLAIN_ENCODINGS = frozenset({"", "7bit", "8bit", "binary"})
# Without a filename, a part of these types is still a file. To ignore it would lose data.
_FILE_TYPES = ("audio/", "video/", "application/octet-stream")


class FormParts:
    """The parts of one form. `files` are the completely received files, in order.

    A file part without filename and content is ignored: browsers send it for an empty file field.
    """

    def __init__(
        self,
        begin: Callable[[], Upload],
        open_file: Callable[[], Awaitable[None]],
        turn: Callable[[], Awaitable[None]],
        dropping_turn: Callable[[], Awaitable[None]],
    ) -> None:
        """`begin` begins an upload. `open_file` is awaited once for each upload with content, which
        needs an open file until the form ends. `turn` is awaited before each event is decoded, and
        between files that are named or aborted. `dropping_turn` is awaited for each `PIECE_BYTES`
        of content that is dropped.
        """
        self.files: list[Upload] = []
        self._begun: list[Upload] = []  # including ignored ones
        self._begin_upload = begin
        self._open_file = open_file
        self._turn = turn
        self._dropping_turn = dropping_turn
        self._dropped = 0  # bytes since the last dropping turn
        self._texts: list[tuple[str, bytearray]] = []  # fields only
        self._text = bytearray()  # of the current part, if it is a text
        self._file: Upload | None = None  # of the current part, if it is a file
        self._is_untouched = False  # the current file has neither a filename nor content
        self._is_open = False  # `_open_file` was called for the current file
        self._pieces: list[bytes] = []  # of the current file, not written yet

    async def feed(self, events: Iterable[FormEvent]) -> None:
        """Process the events of one batch of the form.

        :raises UnsupportedContent: if a field is encoded, or a part contains several files.
        """
        await self._turn()
        for event in events:
            if isinstance(event, PartBegins):
                if _is_file(event):
                    self._begin_file(event, event.filename or "")
                else:
                    self._begin_text(event)
            elif isinstance(event, PartEnds):
                await self._end()
            elif self._file is not None:
                self._pieces.append(event)
                if self._file.failure is not None:
                    self._dropped += len(event)
            else:
                taken = event[: MAX_FIELD_BYTES + 1 - len(self._text)]
                self._text += taken
                self._dropped += len(event) - len(taken)
            await self._turn()
            while self._dropped >= PIECE_BYTES:
                self._dropped -= PIECE_BYTES
                await self._dropping_turn()
        await self._write()

    def has(self, name: str) -> bool:
        """Whether the form has the field `name`."""
        return any(each == name for each, _ in self._texts)

    def arguments(self, fields: Arguments, names: Sequence[str] = ARGUMENTS) -> Arguments:
        """Add the fields of the form that are in `names` to `fields`. Returns `fields`.

        :raises Malformed: if a field is given twice or is too long.
        """
        for name, text in self._texts:
            if name in names:
                fields.begin(name)
                fields.add(name, bytes(text))
        return fields

    async def abort(self, error: Exception) -> None:
        """End the form because of `error`. Drops all files that are not published."""
        files = [*self.files] if self._file is None else [*self.files, self._file]
        dropped = [file for file in files if not file.is_publishing]
        if dropped:
            dropped[0].report_failure(error, len(dropped) - 1)
        for file in self._begun:
            file.leave()
            await self._turn()

    async def name_files(self) -> None:
        """Give every file its name, after all parts were received.

        :raises Malformed: if a field is given twice or is too long.
        :raises BadRequest: if a field that applies to one file is in a form with several.
        """
        fields = self.arguments(Arguments({}, ()), _FILE_FIELDS)
        if len(self.files) > 1:
            for name in filter(fields.has, _SINGLE_FILE_FIELDS):
                raise BadRequest(
                    f"the field '{name}' applies to one file, but the form has {len(self.files)}; "
                    "leave it out, or send each file in a form of its own"
                )
        for file in self.files:
            if file is not self.files[0]:
                await self._turn()
            _name(file, fields)

    def _begin_text(self, part: PartBegins) -> None:
        self._text = bytearray()
        if part.name in ARGUMENTS:
            _refuse_encoded(part)
            self._texts.append((part.name, self._text))

    def _begin_file(self, part: PartBegins, filename: str) -> None:
        file = self._file = self._begin_upload()
        self._begun.append(file)
        self._is_untouched, self._is_open = not filename, False
        file.directory, file.filename = part.name, filename
        try:
            _refuse_encoded(part)
            file.sha256 = declared_sha256(
                part.headers.get("content-digest"), part.headers.get("repr-digest")
            )
        except MediaError as error:
            file.fail(error)
        self._check_name(file)

    def _check_name(self, file: Upload) -> None:
        """Fail `file` early if no later text part can make its name valid. A part `directory` can
        follow for all files of the form, and a part `filename` for the only file.
        """
        fields = self.arguments(Arguments({}, ()), _NAME_FIELDS)
        has_directory = fields.has("directory")
        has_filename = fields.has("filename") or bool(self.files)
        if has_directory and has_filename:
            _name(file, fields)
            return
        try:
            if has_directory:
                media_name(fields.require("directory"), _ANY)
            elif has_filename:
                filename = fields.require("filename") if fields.has("filename") else file.filename
                file.check_format(media_name(_ANY, filename))
        except MediaError as error:
            file.fail(error)

    async def _end(self) -> None:
        await self._write()
        file = self._file
        if file is not None:
            await file.end()
            if file.size >= MIN_PREPARED_BYTES:  # a smaller one is sealed when it is published
                await file.seal()
            self._file = None
            if not self._is_untouched:
                self.files.append(file)

    async def _write(self) -> None:
        file = self._file
        if file is not None and self._pieces:
            pieces, self._pieces = self._pieces, []
            self._is_untouched = False
            if not self._is_open and file.failure is None:
                self._is_open = True
                try:
                    await self._open_file()
                except MediaError as error:
                    file.fail(error)
            await file.write(pieces)


def _name(file: Upload, fields: Arguments) -> None:
    """Set the name and the digest of `file`. Fields of the form override those of its part."""
    try:
        if fields.has("directory"):
            file.directory = fields.require("directory")
        if fields.has("filename"):
            file.filename = fields.require("filename")
        if fields.has("sha256"):
            declared = parse_sha256(fields.require("sha256"))
            if file.sha256 not in (None, declared):
                raise Malformed("the digests that the form declares contradict each other")
            file.sha256 = declared
    except MediaError as error:
        file.fail(error)
        return
    if file.name is None:
        file.named(file.directory, file.filename)


def _is_file(part: PartBegins) -> bool:
    """Whether the part is a file: it has a filename, or the type of a file but no field's name.

    :raises UnsupportedContent: if it has several files (`curl -F 'a=@x,y'`; RFC 7578, 4.3).
    """
    media_type, _ = parse_content_type(part.headers.get("content-type"))
    if media_type.startswith("multipart/"):
        raise UnsupportedContent(
            f"the form's part {part.name[:64]!r} contains several files ({media_type[:64]}); "
            "send each file in a part of its own"
        )
    if part.filename is not None:
        return True
    return part.name not in ARGUMENTS and media_type.startswith(_FILE_TYPES)


def _refuse_encoded(part: PartBegins) -> None:
    coding = part.headers.get("content-encoding", "identity").strip()
    if coding.lower() not in ("", "identity"):
        raise UnsupportedContent(
            f"the Content-Encoding {coding[:64]!r} of a form's part is not supported; send the "
            "bytes as they are"
        )
    encoding = part.headers.get("content-transfer-encoding", "").strip()
    if encoding.lower() not in _PLAIN_ENCODINGS:
        raise UnsupportedContent(
            f"the Content-Transfer-Encoding {encoding[:64]!r} of a form's part is not supported; "
            "send the bytes as they are"
        )
