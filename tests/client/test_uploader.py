"""Uploads in one request, and resumable uploads."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import CancelledError

from tests.client.fake import Answer, told
from tests.support import asynchronous
from twistedmedia.client import (
    ClientTimeouts,
    InvalidResponse,
    LocalFailure,
    Refused,
    Retries,
    Unreachable,
    UploadRecords,
)
from twistedmedia.client.uploader import SMALL_BYTES, check_etag

SMALL = b"RIFF and so on"
LARGE = bytes(range(256)) * (SMALL_BYTES // 256) + b"and a little more"
CUT = 1_000_000


def change(path: Path) -> None:
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(1, 1))


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "hello.wav"
    path.write_bytes(SMALL)
    return path


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large.wav"
    path.write_bytes(LARGE)
    return path


@asynchronous
async def test_a_small_file_goes_in_one_request_with_its_digest(talk: Any, small: Path) -> None:
    async with talk() as it:
        stored = await it.client.upload(small, "prompts/en")
        [request] = it.fake.heard
    assert it.fake.media == {"prompts/en/hello.wav": SMALL}
    assert (request.method, request.target) == ("PUT", "/media/prompts/en/hello.wav")
    assert request.headers["accept-encoding"] == "identity"
    assert (stored.directory, stored.filename) == ("prompts/en", "hello.wav")
    assert stored.url == f"{it.client._service.url}/media/prompts/en/hello.wav"
    assert (stored.size, stored.sha256, stored.etag) == (len(SMALL), sha256(SMALL), '"v1"')
    assert not stored.identical


@pytest.mark.parametrize(
    "name",
    ["a b/ü + %2F.wav", "voix/ça & co;v=1,2/#?.wav", "電話/挨拶.mp3", "a/-.wav", "a/~[x].wav"],
)
@asynchronous
async def test_any_name_is_sent_unchanged(talk: Any, small: Path, name: str) -> None:
    directory, _, filename = name.rpartition("/")
    async with talk() as it:
        await it.client.upload(small, directory, filename)
        assert (await it.client.find(directory, filename)).size == len(SMALL)
    assert list(it.fake.media) == [name]


@asynchronous
async def test_an_empty_file_is_a_file(talk: Any, tmp_path: Path) -> None:
    (tmp_path / "nothing.wav").touch()
    async with talk() as it:
        assert (await it.client.upload(tmp_path / "nothing.wav", "a")).size == 0
    assert it.fake.media == {"a/nothing.wav": b""}


@asynchronous
async def test_a_stored_file_is_recognised(talk: Any, small: Path, large: Path) -> None:
    async with talk() as it:
        for path in (small, large):
            assert not (await it.client.upload(path, "a")).identical
            again = await it.client.upload(path, "a")
            assert again.identical
            assert again.etag == it.fake.etags[f"a/{path.name}"]
    assert len(it.fake.asked("PATCH")) == 1


@pytest.mark.parametrize("directory", ["", "/a", "a//b", ".hidden", "a/../b"])
@asynchronous
async def test_a_bad_name_is_refused_before_any_request(
    talk: Any, small: Path, directory: str
) -> None:
    async with talk() as it:
        with pytest.raises(LocalFailure) as caught:
            await it.client.upload(small, directory)
        assert it.fake.heard == []
    assert caught.value.code in (503, 505)


@asynchronous
async def test_an_unreadable_file_is_a_local_failure(talk: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    async with talk() as it:
        for name, reason in [
            ("none.wav", "No such file"),
            ("pipe.wav", "not a regular file"),
            (".", "Is a directory"),
        ]:
            with pytest.raises(LocalFailure, match=reason):
                await it.client.upload(tmp_path / name, "a", "b.wav")


NOT_AGAIN = [
    (told(409, 501, "the file exists already"), 501),
    (told(415, 504), 504),
    (told(413, 506), 506),
    (told(507, 507), 507),
    (told(422, 509), 509),
    (told(500, 500), 500),
    (told(502, 512), 512),
    (told(504, 513), 513),
    (told(503, 514, Retry_After="301"), 514),
    (Answer(403, {}, b"<html>no</html>"), None),
    (Answer(302, {"Location": "http://127.0.0.1:9/elsewhere"}), None),
]


@pytest.mark.parametrize(("answer", "code"), NOT_AGAIN)
@asynchronous
async def test_a_permanent_failure_is_not_retried(
    talk: Any, small: Path, answer: Answer, code: int | None
) -> None:
    async with talk() as it:
        it.fake.next("PUT", answer=answer)
        with pytest.raises(Refused) as caught:
            await it.client.upload(small, "a")
    assert (caught.value.status, caught.value.code) == (answer.status, code)
    assert it.waits == []
    assert it.fake.media == {}


PASSING: list[dict[str, Any]] = [
    {"answer": told(503, 514, Retry_After="0")},
    {"answer": told(429, 429)},
    {"answer": told(408, 408, Connection="close")},
    {"answer": Answer(502, {}, b"<html>bad gateway</html>")},
    {"answer": Answer(504)},
    {"answer": told(503, 514), "early": True},
    {"cut_at": 3},
    {"cut_at": 0},
    {"is_lost": True},
    {"short_at": 20},
]


@pytest.mark.parametrize("misdeed", PASSING, ids=str)
@asynchronous
async def test_a_temporary_failure_is_retried(talk: Any, small: Path, misdeed: Any) -> None:
    async with talk() as it:
        it.fake.next("PUT", **misdeed)
        stored = await it.client.upload(small, "a")
    assert it.fake.media == {"a/hello.wav": SMALL}
    assert len(it.waits) == 1
    assert stored.identical == bool(misdeed.get("is_lost") or misdeed.get("short_at"))


@asynchronous
async def test_attempts_end_with_the_last_failure(talk: Any, small: Path) -> None:
    async with talk() as it:
        for _ in range(4):
            it.fake.next("PUT", answer=told(503, 514, "busy"))
        with pytest.raises(Refused, match="busy"):
            await it.client.upload(small, "a")
    assert it.failures == ["Refused"] * 3


@asynchronous
async def test_a_port_without_a_service_is_unreachable(talk: Any, small: Path) -> None:
    async with talk(retries=Retries(times=1, random=lambda: 0.0)) as it:
        await it.fake.silence()
        with pytest.raises(Unreachable, match="refused") as caught:
            await it.client.upload(small, "a")
    assert not caught.value.was_sent
    assert it.failures == ["Unreachable"]


@asynchronous
async def test_a_silent_service_is_given_up(talk: Any, small: Path) -> None:
    timeouts = ClientTimeouts(response_s=100, stall_s=1000)
    async with talk(timeouts=timeouts, retries=Retries(times=0)) as it:
        it.fake.next("PUT", hangs=True)
        upload = it.client.upload(small, "a")
        assert 50 < await it.gives_up_in("PUT") <= 100
        with pytest.raises(Unreachable, match="takes too long") as caught:
            await upload
    assert caught.value.was_sent


@pytest.mark.parametrize(
    "content",
    [b"", b"OK", b"[]", b'{"code": 200}', b'{"files": [1]}', b'{"files": [{"directory": "a"}]}'],
)
@asynchronous
async def test_a_success_with_invalid_content_is_refused(
    talk: Any, small: Path, content: bytes
) -> None:
    async with talk() as it:
        it.fake.next("PUT", answer=Answer(201, {}, content))
        with pytest.raises(InvalidResponse):
            await it.client.upload(small, "a")


@asynchronous
async def test_a_success_with_a_content_coding_is_refused(talk: Any, small: Path) -> None:
    async with talk() as it:
        it.fake.next("PUT", more={"Content-Encoding": "gzip"})
        with pytest.raises(InvalidResponse, match="coding"):
            await it.client.upload(small, "a")


# Resumable uploads.


@asynchronous
async def test_a_large_file_is_sent_by_a_resumable_upload(talk: Any, large: Path) -> None:
    seen: list[tuple[int, int]] = []
    async with talk() as it:
        stored = await it.client.upload(
            large, "prompts/en", progress=lambda *moved: seen.append(moved)
        )
        methods = [request.method for request in it.fake.heard]
    assert it.fake.media == {"prompts/en/large.wav": LARGE}
    assert methods == ["POST", "PATCH", "HEAD"]  # the last one for the entity tag
    assert stored.etag == '"v2"'
    assert (stored.size, stored.sha256) == (len(LARGE), sha256(LARGE))
    assert seen[0] == (0, len(LARGE))
    assert seen[-1] == (len(LARGE), len(LARGE))
    assert sorted(seen) == seen


NASTY: list[list[tuple[str, dict[str, Any]]]] = [
    [("PATCH", {"cut_at": CUT})],
    [("PATCH", {"cut_at": CUT}), ("PATCH", {"cut_at": CUT}), ("HEAD", {"answer": Answer(502)})],
    [("PATCH", {"cut_at": 0})],
    [("PATCH", {"is_lost": True})],
    [("PATCH", {"cut_at": len(LARGE) - 1})],
    [("PATCH", {"answer": told(503, 514, Retry_After="0")})],
    [("PATCH", {"answer": told(409, 409)})],
    [("PATCH", {"cut_at": CUT}), ("HEAD", {"answer": Answer(423, {"Retry-After": "1"})})],
    [("PATCH", {"answer": told(400, 510, "ended early")})],
    [("PATCH", {"answer": told(404, 404)})],
    [("POST", {"answer": told(503, 514, Retry_After="0")})],
    [("POST", {"cut_at": 0})],
    [("POST", {"is_lost": True})],
    [("PATCH", {"cut_at": CUT}), ("HEAD", {"answer": Answer(404)})],
    [("PATCH", {"cut_at": CUT}), ("HEAD", {"answer": Answer(410)})],
    [("PATCH", {"cut_at": CUT}), ("HEAD", {"hangs": True})],
]


@pytest.mark.parametrize("misdeeds", NASTY, ids=str)
@asynchronous
async def test_a_large_file_arrives_after_failures(
    talk: Any, large: Path, misdeeds: list[tuple[str, dict[str, Any]]]
) -> None:
    async with talk(timeouts=ClientTimeouts(stall_s=5, response_s=1)) as it:
        for method, misdeed in misdeeds:
            it.fake.next(method, **misdeed)
        stored = await it.client.upload(large, "a")
    assert it.fake.media == {"a/large.wav": LARGE}
    assert stored.sha256 == sha256(LARGE)


@asynchronous
async def test_bytes_that_arrived_are_not_sent_again(talk: Any, large: Path) -> None:
    async with talk() as it:
        it.fake.next("PATCH", cut_at=CUT)
        await it.client.upload(large, "a")
        first, second = it.fake.asked("PATCH")
    assert second.headers["upload-offset"] == str(CUT)
    assert len(first.content) + len(second.content) == len(LARGE)


@asynchronous
async def test_attempts_with_progress_do_not_count(talk: Any, large: Path) -> None:
    async with talk(retries=Retries(times=1, random=lambda: 0.0)) as it:
        for _ in range(6):
            it.fake.next("PATCH", cut_at=500_000)
        await it.client.upload(large, "a")
    assert len(it.waits) == 6
    assert it.fake.media == {"a/large.wav": LARGE}


@asynchronous
async def test_attempts_without_progress_count(talk: Any, large: Path) -> None:
    async with talk() as it:
        it.fake.next("PATCH", cut_at=CUT)
        for _ in range(4):
            it.fake.next("PATCH", cut_at=0)
        with pytest.raises(Unreachable):
            await it.client.upload(large, "a")
    assert len(it.waits) == 4  # one after an attempt with progress, and three more


@pytest.mark.parametrize(
    ("method", "answer", "code"),
    [
        ("PATCH", told(410, 501), 501),
        ("PATCH", told(400, 508), 508),
        ("PATCH", told(422, 509), 509),
        ("PATCH", told(507, 507), 507),
        ("POST", told(409, 501), 501),
        ("POST", told(413, 506), 506),
    ],
)
@asynchronous
async def test_a_permanently_refused_upload_is_given_up(
    talk: Any, large: Path, tmp_path: Path, method: str, answer: Answer, code: int | None
) -> None:
    record = UploadRecords(tmp_path / "records")
    async with talk() as it:
        it.fake.next(method, answer=answer)
        with pytest.raises(Refused) as caught:
            await it.client.upload(large, "a", resume_store=record)
    assert caught.value.code == code
    assert it.waits == []
    left = [] if not (tmp_path / "records").exists() else list((tmp_path / "records").iterdir())
    assert len(left) == (code == 507)  # there may be space later


@asynchronous
async def test_an_upload_is_restarted_only_once(talk: Any, large: Path) -> None:
    async with talk() as it:
        it.fake.next("PATCH", answer=told(404, 404))
        it.fake.next("PATCH", answer=told(404, 404))
        with pytest.raises(Refused) as caught:
            await it.client.upload(large, "a")
        assert len(it.fake.asked("POST")) == 2
    assert caught.value.status == 404


@asynchronous
async def test_an_upload_is_never_sent_to_another_server(talk: Any, large: Path) -> None:
    for location in ["http://127.0.0.1:9/uploads/x", "//example.org/x", "", "http://[", "/\xfc"]:
        async with talk() as it:
            it.fake.next("POST", more={"Location": location})
            with pytest.raises(InvalidResponse, match="where to send"):
                await it.client.upload(large, "a")


@pytest.mark.parametrize("offset", ["-1", "x", str(len(LARGE) + 1), "9" * 30])
@asynchronous
async def test_an_invalid_offset_ends_the_upload(talk: Any, large: Path, offset: str) -> None:
    async with talk() as it:
        it.fake.next("PATCH", more={"Upload-Offset": offset})
        with pytest.raises(InvalidResponse):
            await it.client.upload(large, "a")


@asynchronous
async def test_a_service_that_accepts_nothing_ends_the_upload(talk: Any, large: Path) -> None:
    async with talk() as it:
        it.fake.next("PATCH", answer=Answer(204, {"Upload-Offset": "0"}))
        with pytest.raises(InvalidResponse, match="no more than before"):
            await it.client.upload(large, "a")


@asynchronous
async def test_a_service_that_accepts_a_few_bytes_ends_the_upload(talk: Any, large: Path) -> None:
    """Case 96: otherwise the client would send the rest again for each byte."""
    async with talk() as it:
        for reached in ("1", "2"):
            it.fake.next("PATCH", answer=Answer(204, {"Upload-Offset": reached}))
        with pytest.raises(InvalidResponse, match="a few bytes more"):
            await it.client.upload(large, "a")
        assert len(it.fake.asked("PATCH")) == 1
        it.fake.misdeed("PATCH")  # the second request is not sent


@asynchronous
async def test_without_resumable_uploads_a_large_file_goes_in_one_request(
    talk: Any, large: Path
) -> None:
    async with talk() as it:
        it.fake.has_uploads = False
        await it.client.upload(large, "a")
    assert it.fake.media == {"a/large.wav": LARGE}


@asynchronous
async def test_a_later_run_resumes(talk: Any, large: Path, tmp_path: Path) -> None:
    record = UploadRecords(tmp_path / "records")
    async with talk(retries=Retries(times=0)) as it:
        it.fake.next("PATCH", cut_at=CUT)
        with pytest.raises(Unreachable):
            await it.client.upload(large, "a", resume_store=record)
        assert len(list((tmp_path / "records").iterdir())) == 1
        await it.client.upload(large, "a", resume_store=record)
        assert len(it.fake.asked("POST")) == 1
        assert it.fake.asked("PATCH")[1].headers["upload-offset"] == str(CUT)
    assert it.fake.media == {"a/large.wav": LARGE}
    assert list((tmp_path / "records").iterdir()) == []


@asynchronous
async def test_a_later_run_does_not_trust_the_record_of_a_removed_file(
    talk: Any, large: Path, tmp_path: Path
) -> None:
    """The first run was killed after the last response and before it removed the record. Then the
    file was deleted or replaced.
    """
    record = UploadRecords(tmp_path / "records")
    async with talk(retries=Retries(times=0)) as it:
        kept: list[Path] = []

        class Killed(Exception):
            pass

        class Dying(UploadRecords):
            def remove(self, key: str) -> None:
                raise Killed

        with pytest.raises(Killed):
            await it.client.upload(large, "a", resume_store=Dying(tmp_path / "records"))
        kept = list((tmp_path / "records").iterdir())
        remembered = kept[0].read_bytes()
        del it.fake.media["a/large.wav"]
        stored = await it.client.upload(large, "a", resume_store=record)
        assert it.fake.media == {"a/large.wav": LARGE}
        assert stored.etag == it.fake.etags["a/large.wav"]
        kept[0].write_bytes(remembered)
        it.fake.put("a/large.wav", LARGE[::-1])
        with pytest.raises(Refused) as caught:
            await it.client.upload(large, "a", resume_store=record)
        assert caught.value.code == 501


@asynchronous
async def test_an_exception_of_the_progress_function_is_raised(talk: Any, large: Path) -> None:
    async with talk() as it:
        with pytest.raises(ZeroDivisionError):
            await it.client.upload(large, "a", progress=lambda done, size: done // 0)
        assert it.waits == []


@asynchronous
async def test_a_changed_file_is_not_resumed(talk: Any, large: Path, tmp_path: Path) -> None:
    record = UploadRecords(tmp_path / "records")
    async with talk(retries=Retries(times=0)) as it:
        it.fake.next("PATCH", cut_at=CUT)
        with pytest.raises(Unreachable):
            await it.client.upload(large, "a", resume_store=record)
        change(large)
        await it.client.upload(large, "a", resume_store=record)
        assert len(it.fake.asked("POST")) == 2
    assert it.fake.media == {"a/large.wav": LARGE[::-1]}


@asynchronous
async def test_a_file_that_shrinks_while_it_is_sent_is_a_failure(talk: Any, large: Path) -> None:
    def shrink(sent: int, size: int) -> None:
        os.truncate(large, CUT)

    async with talk() as it:
        with pytest.raises(LocalFailure, match="has changed while it was being sent"):
            await it.client.upload(large, "a", progress=shrink)
    assert it.fake.media == {}


@asynchronous
async def test_a_file_that_changes_while_it_is_sent_is_a_failure(talk: Any, small: Path) -> None:
    def change_it(sent: int, size: int) -> None:
        small.write_bytes(b"x" * size)

    async with talk() as it:
        with pytest.raises(LocalFailure, match="has changed while it was being sent"):
            await it.client.upload(small, "a", progress=change_it)
    assert it.fake.media == {}


@pytest.mark.parametrize("file", ["small", "large"])
@asynchronous
async def test_a_file_that_grows_while_it_is_sent_is_a_failure(
    talk: Any, file: str, request: pytest.FixtureRequest
) -> None:
    """The service has the content from before: a recording that continues is incomplete there."""
    path: Path = request.getfixturevalue(file)

    def grow(sent: int, size: int) -> None:
        with path.open("ab") as growing:
            growing.write(b"more")

    async with talk() as it:
        with pytest.raises(LocalFailure, match="has changed while it was being sent"):
            await it.client.upload(path, "a", progress=grow)


@asynchronous
async def test_a_cancelled_upload_closes_its_connection_and_its_file(
    talk: Any, large: Path
) -> None:
    """A fixture of all tests checks that the file is closed."""
    async with talk() as it:
        it.fake.hold_at = CUT
        upload = it.client.upload(large, "a")
        await it.fake.held
        [connection] = it.fake.connections
        upload.cancel()
        with pytest.raises(CancelledError):
            await upload
        connection.transport.resumeProducing()
        await connection.lost
    assert it.waits == []


@asynchronous
async def test_an_upload_that_is_cancelled_at_once_sends_nothing(talk: Any, large: Path) -> None:
    async with talk() as it:
        upload = it.client.upload(large, "a")
        upload.cancel()
        with pytest.raises(CancelledError):
            await upload
        assert it.fake.heard == []


# Replacing.


@asynchronous
async def test_a_file_is_replaced_if_it_has_the_entity_tag(talk: Any, small: Path) -> None:
    async with talk() as it:
        etag = it.fake.put("a/b.wav", b"old")
        replaced = await it.client.replace(small, "a", "b.wav", etag)
        assert replaced.replaced
        with pytest.raises(Refused) as caught:
            await it.client.replace(small, "a", "b.wav", etag)
        assert (await it.client.replace(small, "a", "b.wav", "*")).replaced
        assert caught.value.status == 412
        with pytest.raises(Refused):
            await it.client.replace(small, "a", "none.wav", "*")
    assert it.fake.media == {"a/b.wav": SMALL}


@asynchronous
async def test_a_replacement_succeeds_after_a_lost_response(talk: Any, small: Path) -> None:
    async with talk() as it:
        it.fake.knows_digests = False
        etag = it.fake.put("a/b.wav", b"old")
        it.fake.next("PUT", is_lost=True)
        replaced = await it.client.replace(small, "a", "b.wav", etag)
        assert replaced.replaced
        assert replaced.etag == it.fake.etags["a/b.wav"]
        assert len(it.fake.asked("PUT")) == 1


@asynchronous
async def test_matches_compares_the_digest(talk: Any, small: Path) -> None:
    holds: Callable[..., Any]
    async with talk() as it:
        holds = it.client.matches
        assert await holds(small, "a", "b.wav") is None
        for knows in (True, False):
            it.fake.knows_digests = knows
            it.fake.put("a/b.wav", SMALL)
            assert await holds(small, "a", "b.wav") is True
            for other in (SMALL[::-1], SMALL[1:]):
                it.fake.put("a/b.wav", other)
                assert await holds(small, "a", "b.wav") is False
        it.fake.put("x/y/z.wav", SMALL)
        with pytest.raises(Refused, match="a directory has this name"):
            await holds(small, "x", "y")


@pytest.mark.parametrize(
    ("etag", "why"),
    [
        ("ab", "must have double quotes at both ends"),
        ('"', "must have double quotes at both ends"),
        ('"\u00fc"', "visible ASCII characters"),
        ('"a\nb"', "visible ASCII characters"),
        ('"a", "b"', "one entity tag only"),
        ('W/"abc"', "a weak one, which never matches"),
    ],
)
def test_an_entity_tag_that_cannot_be_used_is_refused_with_the_reason(etag: str, why: str) -> None:
    with pytest.raises(LocalFailure, match=why):
        check_etag(etag)
