"""The client: what can be asked of a media service, over treq."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.web.client import HTTPConnectionPool
from twisted.web.iweb import IAgent

from twistedmedia.client import browsing, downloading, outcomes
from twistedmedia.client.bounds import MOST_ENTRIES, check_function, check_kind, check_number, wrong
from twistedmedia.client.connecting import new_agent, new_pool
from twistedmedia.client.exceptions import ClientError, Refused, Unreachable
from twistedmedia.client.idle_timeouts import ClientTimeouts
from twistedmedia.client.locations import name_of, sendable, service, text_of
from twistedmedia.client.outcomes import Downloaded, Entry, Fetched, Found, Health, Page, Stored
from twistedmedia.client.requester import Requester
from twistedmedia.client.retries import Retries
from twistedmedia.client.upload_records import NoRecords, Record
from twistedmedia.client.uploading import Uploader, check_etag

T = TypeVar("T")


class MediaClient:
    """A media service, as a program sees it.

    Every method but `walk` returns a Deferred, which can be awaited in coroutines, and cancelled:
    connection and file are closed then. Failures are `ClientError`s: `Refused`, with the service's
    code and reason; `Unreachable`, after all retries; `Garbled`, `Damaged`, `LocalFailure`, which
    arguments that make no sense cause as well.

    Names are checked before anything is asked; files are read, written and hashed in threads of
    the reactor's pool, and are never in memory as a whole. A function that is told of progress runs
    within the work: it may not cancel it, but have that done in the reactor's next turn.
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
        waiting: Callable[[ClientError, float], None] | None = None,
    ) -> None:
        """`url` is where the service is mounted: `http://127.0.0.1:8000`. `agent` makes the
        requests instead of one of our own. `cacert` is a PEM file of the certificates to trust,
        instead of the system's. `waiting` is told before each retry of the failure and the seconds
        until then.

        :raises NotAService: when the URL is not one of a service; it is a ValueError as well.
        :raises LocalFailure: when `cacert` cannot be read, or an argument is of a wrong type.
        """
        timeouts = ClientTimeouts() if timeouts is None else timeouts
        retries = Retries() if retries is None else retries
        waiting = (lambda error, wait_s: None) if waiting is None else waiting
        check_kind(timeouts, ClientTimeouts, "timeouts")
        check_kind(retries, Retries, "retries")
        check_function(waiting, "waiting")
        if not IReactorTime.providedBy(reactor):
            raise wrong(reactor, "reactor", "reactor of Twisted")
        if agent is not None and not IAgent.providedBy(agent):
            raise wrong(agent, "agent", "provider of IAgent")
        self._service = service(url)
        self._pool: HTTPConnectionPool | None = None
        if agent is None:
            self._pool = new_pool(reactor)
            agent = new_agent(reactor, self._pool, timeouts.connect_s, cacert)
        self._asking = Requester(
            reactor,
            self._service.url,
            agent,
            timeouts,
            retries,
            waiting,
        )
        self._uploading = Uploader(self._asking, self._service)

    def upload(
        self,
        path: str | Path,
        directory: str,
        filename: str | None = None,
        *,
        progress: Callable[[int, int], None] | None = None,
        record: Record | None = None,
        ask_first: bool = False,
    ) -> Deferred[Stored]:
        """Store the file at `path` as `directory`/`filename`; without a filename, under its own.

        What the service has with the same content is not stored again: `identical`. Larger files go
        by a resumable upload, whose URL `record` remembers for another run; small ones, and all of
        them when the service has none of those, in one request. `progress` is called with how many
        bytes the service was sent, and how many there are; the first falls back when some were
        lost. With `ask_first` no content is sent in a format that the service may not take before
        it agreed to take it. Fires with a `Stored`.
        """
        told = progress or (lambda sent, size: None)
        return _begun(
            self._uploading.upload(
                path, directory, filename, told, record or NoRecords(), ask_first=ask_first
            ),
            progress=told,
        )

    def upload_stream(
        self,
        descriptor: int,
        directory: str,
        filename: str,
        *,
        etag: str | None = None,
        progress: Callable[[int, int | None], None] | None = None,
    ) -> Deferred[Stored]:
        """Store all that can be read from an open descriptor: of a pipe, or of standard input.

        It is sent once: after a break nothing is stored, and nothing is tried again. With `etag` it
        takes the place of that file, as in `replace`. Fires with a `Stored`.
        """
        told = progress or (lambda sent, size: None)
        return _begun(
            self._uploading.upload_stream(descriptor, directory, filename, etag, told),
            progress=told,
        )

    def replace(
        self,
        path: str | Path,
        directory: str,
        filename: str,
        etag: str,
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> Deferred[Stored]:
        """Put the file at `path` in the place of the one with this entity tag (`*` for whichever is
        there), in one step. Fires with a `Stored`; fails with a `Refused` of status 412 when it is
        another one by now.
        """
        told = progress or (lambda sent, size: None)
        return _begun(self._uploading.replace(path, directory, filename, etag, told), progress=told)

    def download(
        self,
        directory: str,
        filename: str,
        path: str | Path,
        *,
        progress: Callable[[int, int | None], None] | None = None,
        max_size: int | None = None,
        within: str | Path | None = None,
    ) -> Deferred[Downloaded]:
        """Bring a file to `path`, in the place of what is there.

        It arrives in a hidden file beside it (`.<name>.part`), is resumed when it breaks off, also
        by another run, and gets its name when its size and its digest are right and it is on stable
        storage. `progress` as for an upload. Fires with a `Downloaded`.

        Fails with a `LocalFailure` before any content is received if the file has more than
        `max_size` bytes or does not fit into the free space. If the service does not say how large
        the file is, at most `max_size` bytes are received, 2 GiB unless given. With `within`, a
        folder that `path` is in, no link below that folder is followed, and missing folders are
        made.
        """
        told = progress or (lambda received, size: None)
        return _begun(
            self._download(directory, filename, path, told, max_size, within), progress=told
        )

    def download_stream(
        self,
        directory: str,
        filename: str,
        descriptor: int,
        *,
        progress: Callable[[int, int | None], None] | None = None,
        max_size: int | None = None,
    ) -> Deferred[Downloaded]:
        """Write a file to an open descriptor: of a pipe, or of standard output.

        After a break it goes on where it was. Fires with a `Downloaded`; fails with a `Damaged`
        when what was written turns out not to be the file that the service has. `max_size` as for
        `download`.
        """
        told = progress or (lambda received, size: None)
        return _begun(
            self._download_stream(directory, filename, descriptor, told, max_size), progress=told
        )

    def find(
        self, directory: str, filename: str, *, digest: bool = False
    ) -> Deferred[Found | None]:
        """Ask about a file. With `digest` the service computes one where it knows none, which takes
        as long as reading the file. Fires with None when there is no such file.
        """
        return _begun(self._find(directory, filename, digest))

    def holds(self, path: str | Path, directory: str, filename: str) -> Deferred[bool | None]:
        """Whether the service has the content of the file at `path` under this name. Fires with
        None when there is no such file there, and with False when it has another content. None
        comes of a 404 of any server: `find` tells one of the service from others.
        """
        return _begun(self._uploading.holds(path, directory, filename))

    def list(
        self,
        directory: str = "",
        *,
        recursive: bool = False,
        left_out: Callable[[str, int], None] | None = None,
    ) -> Deferred[list[Entry]]:
        """List a directory, all pages of it; `recursive` gives the files of all folders below.

        The service does not list what is not media, such as hidden files and links. `left_out` is
        called with each directory that contains some, and with how many there are.

        Fires with a list of `Entry`; fails with a `Refused` of status 404 when there is no such
        directory, and with a `LocalFailure` when there are more than 1,000,000 entries: `walk`
        takes them one by one. The service's root is always there.
        """
        told = left_out or (lambda directory, count: None)
        return _begun(
            browsing.entries(self._asking, self._service, directory, recursive, told),
            left_out=told,
        )

    def walk(
        self,
        directory: str = "",
        *,
        recursive: bool = False,
        left_out: Callable[[str, int], None] | None = None,
        most: int = MOST_ENTRIES,
    ) -> AsyncIterator[Entry]:
        """The entries that `list` would fire with, one by one: for `async for`. A page is asked for
        when the one before it was taken, so memory does not grow with the number of entries.

        Fails as `list` does; with a `LocalFailure` when there are more than `most` entries.
        """
        told = left_out or (lambda directory, count: None)
        check_function(told, "left_out")
        check_number(most, "most")
        return browsing.walk(
            self._asking, self._service, directory, recursive=recursive, left_out=told, most=most
        )

    def page(self, directory: str = "", after: str | None = None) -> Deferred[Page]:
        """List a part of a directory, from behind the name `after`: what a directory of any size
        is gone through with. Fires with a `Page`; fails as `list` does.
        """
        return _begun(browsing.page_of(self._asking, self._service, directory, after))

    def delete(self, directory: str, filename: str, *, etag: str | None = None) -> Deferred[bool]:
        """Delete a file; with `etag` only if it is still that one (else `Refused`, status 412).

        Fires with whether there was such a file. When an answer was lost and the file is gone at
        the next attempt, there was one.
        """
        return _begun(self._delete(directory, filename, etag))

    def import_url(
        self, url: str, directory: str, filename: str = "", *, sha256: str | None = None
    ) -> Deferred[Stored]:
        """Have the service fetch `url` and store what comes; without a filename, under the URL's.

        With `sha256`, in hex, it is verified, and an answer that was lost can be told from a name
        that somebody else has taken. Fires with a `Stored`.
        """
        return _begun(self._import(url, directory, filename, sha256))

    def fetch(self, url: str) -> Deferred[Fetched]:
        """Have the service fetch `url` and say what that has cost. Fires with a `Fetched`."""
        return _begun(self._fetch(url))

    def health(self) -> Deferred[Health]:
        """Ask how the service is, once: a service that does not answer at once is not well. Fires
        with a `Health`.
        """
        return _begun(self._health())

    def close(self) -> Deferred[None]:
        """Close the connections that are kept. Fires with None when they are closed."""
        return _begun(self._close())

    async def _download(
        self,
        directory: str,
        filename: str,
        path: str | Path,
        progress: downloading.Progress,
        max_size: int | None,
        within: str | Path | None,
    ) -> Downloaded:
        name = name_of(directory, filename)
        _check_size(max_size)
        return await downloading.download(
            self._asking, self._service, name, path, progress, max_size, within
        )

    async def _download_stream(
        self,
        directory: str,
        filename: str,
        descriptor: int,
        progress: downloading.Progress,
        max_size: int | None,
    ) -> Downloaded:
        name = name_of(directory, filename)
        _check_size(max_size)
        return await downloading.download_stream(
            self._asking, self._service, name, descriptor, progress, max_size
        )

    async def _find(self, directory: str, filename: str, digest: bool) -> Found | None:
        name = name_of(directory, filename)
        return await self._asking.persist(lambda: self._uploading.find(name, digest=digest))

    async def _delete(self, directory: str, filename: str, etag: str | None) -> bool:
        name = name_of(directory, filename)
        url = self._service.media(name)
        if etag is not None:
            check_etag(etag)
        headers = {} if etag is None else {"If-Match": etag}
        may_have_deleted = False

        async def attempt() -> bool:
            nonlocal may_have_deleted
            try:
                answer = await self._asking.ask("DELETE", url, headers)
            except Unreachable as error:
                may_have_deleted = may_have_deleted or error.was_sent
                raise
            except Refused as error:
                if error.status != 412 or not may_have_deleted:
                    raise
                if await self._uploading.find(name) is not None:
                    raise
                return True
            return outcomes.deleted(answer.payload) or may_have_deleted

        return await self._asking.persist(attempt)

    async def _import(self, url: str, directory: str, filename: str, sha256: str | None) -> Stored:
        fields = {"url": sendable(url, "URL"), "directory": directory, "filename": filename}
        name_of(directory, text_of(filename, "filename") or "any")  # the URL's own comes later
        if sha256 is not None:
            fields["sha256"] = sendable(sha256, "digest")
        answer = await self._asking.persist(
            lambda: self._asking.ask(
                "POST",
                self._service.imports,
                {"Content-Type": "application/x-www-form-urlencoded"},
                urlencode(fields).encode(),
                hoped_for=(200, 201),
                answer_s=self._asking.timeouts.import_s,
            )
        )
        found = outcomes.stored(answer.payload, "")
        name = name_of(found.directory, found.filename)
        return outcomes.stored(answer.payload, self._service.media(name))

    async def _fetch(self, url: str) -> Fetched:
        asked = self._service.fetch(sendable(url, "URL"))
        headers = {"Accept": "application/json"}
        answer = await self._asking.persist(lambda: self._asking.ask("GET", asked, headers))
        return outcomes.fetched(answer.payload)

    async def _health(self) -> Health:
        url = self._service.health
        answer = await self._asking.ask("GET", url, answer_s=self._asking.timeouts.health_s)
        return outcomes.health(answer.payload)

    async def _close(self) -> None:
        if self._pool is not None:
            # We may be called while the last answer is being read: its connection is kept, and so
            # can be closed, when it has been.
            await deferLater(self._asking.reactor, 0)
            await self._pool.closeCachedConnections()


def _check_size(max_size: object) -> None:
    if max_size is not None:
        check_number(max_size, "max_size")


def _begun(work: Coroutine[Any, Any, T], **functions: object) -> Deferred[T]:
    """Do `work`, which calls `functions`. Fires with what it returns."""
    return ensureDeferred(_checked(work, functions))


async def _checked(work: Coroutine[Any, Any, T], functions: Mapping[str, object]) -> T:
    try:
        for name, function in functions.items():
            check_function(function, name)
        return await work
    finally:
        work.close()
