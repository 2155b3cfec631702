"""Listings, deletes, imports, fetches, health, and the URL of the service."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import CancelledError

from tests.client.fake import Answer, told
from tests.support import asynchronous, until
from twistedmedia.client import (
    ClientTimeouts,
    Entry,
    Fetched,
    InvalidResponse,
    LocalFailure,
    MediaClient,
    Refused,
    Retries,
    Unreachable,
)


@asynchronous
async def test_a_listing_has_all_pages(talk: Any) -> None:
    async with talk() as it:
        names = [f"a b/{n} ü&.wav" for n in range(7)]
        for name in [*names, "a b/c/d.wav", "e/f.wav"]:
            it.fake.put(name, b"xy")
        found = await it.client.list("a b")
        assert [entry.path for entry in found if not entry.is_directory] == names
        assert found[-1] == Entry("a b", "c", True)
        assert (found[0].size, found[0].etag) == (2, '"v1"')
        assert await it.client.list("a b/") == found
        assert [entry.path for entry in await it.client.list()] == ["a b", "e"]


@asynchronous
async def test_a_file_of_a_year_that_the_service_cannot_express_is_listed(talk: Any) -> None:
    """Case 49."""
    content = (
        b'{"entries": [{"name": "x.wav", "size": 1, "modified": null, "etag": "\\"1\\""}],'
        b' "next": null}'
    )
    async with talk() as it:
        it.fake.next("GET", answer=Answer(200, {}, content))
        assert await it.client.list("a") == [Entry("a", "x.wav", False, 1, None, '"1"')]


@asynchronous
async def test_a_recursive_listing_has_all_files(talk: Any) -> None:
    async with talk() as it:
        names = ["a/1.wav", "a/b/2.wav", "a/b/c/3.wav", "a/d/4.wav", "e/5.wav"]
        for name in names:
            it.fake.put(name, b"")
        assert [entry.path for entry in await it.client.list(recursive=True)] == names
        below = await it.client.list("a/b", recursive=True)
        assert [entry.path for entry in below] == ["a/b/2.wav", "a/b/c/3.wav"]


@asynchronous
async def test_a_folder_that_disappears_while_it_is_listed_is_empty(talk: Any) -> None:
    async with talk() as it:
        for name in ("a/1.wav", "a/b/2.wav"):
            it.fake.put(name, b"")
        it.fake.next("GET")
        it.fake.next("GET", answer=told(404, 404, "there is no such directory"))
        found = await it.client.list("a", recursive=True)
        assert [entry.path for entry in found] == ["a/1.wav"]


@asynchronous
async def test_a_page_says_where_the_next_one_begins(talk: Any) -> None:
    async with talk() as it:
        for name in ("a/1.wav", "a/2.wav", "a/3.wav"):
            it.fake.put(name, b"")
        first = await it.client.page("a")
        assert [entry.path for entry in first.entries] == ["a/1.wav", "a/2.wav"]
        second = await it.client.page("a", first.next)
        assert [entry.path for entry in second.entries] == ["a/3.wav"]
        assert second.next is None


@asynchronous
async def test_a_client_that_is_closed_at_once_keeps_no_connection(talk: Any) -> None:
    """A fixture checks that the test leaves nothing behind."""
    async with talk() as it:
        it.fake.next("GET", answer=Answer(200, {"Content-Encoding": "gzip"}, b"x"))
        with pytest.raises(InvalidResponse, match="coding"):
            await it.client.list()


@asynchronous
async def test_a_missing_directory_cannot_be_listed(talk: Any) -> None:
    async with talk() as it:
        with pytest.raises(Refused, match="no such directory") as caught:
            await it.client.list("none")
        with pytest.raises(LocalFailure):
            await it.client.list("../etc")
    assert caught.value.code == 404


@pytest.mark.parametrize(
    "content",
    [
        b"<html>",
        b"[]",
        b'{"entries": 1}',
        b'{"entries": [1], "next": null}',
        b'{"entries": [], "next": 1}',
        b'{"entries": [], "next": "a"}',
        b'{"entries": [{"name": "a/b"}], "next": null}',
        b'{"entries": [{"name": "/"}], "next": null}',
        b'{"entries": [{"name": "a.wav", "size": -1}], "next": null}',
        b"[" * 100_000,
    ],
)
@asynchronous
async def test_an_invalid_listing_is_refused(talk: Any, content: bytes) -> None:
    async with talk() as it:
        it.fake.next("GET", answer=Answer(200, {}, content))
        with pytest.raises(InvalidResponse):
            await it.client.list("a")


@asynchronous
async def test_an_endless_listing_is_given_up(talk: Any) -> None:
    content = b'{"entries": [{"name": "a/"}], "next": "a"}'
    async with talk() as it:
        for _ in range(2):
            it.fake.next("GET", answer=Answer(200, {}, content))
        with pytest.raises(InvalidResponse, match="does not end"):
            await it.client.list()


def listed(name: str, following: str | None) -> Answer:
    entry = {"name": name, "size": 1, "modified": "", "etag": '"a"'}
    return Answer(200, {}, json.dumps({"entries": [entry], "next": following}).encode())


@pytest.mark.parametrize(
    "places", [["a", "b", "a"], ["b", "a"], ["ö", "z"], ["a/", "a"], ["\U00010000", "\uffff"]]
)
@asynchronous
async def test_a_listing_that_goes_back_is_given_up(talk: Any, places: list[str]) -> None:
    async with talk() as it:
        for place in places:
            it.fake.next("GET", answer=listed("a.wav", place))
        with pytest.raises(InvalidResponse, match="does not end"):
            await it.client.list("a")


@asynchronous
async def test_a_page_has_the_number_of_left_out_entries(talk: Any) -> None:
    async with talk() as it:
        for name in ("a/1.wav", "a/2.wav", "a/3.wav"):
            it.fake.put(name, b"")
        it.fake.left_out = {"a": 7}
        assert (await it.client.page("a")).left_out == 0
        assert (await it.client.page("a", "2.wav")).left_out == 7
        seen: list[tuple[str, int]] = []
        await it.client.list("/a/", on_left_out=lambda *told: seen.append(told))
        assert seen == [("a", 7)]
        for wrong in ("-1", "true", '"1"', "1.5"):
            content = f'{{"entries": [], "next": null, "left_out": {wrong}}}'.encode()
            it.fake.next("GET", answer=Answer(200, {}, content))
            with pytest.raises(InvalidResponse, match="left_out"):
                await it.client.page("a")


@asynchronous
async def test_a_response_that_is_too_large_is_not_read(talk: Any) -> None:
    async with talk() as it:
        it.fake.next("GET", answer=Answer(200, {}, b" " * (9 << 20)))
        with pytest.raises(InvalidResponse, match="larger than any"):
            await it.client.list()


@asynchronous
async def test_a_delete_fires_with_whether_the_file_existed(talk: Any) -> None:
    async with talk() as it:
        it.fake.put("a/b.wav", b"")
        assert await it.client.delete("a", "b.wav") is True
        assert await it.client.delete("a", "b.wav") is False
        etag = it.fake.put("a/b.wav", b"")
        with pytest.raises(Refused) as caught:
            await it.client.delete("a", "b.wav", etag='"other"')
        assert caught.value.status == 412
        assert await it.client.delete("a", "b.wav", etag=etag) is True


@pytest.mark.parametrize("with_etag", [False, True])
@asynchronous
async def test_a_delete_succeeds_after_a_lost_response(talk: Any, with_etag: bool) -> None:
    async with talk() as it:
        etag = it.fake.put("a/b.wav", b"")
        it.fake.next("DELETE", is_lost=True)
        assert await it.client.delete("a", "b.wav", etag=etag if with_etag else None) is True
        assert it.failures == ["Unreachable"]


@asynchronous
async def test_a_delete_is_retried_when_the_service_is_busy(talk: Any) -> None:
    async with talk() as it:
        it.fake.next("DELETE", answer=told(503, 514, Retry_After="0"))
        assert await it.client.delete("a", "b.wav") is False


@asynchronous
async def test_an_import_fires_with_the_stored_file(talk: Any) -> None:
    url = "http://example.org/x.wav?a=b&c=ü#d"
    async with talk() as it:
        stored = await it.client.import_url(url, "a b", "ü &=.wav")
        assert it.fake.media == {"a b/ü &=.wav": url.encode()}
        assert stored.url.endswith("/media/a%20b/%C3%BC%20&=.wav")
        assert (await it.client.import_url("http://e/x.wav", "a")).filename == "x.wav"
        with pytest.raises(Refused, match="exists already"):
            await it.client.import_url("http://e/x.wav", "a")
        with pytest.raises(LocalFailure):
            await it.client.import_url("http://e/\udc80", "a")


@asynchronous
async def test_an_import_has_a_longer_timeout(talk: Any) -> None:
    timeouts = ClientTimeouts(response_s=100, import_s=1000)
    async with talk(timeouts=timeouts, retries=Retries(times=0)) as it:
        it.fake.next("POST", hangs=True)
        importing = it.client.import_url("http://e/x.wav", "a")
        assert 900 < await it.gives_up_in("POST") <= 1000
        with pytest.raises(Unreachable, match="takes too long"):
            await importing


@asynchronous
async def test_a_fetch_fires_with_its_timings(talk: Any) -> None:
    url = "http://example.org/?a=b&c=%20ü"
    async with talk() as it:
        fetched = await it.client.fetch(url)
    timings = {"lookup": None, "first_byte": 0.5, "total": 1.25}
    assert fetched == Fetched(url, 404, 5120, 1.25, timings, "miss")


@pytest.mark.parametrize(
    "content",
    [b"{}", b'{"timings": {"a": "b"}, "time_cost": 1}', b'{"timings": {}, "time_cost": true}'],
)
@asynchronous
async def test_an_invalid_response_to_a_fetch_is_refused(talk: Any, content: bytes) -> None:
    async with talk() as it:
        it.fake.next("GET", answer=Answer(200, {}, content))
        with pytest.raises(InvalidResponse):
            await it.client.fetch("http://e/")


@asynchronous
async def test_find_fires_with_the_properties_of_a_file(talk: Any) -> None:
    async with talk() as it:
        etag = it.fake.put("a/b.wav", b"12345")
        found = await it.client.find("a", "b.wav")
        assert (found.size, found.etag) == (5, etag)
        assert await it.client.find("a", "c.wav") is None
        it.fake.knows_digests = False
        assert (await it.client.find("a", "b.wav")).sha256 is None
        assert (await it.client.find("a", "b.wav", digest=True)).sha256 is not None


@asynchronous
async def test_a_cancelled_request_is_not_retried(talk: Any) -> None:
    async with talk() as it:
        it.fake.next("GET", hangs=True)
        question = it.client.list()
        await until(lambda: it.fake.heard)
        question.cancel()
        with pytest.raises(CancelledError):
            await question
    assert it.waits == []


@asynchronous
async def test_the_wait_before_a_retry_can_be_cancelled(talk: Any) -> None:
    async with talk(retries=Retries(first_s=1000, longest_s=1000, random=lambda: 1.0)) as it:
        it.fake.next("GET", answer=Answer(503))
        question = it.client.list()
        await until(lambda: it.waits)
        question.cancel()
        with pytest.raises(CancelledError):
            await question
    assert [wait_s for _, wait_s in it.waits] == [1000.0]


@asynchronous
async def test_a_service_may_be_mounted_below_a_path(talk: Any) -> None:
    async with talk() as it:
        client = MediaClient(reactor, f"{it.fake.url}/voice/")
        it.fake.next("GET", answer=Answer(200, {}, b'{"entries": [], "next": null}'))
        assert await client.list() == []
        await client.close()
        assert it.fake.heard[0].target == "/voice/media/"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.org",
        "ftp://example.org",
        "http://",
        "http://user:secret@example.org",
        "http://example.org/?a",
        "http://example.org/#a",
        "http://example.org:x",
        "http://[::1",
        "http://example.org/ü",
        "http://exa mple.org/",
    ],
)
def test_a_url_that_is_not_of_a_service_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        MediaClient(reactor, url)


@asynchronous
async def test_health_is_requested_once_with_a_short_timeout(talk: Any) -> None:
    assert ClientTimeouts().health_s == 10
    async with talk(timeouts=ClientTimeouts(health_s=100)) as it:
        it.fake.next("GET", hangs=True)
        question = it.client.health()
        assert 50 < await it.gives_up_in("GET") <= 100
        with pytest.raises(Unreachable):
            await question
        assert (it.waits, len(it.fake.heard)) == ([], 1)
        it.fake.next("GET", answer=told(503, 503, "busy"))
        with pytest.raises(Refused, match="HTTP 503"):
            await it.client.health()
        assert (it.waits, len(it.fake.heard)) == ([], 2)
