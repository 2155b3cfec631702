"""What became of each file that the command was told to see to: as text, as JSON, as exit code.

Pure.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from enum import Enum
from typing import Any

from twistedmedia.client.command.text import printable, rate_text, size_text, time_text
from twistedmedia.client.exceptions import ClientError, Refused

_MEMBERS = ("name", "path", "size", "sha256", "url", "status", "code", "reason", "problem")

ALL_WELL, FAILED, UNREACHABLE = 0, 1, 3  # wrong usage is argparse's 2


class Outcome(Enum):
    """What became of one file."""

    STORED = "stored"
    REPLACED = "replaced"
    IMPORTED = "imported"
    DOWNLOADED = "downloaded"
    DELETED = "deleted"
    SKIPPED = "skipped"  # nothing was to be done
    LEFT_OUT = "left out"  # it is nothing to send
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Result:
    """`name` is what it is called at the service, `path` here; `reason` says why, where that is a
    question. `problem` is what is wrong with it as audio. `status` is the HTTP status of a refusal,
    `code` the service's own.
    """

    outcome: Outcome
    name: str | None = None
    path: str | None = None
    size: int | None = None
    sha256: str | None = None
    url: str | None = None
    code: int | None = None
    reason: str | None = None
    problem: str | None = None
    status: int | None = None

    @property
    def line(self) -> str:
        """On one line, harmless for a terminal."""
        text = f"{self.outcome.value:<10} {self.name or self.path or ''}".rstrip()
        if self.size is not None:
            text += f" ({size_text(self.size)})"
        if self.reason is not None:
            text += f": {self.reason}"
        if self.problem is not None:
            text += f" [not well: {self.problem}]"
        if self.code is not None:
            text += f" (code {self.code})"
        return printable(text)

    @property
    def json(self) -> str:
        """A JSON object on one line, in ASCII: what a locale cannot show arrives all the same."""
        members: dict[str, Any] = {"outcome": self.outcome.value}
        for member in _MEMBERS:
            value = getattr(self, member)
            if value is not None:
                members[member] = value
        return json.dumps(members)


def failure(error: ClientError, name: str | None = None, path: str | None = None) -> Result:
    """What to report of a file that `error` has kept from what was meant. There is a code only if
    the service has answered.
    """
    reason = error.reason
    if name is None and path:  # the path stands before the reason already
        reason = reason.removeprefix(f"{path}: ")
    if isinstance(error, Refused) and error.incident is not None:
        reason += f" (incident {error.incident})"
    status, code = (error.status, error.code) if isinstance(error, Refused) else (None, None)
    return Result(Outcome.FAILED, name, path, code=code, reason=reason, status=status)


class Tally:
    """Counts results."""

    def __init__(self) -> None:
        self._counts: Counter[Outcome] = Counter()
        self._bytes = 0
        self._is_unreachable = False

    def count(self, result: Result, moved: int = 0) -> None:
        """One more, for which `moved` bytes were sent or received."""
        self._counts[result.outcome] += 1
        self._bytes += moved

    def unreachable(self) -> None:
        """The service could not be reached, and nothing more was tried."""
        self._is_unreachable = True

    @property
    def exit_code(self) -> int:
        """What the command ends with."""
        if self._is_unreachable:
            return UNREACHABLE
        return FAILED if self._counts[Outcome.FAILED] else ALL_WELL

    def summary(self, seconds: float) -> str:
        """All of it on one line, after so many seconds."""
        parts = [f"{self._counts[each]} {each.value}" for each in Outcome if self._counts[each]]
        text = ", ".join(parts) or "nothing to do"
        if self._bytes:
            rate = rate_text(self._bytes, seconds)
            text += f"; {size_text(self._bytes)} in {time_text(seconds)} ({rate})"
        return text
