"""Inspection: what is found out about the content of an upload while its bytes pass."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from twistedmedia.audio.verdict import AudioCheck
from twistedmedia.limits import ByteBudget


class Inspection:
    """Sees each byte of a content once, in the thread that writes it: counts it within a limit,
    feeds the audio check, and the checksum of tus if there is one.
    """

    def __init__(self, max_bytes: int, *, checks_audio: bool) -> None:
        self.checksum: Any = None  # a hash of `hashlib`, of what is fed from now on
        self._budget = ByteBudget(max_bytes)
        self._checks_audio = checks_audio
        self._check: AudioCheck | None = None
        self._is_complete = True  # all bytes so far were fed to the check

    @property
    def size(self) -> int:
        """The bytes so far."""
        return self._budget.spent

    @property
    def max_bytes(self) -> int:
        """The limit."""
        return self._budget.limit

    def start(self) -> None:
        """Begin with the first byte."""
        self._check = AudioCheck() if self._checks_audio else None

    def resume(self, size: int, state: object | None) -> None:
        """Go on behind `size` bytes, with the `state` that an earlier inspection of these has left.
        Without that the earlier bytes are to be inspected anew before `catch_up` is called.

        :raises TooLarge: if they are more than the limit.
        """
        self.count(size)
        if isinstance(state, _State):
            self._check = state.check
        elif size:
            self._is_complete = False
        else:
            self.start()

    @property
    def state(self) -> object | None:
        """What another inspection needs to go on, None if earlier bytes were not inspected."""
        return _State(self._check) if self._is_complete else None

    @property
    def is_complete(self) -> bool:
        """Whether all bytes so far were inspected."""
        return self._is_complete

    def feed(self, pieces: Iterable[bytes]) -> Iterable[bytes]:
        """Inspect `pieces` one by one, and pass them on.

        :raises TooLarge: if there are more bytes than the limit.
        """
        for piece in pieces:
            self.count(len(piece))
            if self._is_complete:
                self.look_at(piece)
            if self.checksum is not None:
                self.checksum.update(piece)
            yield piece

    def count(self, size: int) -> None:
        """Count bytes without looking at them.

        :raises TooLarge: if there are more than the limit.
        """
        self._budget.spend(size)

    def look_at(self, piece: bytes) -> None:
        """Feed bytes to the audio check without counting them: they are counted already, or they
        are those of a file that is stored already.
        """
        if self._check is not None:
            self._check.feed(piece)

    def catch_up(self) -> None:
        """All bytes so far were given to `look_at`, after `start`."""
        self._is_complete = True

    def problem(self, extension: str) -> str | None:
        """What is wrong with the whole content as the audio that the extension promises, None if
        nothing is, or if it is not checked.
        """
        return None if self._check is None else self._check.problem(extension)


@dataclass(frozen=True, slots=True)
class _State:
    check: AudioCheck | None
