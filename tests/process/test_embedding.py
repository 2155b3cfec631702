"""The tree among other resources: under a prefix, and under a Site that cannot stream."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urljoin

import pytest

from tests.process import embedded
from tests.process.exchange import MULTIPART, URLENCODED, chunked, form, head, part, request
from tests.process.running import Process

FORM = {"Content-Type": MULTIPART}
FIELDS = {"Content-Type": URLENCODED}


@pytest.fixture
def embed(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts a program that embeds the tree."""
    with ExitStack() as programs:

        def start(*arguments: str) -> Process:
            site, *prefix = arguments
            root = tmp_path / "area" / "media"
            root.parent.mkdir()
            command = [sys.executable, embedded.__file__, site, str(root), *prefix]
            process = Process(command, tmp_path, tmp_path / "program.log", root)
            programs.callback(process.kill)
            return process

        yield start


@pytest.mark.parametrize("prefix", ["api", "v1/for%20all/api"])
def test_urls_in_answers_carry_the_prefix(embed: Callable[..., Process], prefix: str) -> None:
    service = embed("MediaSite", prefix.replace("%20", " "))
    base = f"/{prefix}/media"
    put = service.ask("PUT", f"{base}/a/b%20c.wav", b"x")
    assert put.brief == (201, 200)
    assert put.headers["Location"] == put.files[0]["url"] == f"{base}/a/b%20c.wav"
    posted = service.ask(
        "POST", base, form(part("a", "d.wav", b"d"), part("a", "e.wav", b"")), FORM
    )
    assert [entry["url"] for entry in posted.files] == [f"{base}/a/d.wav", f"{base}/a/e.wav"]
    fields = service.ask("POST", base, b"directory=a&filename=f.wav&body=x", FIELDS)
    assert fields.headers["Location"] == f"{base}/a/f.wav"
    assert service.ask("GET", put.headers["Location"]).content == b"x"
    assert service.ask("HEAD", f"{base}/a/d.wav").headers["Content-Length"] == "1"
    assert service.ask("GET", "/media/a/d.wav").status == 404
    listed = service.ask("GET", f"{base}/a/").json["entries"]
    assert [entry["url"] for entry in listed] == [
        f"{base}/a/{name}" for name in ("b%20c.wav", "d.wav", "e.wav", "f.wav")
    ]
    assert service.ask("GET", f"{base}/").json["entries"] == [{"name": "a/", "url": f"{base}/a/"}]
    for directory in (base, f"{base}/a"):
        location = service.ask("GET", directory).headers["Location"]
        assert urljoin(directory, location) == f"{directory}/"
    assert service.ask("DELETE", f"{base}/a/d.wav").json["deleted"] is True
    assert service.ask("GET", f"/{prefix}/nowhere").brief == (404, 404)
    assert service.ask("GET", f"/{prefix}").status == 404


def test_other_resources_of_the_tree_behave_as_always(embed: Callable[..., Process]) -> None:
    service = embed("MediaSite")
    with service.connect() as connection:
        assert connection.ask("GET", "/echo").content == b"of its own"
        assert connection.ask("POST", "/echo", b"a=1&b=2", FIELDS).content == b"(7, [b'a', b'b'])"
        assert connection.ask("POST", "/echo", b"x" * 300_000).content == b"(300000, [])"
        connection.send(head("POST", "/echo", [("Transfer-Encoding", "chunked")]))
        connection.send(chunked([b"x" * 100, b"y"]))
        assert connection.answer().content == b"(101, [])"
        connection.send(
            head("POST", "/echo", [("Content-Length", "1"), ("Expect", "100-continue")])
        )
        assert connection.answer_head()[0] == 100
        connection.send(b"x")
        assert connection.answer().content == b"(1, [])"
        # and in turn with those that stream
        connection.send(request("PUT", "/api/media/a/b.wav", b"x" * 100_000))
        connection.send(request("POST", "/echo", b"x"))
        connection.send(request("GET", "/api/media/a/b.wav"))
        assert connection.answer().brief == (201, 200)
        assert connection.answer().content == b"(1, [])"
        assert connection.answer().content == b"x" * 100_000


def test_a_continue_does_not_overtake_the_answer_before_it(embed: Callable[..., Process]) -> None:
    """Case 46. All of it is there before the loop turns."""
    fields = [("Content-Length", "1"), ("Expect", "100-continue")]
    with embed("MediaSite").connect() as connection:
        connection.send(request("GET", "/echo") * 3 + head("POST", "/echo", fields))
        heads = []
        for _ in range(3):
            heads.append(connection.answer_head())
            assert connection.read(int(heads[-1][1]["Content-Length"] or 0)) == b"of its own"
        assert [status for status, _ in heads] == [200] * 3
        assert connection.answer_head()[0] == 100
        connection.send(b"x")
        assert connection.answer().content == b"(1, [])"


@pytest.mark.parametrize(
    ("method", "target", "content", "headers"),
    [
        ("PUT", "/api/media/a/b.wav", b"x", {}),
        ("POST", "/api/media", form(part("a", "b.wav", b"x")), FORM),
        ("POST", "/api/media", b"directory=a&filename=b.wav&body=x", FIELDS),
    ],
)
def test_under_a_site_that_cannot_stream_an_upload_is_a_fault_that_the_log_explains(
    embed: Callable[..., Process],
    method: str,
    target: str,
    content: bytes,
    headers: dict[str, str],
) -> None:
    """The row of the table of answers for 500: an incident and nothing else of ours."""
    service = embed("Site")
    before = len(service.log)
    with service.unchanged():
        answer = service.ask(method, target, content, headers)
        assert answer.brief == (500, 500)
        assert set(answer.json) == {"code", "reason", "incident"}
        shown = answer.content.decode()
        for secret in ("Traceback", "Error", str(service.root), "/", ".py"):
            assert secret not in shown
    lines = [
        line
        for line in service.log[before:].splitlines()
        if answer.json["incident"] in line or "Traceback" in line
    ]
    assert len(lines) == 1
    assert "MediaSite" in lines[0]


def test_under_a_site_that_cannot_stream_everything_else_works(
    embed: Callable[..., Process],
) -> None:
    service = embed("Site")
    (service.root / "a").mkdir()
    (service.root / "a" / "b.wav").write_bytes(b"0123456789")
    assert service.ask("GET", "/api/media/a/b.wav").content == b"0123456789"
    ranged = service.ask("GET", "/api/media/a/b.wav", headers={"Range": "bytes=-3"})
    assert (ranged.status, ranged.content) == (206, b"789")
    assert service.ask("DELETE", "/api/media/a/b.wav").json["deleted"] is True
    assert service.ask("GET", "/api/media/a/b.wav").brief == (404, 404)
