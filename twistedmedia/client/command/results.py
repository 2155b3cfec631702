"""Results of the command: what happened to each file, as text, as JSON and as an exit code.

Pure.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from twistedmedia.client.command.text import rate_text, size_text, time_text
from twistedmedia.client.exceptions import ClientError, Refused
from twistedmedia.client.outcomes import Stored

STORED_ALREADY = "stored already"
_JSON_KEYS = ("name", "path", "size", "sha256", "url", "status", "code", "reason", "problem")

SUCCEEDED, FAILED, UNREACHABLE = 0, 1, 3  # exit codes; argparse exits with 2 after wrong usage


class Outcome(Enum):
    """What happened to one file."""

    STORED = "stored"
    REPLACED = "replaced"
    IMPORTED = "imported"
    DOWNLOADED = "downloaded"
    DELETED = "deleted"
    SKIPPED = "skipped"  # nothing had to be done
    LEFT_OUT = "left out"  # the file is not media
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Result:
    """The result for one file. `name` is its name at the service, `path` its local path. `problem`
    is what is wrong with it as audio. `status` is the HTTP status of a refusal, `code` the
    service's own code.
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
        """One line for people."""
        text = f"{self.outcome.value:<10} {self.name or self.path or ''}".rstrip()
        if self.size is not None:
            text += f" ({size_text(self.size)})"
        if self.reason is not None:
            text += f": {self.reason}"
        if self.problem is not None:
            text += f" [warning: {self.problem}]"
        if self.code is not None:
            text += f" (code {self.code})"
        return text

    @property
    def json(self) -> str:
        """A JSON object on one line."""
        members: dict[str, Any] = {"outcome": self.outcome.value}
        for key in _JSON_KEYS:
            value = getattr(self, key)
            if value is not None:
                members[key] = value
        return json_line(members)


def json_line(members: Mapping[str, object]) -> str:
    """Write a JSON object on one line of printable ASCII, which any locale can show."""
    return json.dumps(members).replace("\x7f", "\\u007f")  # the one control that JSON may contain


def stored_result(stored: Stored, outcome: Outcome, name: str, path: str | None = None) -> Result:
    """Make the result for a file that is stored: `outcome`, unless it was skipped or replaced."""
    reason = None
    if stored.identical:
        outcome, reason = Outcome.SKIPPED, STORED_ALREADY
    elif stored.replaced:
        outcome = Outcome.REPLACED
    facts = stored.size, stored.sha256, stored.url
    return Result(outcome, name, path, *facts, reason=reason, problem=stored.problem)


def failure(error: ClientError, name: str | None = None, path: str | None = None) -> Result:
    """Make the result for a file that failed with `error`. It has a code only if the service
    itself has answered.
    """
    reason = error.reason
    if name is None and path:  # the line begins with the path already
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
        """Count `result`, for which `moved` bytes were sent or received."""
        self._counts[result.outcome] += 1
        self._bytes += moved

    def set_unreachable(self) -> None:
        """Note that the command gave up because it could not reach the service."""
        self._is_unreachable = True

    @property
    def exit_code(self) -> int:
        """The exit code of the command."""
        if self._is_unreachable:
            return UNREACHABLE
        return FAILED if self._counts[Outcome.FAILED] else SUCCEEDED

    def summary(self, seconds: float) -> str:
        """One line with all counts, and the rate of a run that took `seconds`."""
        parts = [f"{self._counts[each]} {each.value}" for each in Outcome if self._counts[each]]
        text = ", ".join(parts) or "nothing to do"
        if self._bytes:
            rate = rate_text(self._bytes, seconds)
            text += f"; {size_text(self._bytes)} in {time_text(seconds)} ({rate})"
        return text
