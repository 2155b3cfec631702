"""Deletes: by path, query and form, and during uploads and downloads of the same name."""

from __future__ import annotations

import os
import threading
from random import Random

import pytest

from tests.process.exchange import (
    MULTIPART,
    URLENCODED,
    chunked,
    form,
    head,
    part,
    request,
    urlencoded,
)
from tests.process.running import Process, eventually

FIELDS = {"Content-Type": URLENCODED}


def fields_of(folder: str, filename: str = "a.wav") -> bytes:
    return urlencoded(("directory", folder), ("filename", filename))


@pytest.mark.parametrize(
    ("target", "content"),
    [
        ("/media/{}/a.wav", None),
        ("/media/{}/a.wav?filename=other.wav", None),
        ("/media?directory={}&filename=a.wav", None),
        ("/media?filename=a.wav&directory={}%2F&other=1", None),
        ("/media", "directory={}&filename=a.wav"),
        ("/media", "other=x&filename=%61.wav&directory={}/"),
        ("/media?directory={}", "filename=a.wav"),
        ("/media?filename=a.wav", "directory={}"),
    ],
)
def test_a_file_is_deleted_once(
    service: Process, folder: str, target: str, content: str | None
) -> None:
    for filename in ("a.wav", "other.wav"):
        assert service.ask("PUT", f"/media/{folder}/{filename}", b"x").status == 201
    sent = None if content is None else content.format(folder).encode()
    headers = {} if content is None else FIELDS
    for deleted in (True, False):
        answer = service.ask("DELETE", target.format(folder), sent, headers)
        assert answer.brief == (200, 200)
        assert answer.json == {"code": 200, "reason": "OK", "deleted": deleted}
        assert os.listdir(service.root / folder) == ["other.wav"]
    assert service.ask("GET", f"/media/{folder}/a.wav").status == 404


def test_a_form_may_be_chunked(service: Process, folder: str) -> None:
    service.ask("PUT", f"/media/{folder}/a.wav", b"x")
    with service.connect() as connection:
        headers = [("Transfer-Encoding", "chunked"), *FIELDS.items()]
        pieces = chunked(bytes([byte]) for byte in fields_of(folder))
        connection.send(head("DELETE", "/media", headers) + pieces)
        assert connection.answer().json["deleted"] is True
        assert connection.ask("GET", f"/media/{folder}/a.wav").status == 404


@pytest.mark.parametrize("with_length", [True, False], ids=["with length", "chunked"])
def test_a_form_of_8_kib_is_accepted_and_a_larger_one_is_not(
    service: Process, folder: str, with_length: bool
) -> None:
    service.ask("PUT", f"/media/{folder}/a.wav", b"x")
    names = fields_of(folder)
    for size, brief in ((8193, (413, 506)), (8192, (200, 200))):
        content = names + b"&pad=" + b"x" * (size - len(names) - 5)
        assert len(content) == size
        with service.connect() as connection:
            if with_length:
                connection.send(request("DELETE", "/media", content, FIELDS))
            else:
                headers = [("Transfer-Encoding", "chunked"), *FIELDS.items()]
                connection.send(head("DELETE", "/media", headers) + chunked([content]))
            assert connection.answer().brief == brief
        assert (service.root / folder / "a.wav").exists() == (brief[0] != 200)


@pytest.mark.parametrize(
    ("target", "content", "brief"),
    [
        ("/media", "directory={0}&directory={0}&filename=a.wav", (400, 510)),
        ("/media?directory={0}", "directory={0}&filename=a.wav", (400, 510)),
        ("/media?directory={0}&directory={0}&filename=a.wav", None, (400, 510)),
        ("/media", "directory={0}&filename=a%zz.wav", (400, 510)),
        ("/media", "directory={0}", (400, 503)),
        ("/media", "filename=a.wav", (400, 503)),
        ("/media", "directory={0}&filename=", (400, 503)),
        ("/media", "directory={0}/..&filename=a.wav", (400, 505)),
        ("/media/{0}/../{0}/a.wav", None, (400, 505)),
        ("/media/{0}//a.wav", None, (400, 505)),
    ],
)
def test_a_delete_without_a_name_deletes_nothing(
    service: Process, folder: str, target: str, content: str | None, brief: tuple[int, int]
) -> None:
    service.ask("PUT", f"/media/{folder}/a.wav", b"x")
    with service.unchanged():
        sent = None if content is None else content.format(folder).encode()
        headers = {} if content is None else FIELDS
        answer = service.ask("DELETE", target.format(folder), sent, headers)
        assert answer.brief == brief


