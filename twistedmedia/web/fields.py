"""The small fields of a request: from its query and from an urlencoded form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from twistedmedia.errors import Malformed, MissingArgument
from twistedmedia.names import decode
from twistedmedia.wire.forms import decode_urlencoded

MAX_FIELD_BYTES = 8 << 10  # as sent; a name of 1,024 bytes takes 3,072 with every byte escaped


class Fields:
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
