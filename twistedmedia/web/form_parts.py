"""The parts of a multipart form as they arrive: files become uploads, text parts arguments."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence

from twistedmedia.errors import BadRequest, Malformed, MediaError, UnsupportedContent
from twistedmedia.fairness.loop_queue import PIECE_BYTES
from twistedmedia.http.forms import FormEvent, PartBegins, PartEnds
from twistedmedia.http.header_fields import declared_sha256, parse_content_type, parse_sha256
from twistedmedia.library.upload import MIN_PREPARED_BYTES, Upload
from twistedmedia.names import media_name
from twistedmedia.web.arguments import ARGUMENTS, MAX_FIELD_BYTES, Arguments

_OF_FILES = ("directory", "filename", "sha256")
_OF_ONE_FILE = ("filename", "sha256")
_OF_NAMES = ("directory", "filename")
_ANY = "a"  # a name that can be any file's, and any directory's
# RFC 2045, 6.1: those that leave the content as it is.
_PLAIN_ENCODINGS = frozenset({"", "7bit", "8bit", "binary"})
# Of parts without a filename: what a client sends so is not meant to be lost.
_TYPES_OF_FILES = ("audio/", "video/", "application/octet-stream")


class FormParts:
    """The parts of one form. `files` are the files that were received whole, in their order. A file
    part without filename and content does not count: browsers send it for a field without a file.
    """

    def __init__(
        self,
        begin: Callable[[], Upload],
        hold: Callable[[], Awaitable[None]],
        turn: Callable[[], Awaitable[None]],
        turn_to_drop: Callable[[], Awaitable[None]],
    ) -> None:
        """`begin` begins an upload. `hold` is awaited for each that has content: one more file
        is held open, to the end of the form. `turn` is awaited before each event is decoded, and
        between files that are named or left. `turn_to_drop` is awaited for each `PIECE_BYTES` of
        content that nobody needs.
        """
        self.files: list[Upload] = []
        self._begun: list[Upload] = []  # those that do not count, too
        self._begin_upload = begin
        self._hold = hold
        self._turn = turn
        self._turn_to_drop = turn_to_drop
        self._dropped = 0  # bytes since the last turn to drop them
        self._texts: list[tuple[str, bytearray]] = []  # of arguments only
        self._text = bytearray()  # of the part that is being received, if it is a text
        self._file: Upload | None = None  # of that part, if it is a file
        self._is_untouched = False  # the file has neither a filename nor content
        self._is_held = False  # `_hold` was asked for it, whatever came of that
        self._pieces: list[bytes] = []  # of the file, not written yet

    async def take(self, events: Iterable[FormEvent]) -> None:
        """Take what one batch of the form brings.

        :raises UnsupportedContent: if an argument is encoded, or files are nested in a part.
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
                await self._turn_to_drop()
        await self._write()

    def has(self, name: str) -> bool:
        """Whether the form has that argument."""
        return any(each == name for each, _ in self._texts)

    def arguments(self, fields: Arguments, names: Sequence[str] = ARGUMENTS) -> Arguments:
        """`fields`, with those arguments of `names` that the form has.

        :raises Malformed: when one is given twice, or too long.
        """
        for name, text in self._texts:
            if name in names:
                fields.begin(name)
                fields.give(name, bytes(text))
        return fields

    async def leave(self, error: Exception) -> None:
        """The form ends by `error`. Nothing of its files is left but what is published."""
        files = [*self.files] if self._file is None else [*self.files, self._file]
        left = [file for file in files if not file.is_publishing]
        if left:
            left[0].report_failure(error, len(left) - 1)
        for file in self._begun:
            file.leave()
            await self._turn()

    async def name_files(self) -> None:
        """Give every file its name. Called when all parts were received.

        :raises Malformed: when an argument is given twice, or too long.
        :raises BadRequest: when one that is about one file stands in a form of several.
        """
        fields = self.arguments(Arguments({}, ()), _OF_FILES)
        if len(self.files) > 1:
            for name in filter(fields.has, _OF_ONE_FILE):
                raise BadRequest(
                    f"the field '{name}' is about one file, and the form has {len(self.files)}; "
                    "leave it out, or send a form for each file"
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
        self._is_untouched, self._is_held = not filename, False
        file.directory, file.filename = part.name, filename
        try:
            _refuse_encoded(part)
            file.sha256 = declared_sha256(
                part.headers.get("content-digest"), part.headers.get("repr-digest")
            )
        except MediaError as error:
            file.fail(error)
        self._judge(file)

    def _judge(self, file: Upload) -> None:
        """Fail `file` now if its name is bad whatever text parts are still to come. A part
        `directory` may come for all files of the form, and a part `filename` for its only one.
        """
        fields = self.arguments(Arguments({}, ()), _OF_NAMES)
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
            if not self._is_held and file.failure is None:
                self._is_held = True
                try:
                    await self._hold()
                except MediaError as error:
                    file.fail(error)
            await file.write(pieces)


def _name(file: Upload, fields: Arguments) -> None:
    """Give `file` its name, and its digest. Fields that are given count, else those of its part."""
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
    """Whether the part is a file: it has a filename, or its type says that it is not a text, and it
    is not an argument.

    :raises UnsupportedContent: if it holds several files (`curl -F 'a=@x,y'`; RFC 7578, 4.3).
    """
    media_type, _ = parse_content_type(part.headers.get("content-type"))
    if media_type.startswith("multipart/"):
        raise UnsupportedContent(
            f"the form's part {part.name[:64]!r} holds several files ({media_type[:64]}); "
            "send each file as a part of its own"
        )
    if part.filename is not None:
        return True
    return part.name not in ARGUMENTS and media_type.startswith(_TYPES_OF_FILES)


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
