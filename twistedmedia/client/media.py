"""`MediaClient`: the operations of a media service, over treq."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from urllib.parse import urlencode

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.web.client import HTTPConnectionPool
from twisted.web.iweb import IAgent

from twistedmedia.client import downloader, listings, outcomes
from twistedmedia.client.client_agent import new_agent, new_pool
from twistedmedia.client.client_limits import (
    MAX_ENTRIES,
    check_function,
    check_kind,
    check_number,
    wrong_type,
)
from twistedmedia.client.exceptions import ClientError, Refused, Unreachable
from twistedmedia.client.idle_timeouts import ClientTimeouts
from twistedmedia.client.locations import check_text, check_utf8, name_of, service
from twistedmedia.client.outcomes import Downloaded, Entry, Fetched, Found, Health, Page, Stored
from twistedmedia.client.requester import Requester
from twistedmedia.client.retries import Retries
from twistedmedia.client.upload_records import NoResumeStore, ResumeStore
from twistedmedia.client.uploader import Uploader, check_etag
from twistedmedia.errors import PreconditionFailed

P = ParamSpec("P")
T = TypeVar("T")


def _deferred(method: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Deferred[T]]:
    """Make a coroutine method return a Deferred."""

    @wraps(method)
    def start(*args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        return ensureDeferred(method(*args, **kwargs))

    return start


def _callback(function: Any, name: str) -> Any:
    """The callback that was passed as `name`, or one that does nothing.

    :raises LocalFailure: when it cannot be called.
    """
    check_function(function or _callback, name)
    return function or (lambda *_: None)


class MediaClient:
    """A client of one media service.

    Every method but `walk` returns a Deferred. Cancelling it closes its connection and its file.
    Failures are `ClientError`s; invalid arguments fail with a `LocalFailure` before any request.
    Files are read, written and hashed in pieces, in threads of the reactor's pool. A `progress`
    function runs within the operation: to cancel it, use `reactor.callLater(0, ...)`.
    """

    def __init__(
        self,
        reactor: Any,
        url: str,
        *,
        agent: IAgent | None = None,
        cacert: str | Path | None = None,
        retries: Retries | None = None,
        timeouts: ClientTimeouts | None = None,
        on_retry: Callable[[ClientError, float], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`url` is where the service is mounted, such as `http://127.0.0.1:8000`. `agent` replaces
        the client's own agent. `cacert` is a PEM file of the certificates to trust instead of the
        system's. `on_retry` is called before each retry with the failure and the seconds until the
        retry. `clock` returns the time since 1970 in seconds, for a Retry-After that is a date.

        :raises NotAService: when `url` is not the URL of a service; it is a ValueError as well.
        :raises LocalFailure: when `cacert` cannot be read, or an argument has a wrong type.
        """
        timeouts = ClientTimeouts() if timeouts is None else timeouts
        retries = Retries() if retries is None else retries
        on_retry = (lambda error, wait_s: None) if on_retry is None else on_retry
        check_kind(timeouts, ClientTimeouts, "timeouts")
        check_kind(retries, Retries, "retries")
        check_function(on_retry, "on_retry")
        check_function(clock, "clock")
        if not IReactorTime.providedBy(reactor):
            raise wrong_type(reactor, "reactor", "reactor of Twisted")
        if agent is not None and not IAgent.providedBy(agent):
            raise wrong_type(agent, "agent", "provider of IAgent")
        self._service = service(url)
        self._pool: HTTPConnectionPool | None = None
        if agent is None:
            self._pool = new_pool(reactor)
            agent = new_agent(reactor, self._pool, timeouts.connect_s, cacert)
        self._requester = Requester(
            reactor,
            self._service.url,
            agent,
            timeouts=timeouts,
            retries=retries,
            on_retry=on_retry,
            clock=clock,
        )
        self._uploader = Uploader(self._requester, self._service)

    @_deferred
    async def upload(
        self,
        path: str | Path,
        directory: str,
        filename: str | None = None,
        *,
        progress: Callable[[int, int], None] | None = None,
        resume_store: ResumeStore | None = None,
        ask_first: bool = False,
    ) -> Stored:
        """Store the file at `path` as `directory`/`filename`. The default filename is that of
        `path`. If the service has the same content already, the result is `identical`.

        Files over 4 MiB use a resumable upload, whose URL `resume_store` keeps for a later run.
        Smaller files, and all files if the service has no resumable uploads, are sent in one
        request. `progress` is called with the number of bytes sent and the size; the first
        decreases when sent bytes were lost. With `ask_first`, no content is sent in a format that
        the service refuses. Fires with a `Stored`.
        """
        return await self._uploader.upload(
            path,
            directory,
            filename,
            progress=_callback(progress, "progress"),
            resume_store=resume_store or NoResumeStore(),
            ask_first=ask_first,
        )

    @_deferred
    async def upload_stream(
        self,
        descriptor: int,
        directory: str,
        filename: str,
        *,
        etag: str | None = None,
        progress: Callable[[int, int | None], None] | None = None,
    ) -> Stored:
        """Store everything that can be read from an open descriptor, such as a pipe.

        It is sent once: if the connection breaks, nothing is stored and nothing is retried. With
        `etag` it replaces that file, as `replace` does. Fires with a `Stored`.
        """
        return await self._uploader.upload_stream(
            descriptor, directory, filename, etag, _callback(progress, "progress")
        )

    @_deferred
    async def replace(
        self,
        path: str | Path,
        directory: str,
        filename: str,
        etag: str,
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> Stored:
        """Replace the file that has the entity tag `etag`, or any file for `*`, with the one at
        `path`, atomically. Fires with a `Stored`. Fails with a `Refused` of status 412 when the
        entity tag is another one.
        """
        return await self._uploader.replace(
            path, directory, filename, etag, _callback(progress, "progress")
        )

    @_deferred
    async def download(
        self,
        directory: str,
        filename: str,
        path: str | Path,
        *,
        progress: Callable[[int, int | None], None] | None = None,
        max_size: int | None = None,
        within: str | Path | None = None,
    ) -> Downloaded:
        """Download a file to `path`, and replace what is there.

        The content goes to a hidden file beside it (`.<name>.part`). A broken download is resumed,
        also by a later run. The file gets its name when its size and digest are verified and it is
        on stable storage. `progress` is called with the number of bytes received and the size.
        Fires with a `Downloaded`.

        Fails with a `LocalFailure` before any content is received if the file has more than
        `max_size` bytes or does not fit into the free space. If the service does not send the size,
        at most `max_size` bytes are received, 2 GiB by default. With `within`, a folder that
        contains `path`, no link below that folder is followed, and missing folders are created.
        """
        return await downloader.download(
            self._requester,
            self._service,
            directory,
            filename,
            path,
            progress=_callback(progress, "progress"),
            max_size=max_size,
            within=within,
        )

    @_deferred
    async def download_stream(
        self,
        directory: str,
        filename: str,
        descriptor: int,
        *,
        progress: Callable[[int, int | None], None] | None = None,
        max_size: int | None = None,
    ) -> Downloaded:
        """Write a file to an open descriptor, such as a pipe. `max_size` is as for `download`.

        It is resumed if the connection breaks. Fires with a `Downloaded`. Fails with an
        `IntegrityError` when the written bytes turn out to differ from the service's file.
        """
        return await downloader.download_stream(
            self._requester,
            self._service,
            directory,
            filename,
            descriptor,
            progress=_callback(progress, "progress"),
            max_size=max_size,
        )

    @_deferred
    async def find(self, directory: str, filename: str, *, digest: bool = False) -> Found | None:
        """Fires with the properties of a file, or None when there is no such file. With `digest`
        the service computes a missing digest, which takes as long as reading the file.
        """
        name = name_of(directory, filename)
        return await self._requester.retry(lambda: self._uploader.find(name, digest=digest))

    @_deferred
    async def matches(self, path: str | Path, directory: str, filename: str) -> bool | None:
        """Fires with whether the file at the service has the same content as the one at `path`, or
        with None when there is no file at the service. None results from a 404 of any server;
        `find` distinguishes the service from others.
        """
        return await self._uploader.matches(path, directory, filename)

    @_deferred
    async def list(
        self,
        directory: str = "",
        *,
        recursive: bool = False,
        on_left_out: Callable[[str, int], None] | None = None,
    ) -> list[Entry]:
        """List all pages of a directory. With `recursive`, list the files in it and below it.

        The service leaves out everything that is not media, such as hidden files and links.
        `on_left_out` is called with each directory in which entries are left out, and their number.

        Fires with a list of `Entry`. Fails with a `Refused` of status 404 when there is no such
        directory, and with a `LocalFailure` when there are more than 1,000,000 entries; `walk` has
        no such limit. The service's root always exists.
        """
        entries = listings.walk(
            self._requester,
            self._service,
            directory,
            recursive=recursive,
            on_left_out=_callback(on_left_out, "on_left_out"),
            max_entries=listings.MAX_LIST_ENTRIES,
            advice=listings.USE_WALK,
        )
        return [entry async for entry in entries]

    def walk(
        self,
        directory: str = "",
        *,
        recursive: bool = False,
        on_left_out: Callable[[str, int], None] | None = None,
        max_entries: int = MAX_ENTRIES,
    ) -> AsyncIterator[Entry]:
        """Iterate over the entries that `list` fires with, for `async for`. Each page is requested
        after the one before was consumed, so memory does not grow with the number of entries.

        Fails as `list` does, and with a `LocalFailure` after more than `max_entries` entries.
        """
        check_number(max_entries, "max_entries")
        return listings.walk(
            self._requester,
            self._service,
            directory,
            recursive=recursive,
            on_left_out=_callback(on_left_out, "on_left_out"),
            max_entries=max_entries,
        )

    @_deferred
    async def page(self, directory: str = "", after: str | None = None) -> Page:
        """List the page of a directory that begins after the name `after`. Fires with a `Page`;
        fails as `list` does.
        """
        return await listings.get_page(self._requester, self._service, directory, after)

    @_deferred
    async def delete(self, directory: str, filename: str, *, etag: str | None = None) -> bool:
        """Delete a file; with `etag`, only if it has that entity tag (else `Refused`, status 412).

        Fires with whether there was such a file. That is also True when a response was lost and the
        file is gone at the next attempt.
        """
        name = name_of(directory, filename)
        url = self._service.media(name)
        if etag is not None:
            check_etag(etag)
        headers = {} if etag is None else {"If-Match": etag}
        may_have_deleted = False

        async def attempt() -> bool:
            nonlocal may_have_deleted
            try:
                response = await self._requester.request("DELETE", url, headers)
            except Unreachable as error:
                may_have_deleted = may_have_deleted or error.was_sent
                raise
            except Refused as error:
                if error.status != PreconditionFailed.status or not may_have_deleted:
                    raise
                if await self._uploader.find(name) is not None:
                    raise
                return True
            return outcomes.deleted(response.payload) or may_have_deleted

        return await self._requester.retry(attempt)

    @_deferred
    async def import_url(
        self, url: str, directory: str, filename: str = "", *, sha256: str | None = None
    ) -> Stored:
        """Let the service fetch `url` and store it. The default filename is that of the URL.

        `sha256`, in hex, is verified. With it, a retry after a lost response succeeds; without it,
        the retry can fail with 501. Fires with a `Stored`.
        """
        fields = {"url": check_utf8(url, "URL"), "directory": directory, "filename": filename}
        name_of(directory, check_text(filename, "filename") or "any")  # the URL's own comes later
        if sha256 is not None:
            fields["sha256"] = check_utf8(sha256, "digest")
        response = await self._requester.retry(
            lambda: self._requester.request(
                "POST",
                self._service.imports,
                {"Content-Type": "application/x-www-form-urlencoded"},
                urlencode(fields).encode(),
                expected=(200, 201),
                response_s=self._requester.timeouts.import_s,
            )
        )
        result = outcomes.stored(response.payload, "")
        name = name_of(result.directory, result.filename)
        return outcomes.stored(response.payload, self._service.media(name))

    @_deferred
    async def fetch(self, url: str) -> Fetched:
        """Let the service fetch `url` and measure the time. Fires with a `Fetched`."""
        target = self._service.fetch(check_utf8(url, "URL"))
        headers = {"Accept": "application/json"}
        response = await self._requester.retry(
            lambda: self._requester.request("GET", target, headers)
        )
        return outcomes.fetched(response.payload)

    @_deferred
    async def health(self) -> Health:
        """Request the service's health, without retries, since a healthy service responds at once.
        Fires with a `Health`.
        """
        response = await self._requester.request(
            "GET", self._service.health, response_s=self._requester.timeouts.health_s
        )
        return outcomes.health(response.payload)

    @_deferred
    async def close(self) -> None:
        """Close the idle connections. Fires with None when they are closed."""
        if self._pool is not None:
            # While the last response is being read, its connection is not idle yet.
            await deferLater(self._requester.reactor, 0)
            await self._pool.closeCachedConnections()
