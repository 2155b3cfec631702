"""Uploads that go over many requests: begun, added to, looked at, ended.

An upload is a kept draft of the store; each request that adds to it is an arrival of the intake.
What of a request counts, when the whole is published, and who may write is decided here; how
requests look, in `web.uploading`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from secrets import token_hex
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from twistedmedia.arrival import Arrival
from twistedmedia.boundaries import Fate, Kept, KeptDraft, KeptDrafts, Plan
from twistedmedia.errors import (
    AlreadyExists,
    Busy,
    DigestMismatch,
    InternalError,
    Malformed,
    MediaError,
    NameConflict,
    NameTaken,
    NoSpace,
    NotFound,
    StorageFailed,
    TooLarge,
    WrongOffset,
)
from twistedmedia.intake import Intake
from twistedmedia.limits import ByteBudget
from twistedmedia.names import MediaName
from twistedmedia.streaming import Body
from twistedmedia.turns import Turns
from twistedmedia.unfinished import Unfinished
from twistedmedia.wire.tus import Checksum

# What a client is told is in whole seconds, and its clock may be a little off.
_EXPIRED_FOR_S = 60
# A power failure takes no more than this of what was acknowledged. To sync that often costs as much
# time as some MiB more.
_SYNC_BYTES = 64 << 20
_MOST_BETWEEN_SWEEPS_S = 600


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an upload is: `offset` of `length` bytes, None while nobody knows how many. While it
    is unfinished it is dropped at `expires_s`, in seconds since the epoch; `stored` is its name
    once it is stored. `note` is its plan's.
    """

    upload: str
    offset: int
    length: int | None
    note: str
    expires_s: float | None = None
    stored: MediaName | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """What one request adds, from `offset` on. `length` is that of the whole upload, where the
    request tells it.
    """

    offset: int
    body: Body
    length: int | None = None
    checksum: Checksum | None = None


