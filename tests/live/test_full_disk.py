"""A disk that is full, has no inodes left or is read-only: an answer that says so, nothing left
behind, and a service that goes on.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import rmtree

import pytest

from tests.live.conftest import Disk
from tests.live.support import content_of, curl
from tests.process.exchange import MULTIPART, Answer, chunked, form, head, part, request
from tests.process.running import Process, drafts_in, eventually, running
from tests.process.storage import Storage, assert_told

MIB = 1 << 20
READ_ONLY = "the storage cannot be written: read-only file system"
ANOTHER = (
    "another folder is in the place of its root; mount the right one, or start the service again"
    " to use this one"
)


@contextmanager
def leaves_nothing(disk: Disk, service: Process) -> Iterator[None]:
    """What happens in this context takes no block and no inode in the end, and no name stays."""
    free, tree = disk.free, service.tree()
    yield
    eventually(f"{disk.free} is {free}", lambda: disk.free == free)
    assert service.tree() == tree
    assert drafts_in(service.root) == []


def assert_works(service: Process) -> None:
    """The next requests work, one after the other: store, read, delete."""
    assert service.ask("PUT", "/media/next/a.wav", b"RIFF").brief == (201, 200)
    assert service.ask("GET", "/media/next/a.wav").content == b"RIFF"
    answer = service.ask("DELETE", "/media/next/a.wav")
    assert answer.brief == (200, 200)
    assert answer.json["deleted"] is True


def test_an_upload_that_is_known_not_to_fit_is_refused_before_its_content(
    small_disk: Callable[..., Disk], tmp_path: Path
) -> None:
    """Case 10."""
    disk = small_disk("size=48m")
    (tmp_path / "large.wav").write_bytes(bytes(64 * MIB))
    with running(disk.path) as service:
        with leaves_nothing(disk, service):
            url = f"http://127.0.0.1:{service.port}/media/new/folders/a.wav"
            done = curl("-v", "-T", "large.wav", url, cwd=tmp_path)
            assert done.brief == (507, 507), done
            assert done.sent == 0
            assert "100 Continue" not in done.errors
        assert_works(service)


@pytest.mark.parametrize("way", ["chunked", "multipart", "urlencoded"])
def test_an_upload_of_unknown_length_that_turns_out_not_to_fit_is_refused(
    small_disk: Callable[..., Disk], tmp_path: Path, way: str
) -> None:
    """Case 10: the disk is full in the middle. A file that was there is served, and deleted."""
    disk = small_disk("size=48m")
    large = tmp_path / "large.wav"
    large.write_bytes(bytes(64 * MIB))
    with running(disk.path) as service:
        base = f"http://127.0.0.1:{service.port}/media"
        assert service.ask("PUT", "/media/before/a.wav", bytes(MIB)).status == 201
        with leaves_nothing(disk, service):
            if way == "chunked":
                done = curl("-T", "-", f"{base}/new/folders/a.wav", cwd=tmp_path, stdin=large)
            elif way == "multipart":
                done = curl("-F", "new/folders=@large.wav", base, cwd=tmp_path)
            else:
                names = ["-d", "directory=new/folders", "-d", "filename=a.wav"]
                done = curl(*names, "--data-binary", "@body", base, cwd=fields_in(tmp_path))
            assert done.brief == (507, 507), done
        assert service.ask("GET", "/media/before/a.wav").content == bytes(MIB)
        assert service.ask("DELETE", "/media/before/a.wav").json["deleted"] is True
        assert_works(service)


def fields_in(folder: Path) -> Path:
    """The folder, with an urlencoded field in the file `body` that is too large for the disk."""
    (folder / "body").write_bytes(b"body=" + b"a" * (64 * MIB))
    return folder


def test_a_part_that_does_not_fit_does_not_hold_up_the_others(
    small_disk: Callable[..., Disk],
) -> None:
    disk = small_disk("size=8m")
    content = form(
        part("a", "before.wav", b"before" * 1000),
        part("b/c", "large.wav", bytes(16 * MIB)),
        part("a", "after.wav", b"after" * 1000),
    )
    with running(disk.path) as service:
        answer = service.ask("POST", "/media", content, {"Content-Type": MULTIPART})
        assert answer.brief == (207, 507)
        assert [entry["code"] for entry in answer.files] == [200, 507, 200]
        assert service.tree() == ["a", "a/after.wav", "a/before.wav"]
        assert (disk.path / "a" / "before.wav").read_bytes() == b"before" * 1000
        assert (disk.path / "a" / "after.wav").read_bytes() == b"after" * 1000
        assert_works(service)


def test_a_full_disk_can_be_read_and_deleted_from(small_disk: Callable[..., Disk]) -> None:
    """Cases 10 and 26."""
    disk = small_disk("size=8m")
    with running(disk.path) as service:
        empty = disk.free
        with (disk.path / "filler").open("wb", buffering=0) as filler:
            filler.write(bytes(7 * MIB))
            kept = 16_000
            assert service.ask("PUT", "/media/a/b/kept.wav", bytes(kept)).status == 201
            while disk.free[0]:
                filler.write(bytes(4096))
        with leaves_nothing(disk, service):
            for size in (1, 5000, 2 * MIB):
                assert service.ask("PUT", "/media/a/b/new.wav", bytes(size)).brief == (507, 507)
                assert service.ask("PUT", "/media/other/new.wav", bytes(size)).brief == (507, 507)
        assert service.ask("GET", "/media/a/b/kept.wav").content == bytes(kept)
        assert service.ask("PUT", "/media/a/b/kept.wav", b"RIFF").code in (501, 507)
        assert service.ask("DELETE", "/media/a/b/kept.wav").json["deleted"] is True
        # Its blocks are free once the download above has closed it as well.
        eventually("there is room again", lambda: disk.free[0] * 4096 >= kept)
        assert_works(service)
        (disk.path / "filler").unlink()
        eventually("all is free again", lambda: disk.free == empty)


@pytest.mark.parametrize("declared", [True, False])
def test_uploads_that_only_together_exceed_the_disk_are_stored_as_far_as_they_fit(
    small_disk: Callable[..., Disk], declared: bool
) -> None:
    """Case 11. The disk has room for twelve at most, and a little more; all have sent half before
    any goes on.
    """
    disk = small_disk("size=49m")
    clients = 20
    size = 4 * MIB
    contents = [content_of(str(n), 11, size, size) for n in range(clients)]
    answers: list[Answer | None] = [None] * clients
    line = threading.Barrier(clients, timeout=30)
    with running(disk.path) as service:
        free = disk.free

        def run(n: int) -> None:
            target = f"/media/parallel/{n}/a.wav"
            if declared:
                data = request("PUT", target, contents[n])
            else:
                pieces = [contents[n][at : at + 65_536] for at in range(0, size, 65_536)]
                data = head("PUT", target, [("Transfer-Encoding", "chunked")]) + chunked(pieces)
            with service.connect(60) as connection:
                connection.send(data[: size // 2])
                line.wait()
                with suppress(BrokenPipeError, ConnectionResetError):  # refused, and told why
                    connection.send(data[size // 2 :])
                answers[n] = connection.answer()

        threads = [threading.Thread(target=run, args=(n,)) for n in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(90)
        told = Counter(answer.brief if answer is not None else None for answer in answers)
        assert told[201, 200] + told[507, 507] == clients, told
        if declared:
            assert told[201, 200] >= 10
        # Those that do not say how large they are may fill it up together, and all be refused.
        assert told[507, 507] >= clients - 12
        stored = [
            n for n, answer in enumerate(answers) if answer is not None and answer.code == 200
        ]
        files = [f"parallel/{n}/a.wav" for n in stored]
        assert [name for name in service.tree() if name.endswith(".wav")] == sorted(files)
        assert len([name for name in service.tree() if name[-1].isdigit()]) == len(stored)
        for n in stored:
            assert (disk.path / f"parallel/{n}/a.wav").read_bytes() == contents[n]
        blocks = len(stored) * size // 4096
        eventually("only they take space", lambda: disk.free[0] == free[0] - blocks)
        assert drafts_in(service.root) == []
        assert_works(service)
        for name in files:
            assert service.ask("DELETE", f"/media/{name}").json["deleted"] is True
        eventually("all is free again", lambda: disk.free == free)
        assert service.tree() == []


def test_a_disk_without_inodes_refuses_and_recovers(small_disk: Callable[..., Disk]) -> None:
    """Case 14."""
    disk = small_disk("size=48m,nr_inodes=24")
    with running(disk.path) as service:
        _, inodes = disk.free
        with leaves_nothing(disk, service):  # folders need more of them than there are
            deep = "/".join("abcdefghijklmnopqrstuvwxyz")
            assert service.ask("PUT", f"/media/{deep}/a.wav", b"RIFF").brief == (507, 507)
        stored = 0
        while disk.free[1]:
            brief = service.ask("PUT", f"/media/many/{stored}.wav", b"RIFF").brief
            assert brief == (201, 200), (stored, disk.free)
            stored += 1
            # A tmpfs may count the attributes of a file as well, as parts of an inode.
            assert stored < inodes
        assert stored > inodes // 3
        with leaves_nothing(disk, service):
            assert service.ask("PUT", "/media/many/more.wav", b"RIFF").brief == (507, 507)
            assert service.ask("PUT", "/media/other/more.wav", b"RIFF").brief == (507, 507)
            content = form(part("many", "x.wav", b"RIFF"), part("new", "y.wav", bytes(2 * MIB)))
            answer = service.ask("POST", "/media", content, {"Content-Type": MULTIPART})
            assert answer.brief == (507, 507)
        assert service.ask("GET", "/media/many/0.wav").content == b"RIFF"
        for n in (0, 1):
            assert service.ask("DELETE", f"/media/many/{n}.wav").json["deleted"] is True
        eventually("two inodes are free again", lambda: disk.free[1] >= 2)
        assert_works(service)
        assert len(service.tree()) == 1 + stored - 2


def test_a_disk_that_turns_read_only_refuses_and_recovers(
    small_disk: Callable[..., Disk],
) -> None:
    """Cases 14, 79 and 92: every change says why not, what is there is served, and the service is
    well again as soon as the disk is.
    """
    disk = small_disk("size=48m")
    with running(disk.path, "--fetch-allow", "127.0.0.0/8") as service:
        storage = Storage(service)
        assert service.ask("GET", "/health").json["storage"] == "ok"
        disk.remount("ro")
        with leaves_nothing(disk, service):
            for name, change in storage.changes().items():
                assert_told(name, change(), READ_ONLY)
            for name, look in storage.looks().items():
                if "how far" in name:  # what it says is on the disk, which has to be noted there
                    assert_told(name, look(), READ_ONLY)
                else:
                    assert look().status == (404 if "missing" in name else 200), name
        eventually("it is known", lambda: told_by(service) == READ_ONLY)
        assert service.ask("GET", "/ready").status == 200  # reading works
        disk.remount("rw")
        eventually("it is well", lambda: told_by(service) == "ok")
        storage.is_well()
        assert service.log.count(f"] {READ_ONLY}") == 1, service.log


def test_a_service_on_a_read_only_disk_starts_and_says_so(
    small_disk: Callable[..., Disk],
) -> None:
    """Case 79."""
    disk = small_disk("size=48m")
    with running(disk.path) as service:
        assert service.ask("PUT", "/media/before/a.wav", b"RIFF").status == 201
    disk.remount("ro")
    with running(disk.path) as service:
        assert told_by(service) == READ_ONLY
        assert service.ask("GET", "/ready").status == 200
        assert service.ask("GET", "/media/before/a.wav").content == b"RIFF"
        assert_told("put", service.ask("PUT", "/media/new/a.wav", b"RIFF"), READ_ONLY)
        disk.remount("rw")
        assert_works(service)
        eventually("it is well", lambda: told_by(service) == "ok")


def test_a_disk_that_is_unmounted_gets_nothing_more(small_disk: Callable[..., Disk]) -> None:
    """Cases 79 and 92: lazily, so the service still holds what nobody else can see. Below the place
    where it was mounted there is an empty folder.
    """
    disk = small_disk("size=48m")
    with running(disk.path) as service:
        assert service.ask("PUT", "/media/before/a.wav", b"RIFF").status == 201
        disk.detach()
        for doing, answer in {
            "written": service.ask("PUT", "/media/new/a.wav", b"RIFF"),
            "read": service.ask("GET", "/media/before/missing.wav"),
        }.items():
            assert_told("put", answer, f"the storage cannot be {doing}: {ANOTHER}")
        assert service.ask("GET", "/ready").brief == (503, 515)
        assert told_by(service) == f"the storage cannot be read: {ANOTHER}"
        assert list(disk.path.iterdir()) == []


def test_a_disk_that_is_mounted_over_the_root_gets_nothing(
    small_disk: Callable[..., Disk], tmp_path: Path
) -> None:
    """Case 79: a service that was started before its disk was mounted stores nothing below it."""
    root = tmp_path / "area" / "media"
    with running(root) as service:
        disk = small_disk("size=48m")
        answer = service.ask("PUT", "/media/new/a.wav", b"RIFF")
        assert_told("put", answer, f"the storage cannot be written: {ANOTHER}")
        assert service.ask("GET", "/ready").brief == (503, 515)
        disk.detach()
        eventually("it is ready", lambda: service.ask("GET", "/ready").status == 200)
        assert_works(service)


def test_a_root_that_is_removed_is_told(small_disk: Callable[..., Disk], tmp_path: Path) -> None:
    """Case 92: on a file system that is another than the tests' own."""
    disk = small_disk("size=48m")
    root = disk.path / "below" / "media"
    with running(root, "--fetch-allow", "127.0.0.0/8") as service:
        storage = Storage(service)
        rmtree(root)
        gone = "its root folder is gone"
        for name, change in storage.changes().items():
            doing = "read" if name == "patch" else "written"  # whose record is read first
            assert_told(name, change(), f"the storage cannot be {doing}: {gone}")
        assert told_by(service) == f"the storage cannot be read: {gone}"


def told_by(service: Process) -> str:
    """What /health says of the storage."""
    return str(service.ask("GET", "/health").json["storage"])