def test_a_multipart_form_deletes_nothing(service: Process, folder: str) -> None:
    service.ask("PUT", f"/media/{folder}/a.wav", b"x")
    content = form(part("directory", None, folder.encode()), part("filename", None, b"a.wav"))
    with service.unchanged():
        answer = service.ask("DELETE", "/media", content, {"Content-Type": MULTIPART})
        assert answer.brief == (415, 415)


def test_empty_folders_are_removed_and_others_stay(service: Process, folder: str) -> None:
    for name in ("a/b/c/one.wav", "a/b/two.wav", "three.wav"):
        assert service.ask("PUT", f"/media/{folder}/{name}", b"x").status == 201
    for name, left in {
        "a/b/c/one.wav": ["a", "a/b", "a/b/two.wav", "three.wav"],
        "a/b/two.wav": ["three.wav"],
    }.items():
        service.ask("DELETE", f"/media/{folder}/{name}")
        names = sorted(
            str(path.relative_to(service.root / folder))
            for path in (service.root / folder).rglob("*")
        )
        assert names == left
    service.ask("DELETE", f"/media/{folder}/three.wav")
    assert not (service.root / folder).exists()
    assert service.root.exists()


def test_a_directory_is_not_deleted(service: Process, folder: str) -> None:
    service.ask("PUT", f"/media/{folder}/a/b.wav", b"x")
    (service.root / folder / "empty").mkdir()
    with service.unchanged():
        for target in (
            f"/media/{folder}/",
            f"/media/{folder}/a",
            f"/media/{folder}/a/",
            f"/media/{folder}/empty",
            f"/media?directory={folder}&filename=a",
        ):
            assert service.ask("DELETE", target).brief == (409, 409)


def test_a_delete_does_not_affect_a_running_download(service: Process, folder: str) -> None:
    """Case 30."""
    content = Random(6).randbytes(32 << 20)
    url = f"/media/{folder}/a.wav"
    service.ask("PUT", url, content)
    with service.connect() as reader:
        reader.send(request("GET", url))
        _, headers = reader.answer_head()
        first = reader.read(1000)
        assert service.ask("DELETE", url).json["deleted"] is True
        assert service.ask("GET", url).status == 404
        assert service.ask("PUT", url, b"another").status == 201
        assert first + reader.read(int(headers["Content-Length"]) - 1000) == content
        assert reader.ask("GET", url).content == b"another"


def test_a_delete_does_not_affect_a_running_upload(service: Process, folder: str) -> None:
    """Case 30: there is no file to delete before the upload has ended."""
    url = f"/media/{folder}/a.wav"
    service.ask("PUT", f"/media/{folder}/other.wav", b"x")
    with service.connect() as sender:
        sender.send(head("PUT", url, [("Content-Length", "2000000")]) + b"x" * 1_500_000)
        assert service.ask("DELETE", url).json["deleted"] is False
        # its folder is removed and made again
        assert service.ask("DELETE", f"/media/{folder}/other.wav").json["deleted"] is True
        assert not (service.root / folder).exists()
        sender.send(b"x" * 500_000)
        assert sender.answer().brief == (201, 200)
    assert (service.root / folder / "a.wav").stat().st_size == 2_000_000


def test_uploads_and_deletes_in_one_folder_never_fail(service: Process, folder: str) -> None:
    """Case 30, upload during delete: the folder is removed and made at the same time."""
    answers: list[tuple[str, int]] = []

    def store_and_delete(own: int) -> None:
        with service.connect() as connection:
            for n in range(40):
                url = f"/media/{folder}/a/{n % 2}/{own}.wav"
                answers.append(("PUT", connection.ask("PUT", url, b"x").status))
                shown = connection.ask("GET", url)
                answers.append(("GET", shown.status if shown.content == b"x" else 0))
                deleted = connection.ask("DELETE", url)
                answers.append(("DELETE", deleted.status if deleted.json["deleted"] else 0))

    threads = [threading.Thread(target=store_and_delete, args=(own,)) for own in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8 * 40 * 3
    assert set(answers) == {("PUT", 201), ("GET", 200), ("DELETE", 200)}
    eventually("the last folder goes", lambda: not (service.root / folder).exists())


def test_of_simultaneous_deletes_one_deletes(service: Process, folder: str) -> None:
    for n in range(10):
        url = f"/media/{folder}/{n}.wav"
        service.ask("PUT", url, b"x")
        deleted: list[bool] = []
        ready = threading.Barrier(8)

        def delete(url: str = url, ready: threading.Barrier = ready) -> None:
            with service.connect() as connection:
                ready.wait()
                deleted.append(connection.ask("DELETE", url).json["deleted"])  # noqa: B023

        threads = [threading.Thread(target=delete) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(deleted) == [False] * 7 + [True]
