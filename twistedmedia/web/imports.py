"""Imports: what a URL gives is stored as if it had been sent."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.logger import Logger
from twisted.web.server import Request

from twistedmedia.errors import AddressRefused, Malformed, MediaError, MissingArgument
from twistedmedia.fetch.content import gave_way
from twistedmedia.fetch.download import Download
from twistedmedia.fetch.fetcher import Fetcher, FetchLimits
from twistedmedia.fetch.timings import Timings
from twistedmedia.fetch.urls import Url
from twistedmedia.http.body import Body
from twistedmedia.http.header_fields import sha256_from_hex
from twistedmedia.library.library import Library, UploadSlot
from twistedmedia.library.upload import Upload
from twistedmedia.limits import ByteBudget
from twistedmedia.names import media_name
from twistedmedia.web.arguments import Arguments, caller_of, client_address
from twistedmedia.web.fetches import log_refused, url_to_fetch

ARGUMENTS = ("url", "directory", "filename", "sha256")
MAX_JSON_BYTES = 32 << 10


class ImportRoutes:
    """Stores what URLs give."""

    _log = Logger()

    def __init__(self, library: Library, fetcher: Fetcher, terms: FetchLimits) -> None:
        self._library = library
        self._fetcher = fetcher
        self._terms = terms

    async def store(
        self, request: Request, fields: Arguments, place: UploadSlot
    ) -> tuple[Upload, Timings | None]:
        """Fetch the URL that `fields` give and publish what comes; also what the fetch has cost, if
        there was one. `place` is the place of the request among the uploads; it is as fast as the
        upstream. Imports have places of their own besides: they cost a caller next to nothing.

        :raises MediaError: why it is not stored.
        """
        url = url_to_fetch(fields.require_bytes("url"))
        directory = fields.require("directory")
        filename = fields.get("filename") or _filename(url)
        sha256 = sha256_from_hex(fields.require("sha256")) if fields.has("sha256") else None
        timings = None
        source = f"{client_address(request)} by {url.origin}"
        with self._library.arrival(source, caller=caller_of(request)) as arrival:
            arrival.sha256 = sha256
            arrival.named(directory, filename)
            await arrival.prepare(awaited=True)
            arrival.raise_failure()
            if not arrival.identical:
                timings = await self._transfer(request, url, arrival, place)
            await self._library.publish([arrival])
            arrival.raise_failure()
        return arrival, timings

    async def _transfer(
        self, request: Request, url: Url, arrival: Upload, place: UploadSlot
    ) -> Timings:
        transfer = _Transfer(Download(self._fetcher, url, self._terms, caller_of(request)))
        source = client_address(request)
        with (
            await self._library.importing(caller_of(request), source, transfer),
            place.lent_to(transfer),
        ):
            try:
                return await transfer.carry_out(arrival)
            except AddressRefused as error:
                log_refused(self._log, error, request)
                raise


class _Transfer:
    """A download on its way into an arrival. It is a `shares.Holder`."""

    def __init__(self, download: Download) -> None:
        self._download = download
        self._under_way: Deferred[Timings] | None = None
        self._gave_way = False

    async def carry_out(self, arrival: Upload) -> Timings:
        """What it cost.

        :raises UpstreamTooSlow: also when it was told to give way.
        """
        self._under_way = ensureDeferred(self._carry_out(arrival))
        try:
            return await self._under_way
        except CancelledError as error:
            if self._gave_way:
                raise gave_way() from error
            raise

    def pace(self) -> float | None:
        """That of the upstream."""
        return self._download.pace()

    def give_way(self) -> None:
        """Another caller has the place."""
        self._gave_way = True
        if self._under_way is not None:
            self._under_way.cancel()

    async def _carry_out(self, arrival: Upload) -> Timings:
        async with self._download as download:
            if download.length is not None:
                await arrival.declare(download.length)
                arrival.raise_failure()
            if not arrival.identical:  # by now
                async for chunks in download:
                    await arrival.write(chunks)
                    arrival.raise_failure()
                await arrival.end()
            return download.timings


async def read_json(body: Body, fields: Arguments) -> None:
    """Read the arguments of an import from a JSON object.

    :raises Malformed: when it is none, or one of them is no text, or given twice.
    """
    budget = ByteBudget(MAX_JSON_BYTES, "the JSON")
    data = bytearray()
    async for chunks in body:
        for chunk in chunks:
            budget.spend(len(chunk))
            data += chunk
    try:
        pairs = json.loads(data.decode("utf-8-sig"), object_pairs_hook=tuple)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise Malformed(f"the content is no JSON: {error.msg} ({where})") from error
    except (ValueError, RecursionError) as error:
        raise Malformed("the content is no JSON that can be read") from error
    if not isinstance(pairs, tuple):
        raise Malformed("the content is no JSON object")
    for name, value in pairs:
        if name in ARGUMENTS:
            _give(fields, name, value)
        elif name == "body":
            fields.begin(name)


def _give(fields: Arguments, name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise Malformed(f"the argument '{name}' is no text")
    fields.begin(name)
    fields.give(name, value.encode("utf-8", "surrogatepass"))


def _filename(url: Url) -> str:
    """The last segment of the path of `url`, if it can be a filename."""
    try:
        filename = url.filename.decode("utf-8")
        media_name("any", filename)
    except (UnicodeDecodeError, MediaError):
        raise MissingArgument("filename", "the URL does not end in one") from None
    return filename
