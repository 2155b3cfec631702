"""The command `twistedmedia`. Only here the client names the global reactor."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Container, Sequence
from contextlib import suppress
from types import FrameType
from typing import Any, TextIO

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.logger import globalLogBeginner

from twistedmedia.client.command.command_line import STREAM, parse
from twistedmedia.client.command.getting import GetOptions, get, get_stream
from twistedmedia.client.command.progress import Display, Lines
from twistedmedia.client.command.putting import PutOptions, put, put_stream
from twistedmedia.client.command.removing import rm
from twistedmedia.client.command.results import FAILED, Tally, failure
from twistedmedia.client.command.running import Run
from twistedmedia.client.command.single import fetch, health, import_, ls
from twistedmedia.client.command.text import printable, time_text
from twistedmedia.client.exceptions import ClientError, LocalFailure, Unreachable
from twistedmedia.client.media import MediaClient
from twistedmedia.client.retries import Retries
from twistedmedia.client.streams import descriptor_name
from twistedmedia.client.upload_records import default_resume_store
from twistedmedia.clock import use_monotonic_time

_SUMMED_UP = {"put", "get", "rm"}
_STDIN, _STDOUT = 0, 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with `arguments`, those of the process unless given. Returns its exit code.

    :raises SystemExit: after wrong usage or `--help`.
    """
    closed = _open_streams()
    options = parse(sys.argv[1:] if arguments is None else arguments, os.environ)
    for stream in (sys.stdout, sys.stderr):  # names that the locale cannot show
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    from twisted.internet import reactor

    use_monotonic_time(reactor)  # before anything is scheduled
    # What Twisted has to say is not for the person who runs this.
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False, discardBuffer=True)
    command = _Command(reactor, options, sys.stdout, sys.stderr, closed)
    command.run()
    return command.exit_code


def _open_streams() -> set[int]:
    """Whoever starts us may have closed some of the first three descriptors: what is opened next
    would take their place, and get what is said. Returns those that were closed.
    """
    closed = set()
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            closed.add(descriptor)
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free, which is this one
            os.set_inheritable(descriptor, True)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
    return closed


class _Command:
    """One run, from the start of the reactor to its end."""

    def __init__(
        self,
        reactor: Any,
        options: argparse.Namespace,
        out: TextIO,
        notes: TextIO,
        closed: Container[int],
    ) -> None:
        """`closed` are those of the first three descriptors that were closed at the start."""
        self.exit_code = FAILED
        self._reactor = reactor
        self._options = options
        self._out = out
        self._closed = closed
        self._display = _display(reactor, options, out, notes)
        self._tally = Tally()
        self._signal = 0
        self._work: Deferred[None]

    def run(self) -> None:
        """Run the reactor until all is done, or a signal comes."""
        self._reactor.callWhenRunning(self._start)
        # Twisted's own handlers would stop the reactor under what is to be closed first.
        self._reactor.run(installSignalHandlers=False)

    def _start(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._signalled)
        self._work = ensureDeferred(self._to_the_end())
        self._work.addBoth(lambda _: self._reactor.stop())

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        if self._signal:  # a second time: whoever waits has waited long enough
            with suppress(Exception):
                self._display.close()
            os._exit(128 + number)
        self._signal = number
        self._reactor.callFromThread(self._interrupt)

    def _interrupt(self) -> None:
        self._work.cancel()

    async def _to_the_end(self) -> None:
        try:
            self.exit_code = await self._run()
        except CancelledError:
            self._say("interrupted; run the same command again to go on")
            self.exit_code = 128 + self._signal
        except BrokenPipeError:
            # Whoever read the output has gone. Python would complain when it empties its buffers.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._out.fileno())
        except OSError as error:  # of the client's none comes here
            self._say(f"the output cannot be written: {error.strerror or error}")
        except Exception as error:  # noqa: BLE001 - a traceback is of no use to whoever runs this
            self._say(f"internal error: {type(error).__name__}: {error}")
        finally:
            with suppress(BrokenPipeError):
                self._display.close()

    async def _run(self) -> int:
        options, begun = self._options, self._reactor.seconds()
        try:
            client = MediaClient(
                self._reactor,
                options.url,
                cacert=options.cacert,
                retries=Retries(times=options.retries),
                on_retry=self._waiting,
            )
        except ClientError as error:  # of the certificates
            self._say(error.reason)
            return FAILED
        run = Run(
            reactor=self._reactor,
            client=client,
            display=self._display,
            tally=self._tally,
            record=default_resume_store(os.environ),
            jobs=options.jobs,
            as_json=options.json,
            quiet=options.quiet,
        )
        try:
            self._check_stream()
            await _subcommand(run, options)
        except Unreachable:
            self._tally.unreachable()
        except ClientError as error:
            run.report(failure(error))
        finally:
            await client.close()
        self._display.close()
        if options.command in _SUMMED_UP and not options.quiet:
            self._display.note(self._tally.summary(self._reactor.seconds() - begun))
        return self._tally.exit_code

    def _check_stream(self) -> None:
        options, descriptor = self._options, None
        if options.command == "put" and options.files == [STREAM]:
            descriptor = _STDIN
        elif options.command == "get" and options.output == STREAM:
            descriptor = _STDOUT
        if descriptor is not None and descriptor in self._closed:
            raise LocalFailure(f"{descriptor_name(descriptor)} is closed")

    def _waiting(self, error: ClientError, wait_s: float) -> None:
        if not self._options.quiet:
            self._display.note(printable(f"{error.reason}; trying again in {time_text(wait_s)}"))

    def _say(self, text: str) -> None:
        with suppress(BrokenPipeError):
            self._display.close()
            self._display.note(printable(f"twistedmedia: {text}"))


def _subcommand(run: Run, options: argparse.Namespace) -> Any:
    match options.command:
        case "put":
            how = PutOptions(options.etag, options.replace, options.strict, options.exclude)
            if options.files == [STREAM]:
                return put_stream(run, _STDIN, options.directory, how)
            return put(run, options.files, options.directory, how)
        case "get":
            wanted = GetOptions(options.exclude, options.max_size, options.max_entries)
            if options.output == STREAM:
                return get_stream(run, options.names[0], _STDOUT, wanted)
            return get(run, options.names, options.output, wanted)
        case "ls":
            return ls(
                run,
                options.directory,
                long=options.long,
                recursive=options.recursive,
                most=options.max_entries,
            )
        case "rm":
            return rm(run, options.names, recursive=options.recursive, most=options.max_entries)
        case "import":
            return import_(run, options.source, options.name)
        case "fetch":
            return fetch(run, options.source)
        case _:
            return health(run)


def _display(reactor: Any, options: argparse.Namespace, out: TextIO, notes: TextIO) -> Display:
    if options.command == "get" and options.output == STREAM:
        out = notes  # nothing but the file goes to stdout
    moves_bytes = options.command in ("put", "get")
    is_dumb = os.environ.get("TERM", "dumb") in ("dumb", "unknown")
    if moves_bytes and not options.quiet and notes.isatty() and not is_dumb:
        from twistedmedia.client.command.progress import Bars  # rich takes a while to import

        return Bars(reactor, out, notes, shares=out.isatty())
    return Lines(out, notes, time.monotonic, quiet=options.quiet)
