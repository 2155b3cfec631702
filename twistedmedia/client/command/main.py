"""The command `twistedmedia`. No other module of the client uses the global reactor."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Container, Coroutine, Sequence
from contextlib import suppress
from types import FrameType
from typing import Any, TextIO

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.logger import globalLogBeginner

from twistedmedia.client.command.command_line import STREAM, parse
from twistedmedia.client.command.display import Display, Lines
from twistedmedia.client.command.get import GetOptions, get, get_stream
from twistedmedia.client.command.put import PutOptions, put, put_stream
from twistedmedia.client.command.remote import fetch, health, import_, ls
from twistedmedia.client.command.results import FAILED, Tally, failure
from twistedmedia.client.command.rm import rm
from twistedmedia.client.command.run import Run
from twistedmedia.client.command.text import time_text
from twistedmedia.client.exceptions import ClientError, LocalFailure, Unreachable
from twistedmedia.client.media import MediaClient
from twistedmedia.client.retries import Retries
from twistedmedia.client.streams import descriptor_name
from twistedmedia.client.upload_records import default_resume_store
from twistedmedia.clock import use_monotonic_time

_WITH_SUMMARY = {"put", "get", "rm"}
_STDIN, _STDOUT = 0, 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with `arguments`, by default those of the process. Returns its exit code.

    :raises SystemExit: after wrong usage or `--help`.
    """
    closed = _open_standard_streams()
    options = parse(sys.argv[1:] if arguments is None else arguments, os.environ)
    for stream in (sys.stdout, sys.stderr):  # for names that the locale cannot show
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    from twisted.internet import reactor

    use_monotonic_time(reactor)  # before anything is scheduled
    # Twisted's log messages are not for users of the command.
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False, discardBuffer=True)
    command = _Command(reactor, options, sys.stdout, sys.stderr, closed)
    command.run()
    return command.exit_code


def _open_standard_streams() -> set[int]:
    """Open /dev/null for those of the first three descriptors that are closed, and return these.
    Otherwise the next file or socket would get such a descriptor, and the output with it.
    """
    closed = set()
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            closed.add(descriptor)
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free descriptor, which is this one
            os.set_inheritable(descriptor, True)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
    return closed


class _Command:
    """One run of the command, from the start of the reactor to its end."""

    def __init__(
        self,
        reactor: Any,
        options: argparse.Namespace,
        out: TextIO,
        err: TextIO,
        closed: Container[int],
    ) -> None:
        """`closed` are those of the first three descriptors that were closed at the start."""
        self.exit_code = FAILED
        self._reactor = reactor
        self._options = options
        self._out = out
        self._closed = closed
        self._display = _display(reactor, options, out, err)
        self._tally = Tally()
        self._signal = 0
        self._work: Deferred[None]

    def run(self) -> None:
        """Run the reactor until the work is done, or a signal arrives."""
        self._reactor.callWhenRunning(self._start)
        # Twisted's signal handlers would stop the reactor before connections and files are closed.
        self._reactor.run(installSignalHandlers=False)

    def _start(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        self._work = ensureDeferred(self._run())
        self._work.addBoth(lambda _: self._reactor.stop())

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._signal:  # the second signal: do not wait for anything
            with suppress(Exception):
                self._display.close()
            os._exit(128 + number)
        self._signal = number
        self._reactor.callFromThread(lambda: self._work.cancel())

    async def _run(self) -> None:
        try:
            self.exit_code = await self._run_subcommand()
        except CancelledError:
            self._show_error("interrupted; run the same command again to continue")
            self.exit_code = 128 + self._signal
        except BrokenPipeError:
            # The reader of the output has gone. Python would complain when it flushes its buffers.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._out.fileno())
        except OSError as error:  # from writing output: those of the client are ClientErrors
            self._show_error(f"the output cannot be written: {error.strerror or error}")
        except Exception as error:  # noqa: BLE001 - users have no use for a traceback
            self._show_error(f"internal error: {type(error).__name__}: {error}")
        finally:
            with suppress(BrokenPipeError):
                self._display.close()

    async def _run_subcommand(self) -> int:
        options, started_at = self._options, self._reactor.seconds()
        try:
            client = MediaClient(
                self._reactor,
                options.url,
                cacert=options.cacert,
                retries=Retries(times=options.retries),
                on_retry=self._on_retry,
            )
        except ClientError as error:  # the certificates cannot be used
            self._show_error(error.reason)
            return FAILED
        run = Run(
            reactor=self._reactor,
            client=client,
            display=self._display,
            tally=self._tally,
            resume_store=default_resume_store(os.environ),
            jobs=options.jobs,
            as_json=options.json,
            quiet=options.quiet,
        )
        try:
            self._check_stream()
            await _subcommand(run, options)
        except Unreachable:
            self._tally.set_unreachable()
        except ClientError as error:
            run.report(failure(error))
        finally:
            await client.close()
        self._display.close()
        if options.command in _WITH_SUMMARY and not options.quiet:
            self._display.note(self._tally.summary(self._reactor.seconds() - started_at))
        return self._tally.exit_code

    def _check_stream(self) -> None:
        options, descriptor = self._options, None
        if options.command == "put" and options.files == [STREAM]:
            descriptor = _STDIN
        elif options.command == "get" and options.output == STREAM:
            descriptor = _STDOUT
        if descriptor is not None and descriptor in self._closed:
            raise LocalFailure(f"{descriptor_name(descriptor)} is closed")

    def _on_retry(self, error: ClientError, wait_s: float) -> None:
        if not self._options.quiet:
            self._display.note(f"{error.reason}; trying again in {time_text(wait_s)}")

    def _show_error(self, text: str) -> None:
        with suppress(BrokenPipeError):
            self._display.close()
            self._display.note(f"twistedmedia: {text}")


def _subcommand(run: Run, options: argparse.Namespace) -> Coroutine[Any, Any, None]:
    match options.command:
        case "put":
            how = PutOptions(options.etag, options.replace, options.strict, options.exclude)
            if options.files == [STREAM]:
                return put_stream(run, _STDIN, options.directory, how)
            return put(run, options.files, options.directory, how)
        case "get":
            get_options = GetOptions(options.exclude, options.max_size, options.max_entries)
            if options.output == STREAM:
                return get_stream(run, options.names[0], _STDOUT, get_options)
            return get(run, options.names, options.output, get_options)
        case "ls":
            return ls(
                run,
                options.directory,
                long=options.long,
                recursive=options.recursive,
                max_entries=options.max_entries,
            )
        case "rm":
            return rm(
                run, options.names, recursive=options.recursive, max_entries=options.max_entries
            )
        case "import":
            return import_(run, options.source, options.name)
        case "fetch":
            return fetch(run, options.source)
        case _:
            return health(run)


def _display(reactor: Any, options: argparse.Namespace, out: TextIO, err: TextIO) -> Display:
    if options.command == "get" and options.output == STREAM:
        out = err  # stdout is for the file alone
    moves_bytes = options.command in ("put", "get")
    is_dumb = os.environ.get("TERM", "dumb") in ("dumb", "unknown")
    if moves_bytes and not options.quiet and err.isatty() and not is_dumb:
        from twistedmedia.client.command.bars import Bars  # rich takes long to import

        return Bars(reactor, out, err, is_same_terminal=out.isatty())
    return Lines(out, err, time.monotonic, quiet=options.quiet)
