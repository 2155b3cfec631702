"""curl, as people use it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.live.support import Curled, curl
from tests.process.running import Process, drafts_in

SMALL = Random(1).randbytes(20_000)
LARGE = Random(2).randbytes((24 << 20) + 7)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Path]:
    """A folder with files to send."""
    (tmp_path / "small.wav").write_bytes(SMALL)
    (tmp_path / "large.wav").write_bytes(LARGE)
    yield tmp_path
    for file in tmp_path.iterdir():
        if file.is_file():
            file.unlink()


@pytest.fixture
def url(service: Process, folder: str) -> str:
    """Where this test stores."""
    return f"http://127.0.0.1:{service.port}/media/{folder}"


def assert_stored(done: Curled, path: Path, content: bytes) -> None:
    assert (done.exit, done.status) == (0, 201), done
    (entry,) = done.json["files"]
    assert entry["size"] == len(content)
    assert entry["sha256"] == hashlib.sha256(content).hexdigest()
    assert path.read_bytes() == content


def test_a_large_file_goes_up_after_100_continue(
    service: Process, folder: str, here: Path, url: str
) -> None:
    done = curl("-v", "-T", "large.wav", f"{url}/a.wav", cwd=here)
    assert "> Expect: 100-continue" in done.errors
    assert "< HTTP/1.1 100 Continue" in done.errors
    assert "Done waiting for 100-continue" not in done.errors  # which is said when it did not come
    assert_stored(done, service.root / folder / "a.wav", LARGE)


@pytest.mark.parametrize("behind", [False, True], ids=["before the file", "behind the file"])
def test_a_form_names_its_folder(service: Process, folder: str, here: Path, behind: bool) -> None:
    """Case 71."""
    fields = ["-F", "file=@small.wav", "-F", f"directory={folder}"]
    form = f"http://127.0.0.1:{service.port}/media"
    done = curl(*(fields if behind else fields[2:] + fields[:2]), form, cwd=here)
    assert_stored(done, service.root / folder / "small.wav", SMALL)


def test_a_form_names_its_one_file(service: Process, folder: str, here: Path) -> None:
    """Case 71: a page's Blob has no name of its own."""
    sha256 = hashlib.sha256(SMALL).hexdigest()
    fields = ("file=@small.wav;filename=blob", f"directory={folder}", "filename=\U0001f3b5 ü.wav")
    sent = [option for field in (*fields, f"sha256={sha256}") for option in ("-F", field)]
    done = curl(*sent, f"http://127.0.0.1:{service.port}/media", cwd=here)
    assert_stored(done, service.root / folder / "\U0001f3b5 ü.wav", SMALL)


def test_a_part_in_base64_is_refused_by_name(service: Process, folder: str, here: Path) -> None:
    """Case 52: curl encodes it itself."""
    with service.unchanged():
        form = f"{folder}=@small.wav;encoder=base64"
        done = curl("-F", form, f"http://127.0.0.1:{service.port}/media", cwd=here)
        assert done.brief == (415, 415), done
    assert "Content-Transfer-Encoding 'base64'" in done.json["reason"]


def test_a_name_that_is_taken_is_refused_before_the_content_is_sent(
    service: Process, folder: str, here: Path, url: str
) -> None:
    assert curl("-T", "small.wav", f"{url}/a.wav", cwd=here).status == 201
    done = curl("-v", "-T", "large.wav", f"{url}/a.wav", cwd=here)
    assert done.brief == (409, 501), done
    assert "100 Continue" not in done.errors
    assert done.sent == 0
    assert (service.root / folder / "a.wav").read_bytes() == SMALL


def test_a_file_over_the_limit_is_refused_before_the_content_is_sent(
    service: Process, folder: str, here: Path, url: str
) -> None:
    with (here / "huge.wav").open("wb") as file:
        file.truncate((2 << 30) + 1)
    with service.unchanged():
        done = curl("-T", "huge.wav", f"{url}/a.wav", cwd=here)
        assert done.brief == (413, 506), done
        assert done.sent == 0


def test_an_upload_cannot_be_resumed_and_the_attempt_changes_nothing(
    service: Process, folder: str, here: Path, url: str
) -> None:
    """`curl -C` with an offset sends the rest with a Content-Range."""
    with service.unchanged():
        done = curl("-C", "5000", "-T", "small.wav", f"{url}/a.wav", cwd=here)
        assert done.brief == (400, 400), done
        assert "Content-Range" in done.json["reason"]
    assert curl("-T", "small.wav", f"{url}/a.wav", cwd=here).status == 201
    done = curl("-C", "5000", "-T", "small.wav", f"{url}/a.wav", cwd=here)
    assert done.brief == (400, 400), done
    assert (service.root / folder / "a.wav").read_bytes() == SMALL


