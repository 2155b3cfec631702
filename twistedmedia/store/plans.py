"""Plans on a disk, each in a file of its own: what an upload is to become, as JSON."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from dataclasses import asdict
from typing import Any

from twistedmedia.boundaries import Plan
from twistedmedia.errors import MediaError
from twistedmedia.names import media_name
from twistedmedia.store.calls import SystemCalls

_MAX_PLAN_BYTES = 256 << 10  # a plan comes in the headers of one request, which have 32 KiB
_READ = os.O_RDONLY | os.O_NOFOLLOW


class BrokenPlan(ValueError):
    """A file has no plan in it. Without syncs a power failure can leave one empty."""


class Plans:
    """The plans in one folder. Everything here blocks and runs in threads."""

    def __init__(self, calls: SystemCalls, fd: int, *, durable: bool) -> None:
        """`fd` is the folder's. A store that is not `durable` syncs nothing."""
        self._calls = calls
        self._fd = fd
        self._durable = durable

    def read(self, name: str) -> Plan:
        """The plan in the file of that name.

        :raises FileNotFoundError: if there is no such file.
        :raises BrokenPlan: if it has no plan in it.
        """
        content = self._content(name)
        try:
            return _parsed(json.loads(content))
        except (ValueError, KeyError, TypeError, RecursionError, MediaError) as error:
            raise BrokenPlan(str(error)) from error

    def caller(self, name: str) -> str:
        """The caller that the plan in a file names. A file that cannot be read is nobody's."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            return str(json.loads(self._content(name))["caller"])
        return ""

    def write(self, name: str, plan: Plan, new: str) -> None:
        """Write a plan in one step, in the place of the one of that name, if there is one. `new` is
        the name of the file meanwhile; a crash can leave it.
        """
        content = json.dumps(_unparsed(plan)).encode()
        with contextlib.ExitStack() as undoing:
            flags = os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_WRONLY
            fd = self._calls.open(new, flags, 0o600, dir_fd=self._fd)
            undoing.callback(self._remove, new)
            try:
                if self._calls.writev(fd, [content]) < len(content):  # the disk is full
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                if self._durable:
                    self._calls.fsync(fd)
            finally:
                self._calls.close(fd)
            self._calls.rename(new, name, source_dir_fd=self._fd, dir_fd=self._fd)
            undoing.pop_all()
        if self._durable:
            self._calls.fsync(self._fd)

    def _content(self, name: str) -> bytes:
        fd = self._calls.open(name, _READ, dir_fd=self._fd)
        try:
            return self._calls.pread(fd, _MAX_PLAN_BYTES, 0)
        finally:
            self._calls.close(fd)

    def _remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._calls.unlink(name, dir_fd=self._fd)


def _unparsed(plan: Plan) -> dict[str, Any]:
    fields = asdict(plan)
    del fields["name"]
    return {"directory": plan.name.directory, "filename": plan.name.filename, **fields}


def _parsed(fields: dict[str, Any]) -> Plan:
    directory, filename, length, sha256, caller, note = (
        fields[key] for key in ("directory", "filename", "length", "sha256", "caller", "note")
    )
    texts = [directory, filename, caller, note, *([] if sha256 is None else [sha256])]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("what has to be text is none")
    if length is not None and (type(length) is not int or length < 0):
        raise TypeError("the length is none")
    return Plan(media_name(directory, filename), length, sha256, caller, note)
