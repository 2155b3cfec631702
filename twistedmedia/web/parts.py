"""The parts of a multipart form as they arrive: files become arrivals, text parts arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from twistedmedia.arrival import Arrival
from twistedmedia.errors import BadRequest, Malformed, MediaError, UnsupportedContent
from twistedmedia.web.fields import MAX_FIELD_BYTES, Fields
from twistedmedia.web.importing import ARGUMENTS
from twistedmedia.wire.digests import declared_sha256, sha256_from_hex
from twistedmedia.wire.forms import FormEvent, PartBegins, PartEnds
from twistedmedia.wire.parameters import content_type_of

_OF_FILES = ("directory", "filename", "sha256")
_OF_ONE_FILE = ("filename", "sha256")
# RFC 2045, 6.1: those that leave the content as it is.
_PLAIN_ENCODINGS = frozenset({"", "7bit", "8bit", "binary"})
# Of parts without a filename: what a client sends so is not meant to be lost.
_TYPES_OF_FILES = ("audio/", "video/", "application/octet-stream")


class Parts:
    """The parts of one form. `files` are the files that were received whole, in their order. A file
    part without filename and content does not count: browsers send it for a field without a file.
    """

    def __init__(self, begin: Callable[[], Arrival]) -> None:
        """`begin` gives a new arrival."""
        self.files: list[Arrival] = []
        self._begin_arrival = begin
        self._texts: list[tuple[str, bytearray]] = []  # of arguments only
        self._text = bytearray()  # of the part that is being received, if it is a text
        self._file: Arrival | None = None  # of that part, if it is a file
        self._is_untouched = False  # the file has neither a filename nor content
        self._pieces: list[bytes] = []  # of the file, not written yet

    async def take(self, events: Iterable[FormEvent]) -> None:
        """Take what one batch of the form brings.

        :raises UnsupportedContent: if an argument is encoded, or files are nested in a part.
        """
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
            else:
                self._text += event[: MAX_FIELD_BYTES + 1 - len(self._text)]
        await self._write()

    def has(self, name: str) -> bool:
        """Whether the form has that argument."""
        return any(each == name for each, _ in self._texts)

    def arguments(self, fields: Fields, names: Sequence[str] = ARGUMENTS) -> Fields:
        """`fields`, with those arguments of `names` that the form has.

        :raises Malformed: when one is given twice, or too long.
        """
        for name, text in self._texts:
            if name in names:
                fields.begin(name)
                fields.give(name, bytes(text))
        return fields

    def name_files(self) -> None:
        """Give every file its name. Called when all parts were received.

        :raises Malformed: when an argument is given twice, or too long.
        :raises BadRequest: when one that is about one file stands in a form of several.
        """
        fields = self.arguments(Fields({}, ()), _OF_FILES)
        if len(self.files) > 1:
            for name in filter(fields.has, _OF_ONE_FILE):
                raise BadRequest(
                    f"the field '{name}' is about one file, and the form has {len(self.files)}; "
                    "leave it out, or send a form for each file"
                )
        for file in self.files:
            _name(file, fields)

    def _begin_text(self, part: PartBegins) -> None:
        self._text = bytearray()
        if part.name in ARGUMENTS:
            _refuse_encoded(part)
            self._texts.append((part.name, self._text))

    def _begin_file(self, part: PartBegins, filename: str) -> None:
        file = self._file = self._begin_arrival()
        self._is_untouched = not filename
        # A text part that is still to come may change them.
        file.directory, file.filename = part.name, filename
        try:
            _refuse_encoded(part)
            file.sha256 = declared_sha256(
                part.headers.get("content-digest"), part.headers.get("repr-digest")
            )
        except MediaError as error:
            file.fail(error)
        if self.has("directory") and self.has("filename"):  # what is wrong shows before the content
            _name(file, self.arguments(Fields({}, ()), ("directory", "filename")))

    async def _end(self) -> None:
        await self._write()
        file, self._file = self._file, None
        if file is not None:
            await file.end()
            await file.seal()
            if not self._is_untouched:
                self.files.append(file)

    async def _write(self) -> None:
        if self._file is not None and self._pieces:
            pieces, self._pieces = self._pieces, []
            self._is_untouched = False
            await self._file.write(pieces)


def _name(file: Arrival, fields: Fields) -> None:
    """Give `file` its name, and its digest. Fields that are given count, else those of its part."""
    try:
        if fields.has("directory"):
            file.directory = fields.require("directory")
        if fields.has("filename"):
            file.filename = fields.require("filename")
        if fields.has("sha256"):
            declared = sha256_from_hex(fields.require("sha256"))
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
    media_type, _ = content_type_of(part.headers.get("content-type"))
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
