"""How many bytes of an unfinished upload count, where the size of its file does not tell."""

from __future__ import annotations

from dataclasses import dataclass

from twistedmedia.store.texts import Texts


@dataclass(frozen=True, slots=True)
class Mark:
    """What is known of a file in the boot of the machine with the id `boot`.

    `synced` bytes are on stable storage. After a power failure no more than these count: a file can
    come back with its length, and zeros in the place of bytes that had yet to be written.
    `counting` bytes count while what is behind them is provisional, None when it is not.
    """

    boot: str
    synced: int
    counting: int | None = None

    def counted(self, size: int, boot: str) -> int:
        """How many bytes count of a file of `size`, in the boot with the id `boot`."""
        if boot != self.boot:
            return min(self.synced, size)
        return size if self.counting is None else min(self.counting, size)

    def __str__(self) -> str:
        return f"{self.boot} {self.synced} {'-' if self.counting is None else self.counting}"


# Of one that nobody of ours has made.
_BROKEN = Mark("", 0, 0)


class Marks:
    """The marks among the texts of a folder. Everything here blocks and runs in threads."""

    def __init__(self, texts: Texts) -> None:
        self._texts = texts

    def read(self, name: str) -> Mark | None:
        """The mark of that name, if there is one."""
        try:
            boot, synced, counting = self._texts.read(name).split(" ")
            mark = Mark(boot, int(synced), None if counting == "-" else int(counting))
        except FileNotFoundError:
            return None
        except ValueError:
            return _BROKEN
        return _BROKEN if mark.synced < 0 or (mark.counting or 0) < 0 else mark

    def write(self, name: str, mark: Mark) -> None:
        """Put `mark` in the place of the one of that name, in one step."""
        self._texts.replace(name, str(mark))