class Uploads:
    """The uploads of one intake's store. Of requests for one upload the last one that came is
    served; those before it end. Each goes on to its end when its client leaves: what had come of
    it is kept.
    """

    _log = Logger()

    def __init__(
        self,
        intake: Intake,
        drafts: KeptDrafts,
        *,
        expiry_s: float = 24 * 3600,
        max_unfinished: int = 1000,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        """An upload that nobody adds to for `expiry_s` seconds is dropped. One caller may have
        `max_unfinished` of them. `now_s` is seconds since the epoch.
        """
        self.intake = intake
        self._expiry_s = expiry_s
        self._drafts = drafts
        self._unfinished = Unfinished(max_unfinished)
        self._now_s = now_s
        self._turns = Turns()
        self._counted = False
        self._sweeping = LoopingCall(self._sweep)

    def start(self, reactor: Any) -> None:
        """The store is open: find out what is there, and sweep from now on."""
        self._sweeping.clock = reactor
        interval_s = min(_MOST_BETWEEN_SWEEPS_S, max(1.0, self._expiry_s / 10))
        self._sweeping.start(interval_s, now=True)

    def stop(self) -> None:
        """Sweep no more."""
        if self._sweeping.running:
            self._sweeping.stop()

    def create(self, source: str, caller: str, plan: Plan, part: Part) -> Deferred[Progress]:
        """Begin an upload, with a first part, which may be empty. `source` is an address for the
        log, `caller` whose upload it counts as. Fires when that part is done with.

        Fails with the errors of an upload by PUT, and `TooManyUnfinished`; then there is none.
        """
        return self.intake.unbroken(self._create(source, caller, plan, part))

    def add(self, source: str, upload: str, part: Part) -> Deferred[Progress]:
        """Add a part. When that was the last one, fires after the file is published.

        Fails with `NotFound`, `WrongOffset`, `Superseded` by a newer request, `ChecksumMismatch`,
        and what a publish fails with, but with `NameTaken` where the name is another file's. Of a
        part that breaks off what came is kept, unless it has a checksum.
        """
        return self.intake.unbroken(self._in_turn(source, upload, part))

    def look(self, source: str, upload: str) -> Deferred[Progress]:
        """How far an upload is. One that is complete is published first.

        Fails with `NotFound`, `NameTaken`, `Superseded`, and what a publish fails with.
        """
        return self.intake.unbroken(self._look(source, upload))

    def end(self, upload: str) -> Deferred[None]:
        """Drop an upload. A file that it has become stays.

        Fails with `NotFound`.
        """
        return self.intake.unbroken(self._end(upload))

    async def sweep(self) -> None:
        """Drop what nobody has added to for so long that it has expired."""
        before_s = self._now_s() - self._expiry_s - _EXPIRED_FOR_S
        for upload in await self._drafts.expire(int(before_s * 10**9)):
            if upload in self._unfinished:
                self._log.info("expired: upload {upload}", upload=upload)
            self._unfinished.end(upload)

    async def _sweep(self) -> None:
        try:
            if not self._counted:  # before the first sweep, or what that drops would count
                await self._take_stock()
            await self.sweep()
        except MediaError as error:  # the next time, perhaps
            self._log.warn("expired uploads were not swept: {why}", why=error.reason)
        except Exception:  # noqa: BLE001
            self._log.failure("expired uploads could not be swept")

    async def _take_stock(self) -> None:
        for upload, caller in (await self._drafts.callers()).items():
            self._unfinished.add(upload, caller)
        self._counted = True

    async def _create(self, source: str, caller: str, plan: Plan, part: Part) -> Progress:
        upload = token_hex(16)
        with self.intake.arrival(source, declared=plan.length) as arrival:  # only to look
            arrival.sha256 = plan.sha256
            arrival.accepted(plan.name)
            await arrival.prepare(awaited=True)
            arrival.raise_failure()
        self._unfinished.begin(upload, caller)
        try:
            if arrival.stored is not None:  # it is there already
                if plan.length not in (None, arrival.stored.size):
                    raise DigestMismatch("what has that digest has another length")
                plan = replace(plan, length=arrival.stored.size)
                await self._drafts.create(upload, plan, arrival.stored.etag)
                return _stored(upload, plan)  # it counts until it expires
            await self._drafts.create(upload, plan)
            if part.body.length == 0 and plan.length != 0 and part.checksum is None:
                return self._unfinished_at(upload, plan, 0, self._now_s())
            return await self._in_turn(source, upload, part)
        except BaseException:  # nobody knows its id
            await self._forget(upload)
            raise

    async def _in_turn(self, source: str, upload: str, part: Part) -> Progress:
        body = part.body
        body.outlives = True  # from now on: what has come is read, however soon the client goes
        try:
            async with self._turns.take(upload, body.fail):
                kept = await self._drafts.find(upload)
                if kept.fate is not Fate.UNFINISHED:
                    progress = await self._ended(upload, kept)
                    self._judged(kept, part)
                    if await body.read():
                        raise TooLarge(kept.size, "the upload")
                    return progress
                plan = self._judged(kept, part)
                with self.intake.upload():
                    return await self._receive(source, upload, kept.plan, plan, part)
        finally:
            body.drop()

    async def _look(self, source: str, upload: str) -> Progress:
        async with self._turns.take(upload, _goes_on):
            kept = await self._drafts.find(upload, synced=True)
            if kept.fate is not Fate.UNFINISHED:
                return await self._ended(upload, kept)
            if kept.size != kept.plan.length:
                return self._unfinished_at(upload, kept.plan, kept.size, kept.modified_ns / 10**9)
            draft = self._drafts.resume(upload, None, provisional=False)
            arrival = self.intake.arrival(source, draft=draft)
            try:
                await arrival.resume(kept.plan.name)
                return await self._publish(upload, kept.plan, arrival, draft)
            finally:
                await draft.put_down(undo=False)

    async def _end(self, upload: str) -> None:
        async with self._turns.take(upload, _goes_on):
            if not await self._forget(upload):
                raise NotFound("there is no such upload")

    def _judged(self, kept: Kept, part: Part) -> Plan:
        """The plan, with what the part says of it, if the part fits to it."""
        _judge_offset(kept, part)
        plan = kept.plan
        if part.length is not None and part.length != plan.length:
            if plan.length is not None:
                raise Malformed(f"the Upload-Length was said to be {plan.length}")
            if part.length < kept.size:
                raise Malformed(f"the Upload-Length is less than the {kept.size} bytes here")
            ByteBudget(self.intake.limits.max_upload).spend(part.length)
            plan = replace(plan, length=part.length)
        coming = part.body.length or 0
        if plan.length is not None and kept.size + coming > plan.length:
            raise TooLarge(plan.length, "the upload")
        return plan

    async def _receive(
        self, source: str, upload: str, before: Plan, plan: Plan, part: Part
    ) -> Progress:
        provisional = part.checksum is not None
        draft = self._drafts.resume(upload, part.body.length, provisional=provisional)
        arrival = self.intake.arrival(source, draft=draft)
        if part.checksum is not None:
            arrival.checksum = part.checksum.begin()
        undo = False
        try:
            if await arrival.resume(plan.name) != part.offset:
                raise WrongOffset(part.offset)
            broke = await _read(arrival, part.body, plan.length, provisional=provisional)
            arrival.raise_failure()
            if part.checksum is not None and broke is None:
                broke = part.checksum.problem(arrival.checksum)
            undo = isinstance(broke, TooLarge) or (provisional and broke is not None)
            if broke is not None:
                self._log.info(
                    "broke off: {name!r} at {size} bytes from {source}: {why}",
                    name=str(plan.name),
                    size=part.offset if undo else arrival.size,
                    source=source,
                    why=str(broke),
                )
            if broke is not None and undo:
                raise broke
            if plan.length is not None and plan.length != before.length:
                await self._drafts.declare(upload, plan.length)
            if arrival.size == plan.length:
                progress = await self._publish(upload, plan, arrival, draft)
            else:
                # Who records while he sends may not have any more what was acknowledged.
                synced = plan.length is None or arrival.size - arrival.synced >= _SYNC_BYTES
                await arrival.keep(synced=synced)
                progress = self._unfinished_at(upload, plan, arrival.size, self._now_s())
            if broke is not None:
                raise broke
            return progress
        finally:
            await draft.put_down(undo=undo)

    async def _publish(
        self, upload: str, plan: Plan, arrival: Arrival, draft: KeptDraft
    ) -> Progress:
        arrival.sha256 = plan.sha256
        await self.intake.publish([arrival])
        await draft.put_down(undo=False)
        if arrival.stored is not None:
            if arrival.identical:  # another's, of the same content
                await self._drafts.settle(upload, arrival.stored.etag)
            self._unfinished.end(upload)
            return _stored(upload, plan)
        failure = arrival.failure
        assert failure is not None
        if isinstance(failure, (AlreadyExists, NameConflict)):
            await self._drafts.settle(upload, None)
            self._unfinished.end(upload)
            raise NameTaken(failure.reason)
        if not isinstance(failure, _PASSING):
            await self._forget(upload)
        raise failure

    async def _ended(self, upload: str, kept: Kept) -> Progress:
        """What there is to say of an upload that is not unfinished."""
        if kept.fate is Fate.TAKEN:
            raise NameTaken
        media = await self.intake.store.open(kept.plan.name)
        media.close()
        if media.size != kept.plan.length or kept.etag not in (None, media.etag):
            raise NotFound("what was uploaded is no longer there")
        return _stored(upload, kept.plan)

    async def _forget(self, upload: str) -> bool:
        self._unfinished.end(upload)
        return await self._drafts.forget(upload)

    def _unfinished_at(self, upload: str, plan: Plan, size: int, touched_s: float) -> Progress:
        return Progress(upload, size, plan.length, plan.note, expires_s=touched_s + self._expiry_s)


# What an upload that is complete may fail with and be published at another time.
_PASSING = (NoSpace, StorageFailed, Busy, InternalError)


async def _read(
    arrival: Arrival, body: Body, length: int | None, *, provisional: bool
) -> Exception | None:
    """Write what comes; why it broke off, if it did, or failed."""
    size = arrival.size
    try:
        async for chunks in body:
            size += sum(map(len, chunks))
            if length is not None and size > length:
                raise TooLarge(length, "the upload")
            await arrival.write(chunks)
            if size - arrival.synced >= _SYNC_BYTES and not provisional:
                await arrival.sync()
            arrival.raise_failure()
    except Exception as error:  # noqa: BLE001  # it is returned
        return error
    finally:
        await arrival.end()
    return None


def _stored(upload: str, plan: Plan) -> Progress:
    return Progress(upload, plan.length or 0, plan.length, plan.note, stored=plan.name)


def _judge_offset(kept: Kept, part: Part) -> None:
    if part.offset != kept.size:
        raise WrongOffset(kept.size)


def _goes_on(_: Exception) -> None:
    """Soon over, or publishing, which is not broken off."""
