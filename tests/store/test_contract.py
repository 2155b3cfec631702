"""What every store promises (`twistedmedia.boundaries`)."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from tests.support import asynchronous, named
from twistedmedia.errors import AlreadyExists

HELLO = named("prompts/en/hello.mp3")


@asynchronous
async def test_a_published_draft_is_read_back_byte_for_byte(store: Any) -> None:
    draft = store.begin()
    await draft.append([b"hel", b"lo"])
    await draft.append([b" world"])
    sealed = await draft.seal()
    stored = await draft.publish(HELLO)
    draft.discard()
    assert (sealed.size, sealed.sha256) == (11, hashlib.sha256(b"hello world").hexdigest())
    media = await store.open(HELLO)
    assert (media.size, media.etag, await media.read(0, 100)) == (11, stored.etag, b"hello world")
    media.close()


@asynchronous
async def test_a_name_is_never_taken_twice(store: Any) -> None:
    for content, wins in ((b"first", True), (b"second", False)):
        draft = store.begin()
        await draft.append([content])
        await draft.seal()
        if wins:
            await draft.publish(HELLO)
        else:
            with pytest.raises(AlreadyExists):
                await draft.publish(HELLO)
        draft.discard()
    media = await store.open(HELLO)
    assert await media.read(0, 100) == b"first"
    media.close()