def test_what_curl_does_to_resume_without_an_offset_never_changes_a_file(
    service: Process, folder: str, here: Path, url: str
) -> None:
    """With `-C -` curl sends the whole again over HTTP, as it cannot know how much is there."""
    assert curl("-T", "small.wav", f"{url}/a.wav", cwd=here).status == 201
    done = curl("-C", "-", "-T", "large.wav", f"{url}/a.wav", cwd=here)
    assert done.brief in [(409, 501), (400, 400)], done
    assert (service.root / folder / "a.wav").read_bytes() == SMALL


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("0-3", LARGE[:4]),
        ("0-0", LARGE[:1]),
        ("0-1", LARGE[:2]),
        ("1000000-5000000", LARGE[1_000_000:5_000_001]),
        (f"{len(LARGE) - 1}-", LARGE[-1:]),
        (f"{len(LARGE) - 10}-99999999999", LARGE[-10:]),
        ("-7", LARGE[-7:]),
        ("-99999999999", LARGE),
    ],
)
def test_a_range_is_those_bytes(here: Path, url: str, asked: str, expected: bytes) -> None:
    """Cases 21 and 45."""
    assert curl("-T", "large.wav", f"{url}/a.wav", cwd=here).status == 201
    done = curl("-r", asked, f"{url}/a.wav", cwd=here)
    assert (done.exit, done.status) == (0, 206), done.errors
    assert done.content == expected


def test_a_range_behind_the_end_is_416(here: Path, url: str) -> None:
    """Case 21."""
    assert curl("-T", "small.wav", f"{url}/a.wav", cwd=here).status == 201
    assert curl("-r", f"{len(SMALL)}-", f"{url}/a.wav", cwd=here).brief == (416, 416)


def test_head_tells_of_the_file_what_get_does(here: Path, url: str) -> None:
    assert curl("-T", "small.wav", f"{url}/a.wav", cwd=here).status == 201
    done = curl("-I", f"{url}/a.wav", cwd=here)
    assert (done.exit, done.status) == (0, 200)
    lines = done.content.decode().split("\r\n")
    expected = {f"Content-Length: {len(SMALL)}", "Content-Type: audio/wav", "Accept-Ranges: bytes"}
    assert expected <= set(lines)
    shown = curl("-i", f"{url}/a.wav", cwd=here)
    head, _, content = shown.content.partition(b"\r\n\r\n")
    assert content == SMALL
    named = [line.partition(":")[0] for line in head.decode().split("\r\n")]
    assert named == [line.partition(":")[0] for line in lines if line]


def test_a_download_that_broke_off_is_resumed_byte_for_byte(here: Path, url: str) -> None:
    assert curl("-T", "large.wav", f"{url}/a.wav", cwd=here).status == 201
    copy = here / "copy.wav"
    slow = curl("--limit-rate", "4M", "-m", "2", "-o", str(copy), f"{url}/a.wav", cwd=here)
    assert slow.exit == 28  # its time was up
    begun = copy.stat().st_size
    assert 0 < begun < len(LARGE)
    done = curl("-C", "-", "-o", str(copy), f"{url}/a.wav", cwd=here)
    assert (done.exit, done.status) == (0, 206), done
    assert copy.read_bytes() == LARGE
    assert done.counted["size_download"] == len(LARGE) - begun
    # and what is complete is not fetched again
    done = curl("-C", "-", "-o", str(copy), f"{url}/a.wav", cwd=here)
    assert done.status == 416
    assert copy.read_bytes() == LARGE


def test_a_slow_upload_is_stored(service: Process, folder: str, here: Path, url: str) -> None:
    done = curl("--limit-rate", "8k", "-T", "small.wav", f"{url}/a.wav", cwd=here)
    assert done.counted["time_total"] > 1
    assert_stored(done, service.root / folder / "a.wav", SMALL)


def test_a_slow_upload_that_its_client_gives_up_leaves_nothing(
    service: Process, here: Path, url: str
) -> None:
    """Case 1."""
    with service.unchanged():
        for upload in (["-T", "large.wav", f"{url}/a.wav"], ["-F", "x=@large.wav", f"{url}/.."]):
            done = curl("--limit-rate", "4M", "-m", "2", *upload, cwd=here)
            assert done.exit == 28
            assert done.sent > 0


def test_http_1_0_can_store_and_read(service: Process, folder: str, here: Path, url: str) -> None:
    done = curl("--http1.0", "-T", "large.wav", f"{url}/a.wav", cwd=here)
    assert_stored(done, service.root / folder / "a.wav", LARGE)
    done = curl("--http1.0", f"{url}/a.wav", cwd=here)
    assert (done.exit, done.status) == (0, 200)
    assert done.content == LARGE


@pytest.mark.parametrize("name", ["small.wav", "large.wav"])
def test_what_comes_from_a_pipe_is_stored(
    service: Process, folder: str, here: Path, url: str, name: str
) -> None:
    """Case 8: chunked, without a length."""
    done = curl("-v", "-T", "-", f"{url}/{name}", cwd=here, stdin=here / name)
    assert "> Transfer-Encoding: chunked" in done.errors
    assert_stored(done, service.root / folder / name, (here / name).read_bytes())


def test_many_files_go_over_one_connection(
    service: Process, folder: str, here: Path, url: str
) -> None:
    for n in range(5):
        (here / f"{n}.wav").write_bytes(SMALL[n:])
    done = curl("-v", "-T", "{0,1,2,3,4}.wav", f"{url}/", cwd=here)
    assert done.errors.count("Connected to") == 1, done.errors
    assert done.errors.count("< HTTP/1.1 201") == 5
    for n in range(5):
        assert (service.root / folder / f"{n}.wav").read_bytes() == SMALL[n:]
    assert drafts_in(service.root) == []
