"""Downloads that broke off, finished by curl and wget; and a file that was replaced meanwhile."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.live.recording import Recorder, recording
from tests.live.support import clean_environment, curl
from tests.process.running import Process

OLD = Random(1).randbytes(3_000_000)
NEW = Random(2).randbytes(4_000_000)
CUT = 1_234_567
LONG_AGO_S = 1_000_000_000


@pytest.fixture
def recorder(service: Process) -> Iterator[Recorder]:
    with recording(service.port) as recorder:
        yield recorder


@pytest.fixture
def target(service: Process, folder: str) -> str:
    """Where OLD is stored."""
    target = f"/media/{folder}/a.wav"
    assert service.ask("PUT", target, OLD).status == 201
    return target


@pytest.fixture
def url(recorder: Recorder, target: str) -> str:
    return f"http://127.0.0.1:{recorder.port}{target}"


def replace(service: Process, target: str) -> None:
    """OLD by NEW."""
    etag = service.ask("HEAD", target).headers["ETag"]
    answer = service.ask("PUT", target, NEW, {"If-Match": etag})
    assert answer.json["files"][0]["replaced"] is True, answer


def wget(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The program, with these arguments, in the folder `cwd`."""
    return subprocess.run(
        ["wget", "--no-config", "--no-verbose", "--waitretry=0", "-T", "20", *arguments],
        cwd=cwd,
        env=clean_environment() | {"LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )


def begun_by_curl(recorder: Recorder, url: str, tmp_path: Path) -> Path:
    """A copy of which the connection broke off, beside it the tag of the file."""
    recorder.cut_at = CUT
    done = curl("--etag-save", "etag", "-o", "copy", url, cwd=tmp_path)
    assert done.exit == 18, done  # a part of the file only
    assert (tmp_path / "copy").read_bytes() == OLD[:CUT]
    return tmp_path / "copy"


def test_curl_fetches_what_is_missing_and_no_more(
    recorder: Recorder, url: str, tmp_path: Path
) -> None:
    copy = begun_by_curl(recorder, url, tmp_path)
    done = curl("-C", "-", "-o", "copy", url, cwd=tmp_path)
    assert (done.exit, done.status) == (0, 206), done
    assert copy.read_bytes() == OLD
    assert [exchange.brief for exchange in recorder.exchanges] == [
        (None, 200),
        (f"bytes={CUT}-", 206),
    ]
    assert [exchange.passed for exchange in recorder.exchanges] == [CUT, len(OLD) - CUT]


def test_curl_with_the_tag_never_mixes_two_files(
    service: Process, recorder: Recorder, target: str, url: str, tmp_path: Path
) -> None:
    """If-Range: the rest while the file is the same, the whole when it is another. The whole is not
    what curl came for, so it stops before it has written any.
    """
    copy = begun_by_curl(recorder, url, tmp_path)
    tag = (tmp_path / "etag").read_text(encoding="ascii").strip()
    resume = ("-C", "-", "-H", f"If-Range: {tag}", "-o", "copy", url)
    replace(service, target)
    done = curl(*resume, cwd=tmp_path)
    assert (done.exit, done.status) == (33, 200), done
    assert copy.read_bytes() == OLD[:CUT]
    assert curl("--etag-save", "etag", "-o", "copy", url, cwd=tmp_path).exit == 0
    assert copy.read_bytes() == NEW
    with copy.open("r+b") as file:
        file.truncate(CUT)
    tag = (tmp_path / "etag").read_text(encoding="ascii").strip()
    resume = ("-C", "-", "-H", f"If-Range: {tag}", "-o", "copy", url)
    done = curl(*resume, cwd=tmp_path)
    assert (done.exit, done.status) == (0, 206), done
    assert copy.read_bytes() == NEW


def test_what_curl_does_without_the_tag_is_its_own_fault(
    service: Process, recorder: Recorder, target: str, url: str, tmp_path: Path
) -> None:
    """It asks for bytes of whatever is there now, and gets them."""
    copy = begun_by_curl(recorder, url, tmp_path)
    replace(service, target)
    done = curl("-C", "-", "-o", "copy", url, cwd=tmp_path)
    assert (done.exit, done.status) == (0, 206), done
    assert copy.read_bytes() == OLD[:CUT] + NEW[CUT:]


def test_curl_asks_with_the_tag_whether_there_is_something_new(
    service: Process, recorder: Recorder, target: str, url: str, tmp_path: Path
) -> None:
    ask = ("--etag-compare", "etag", "--etag-save", "etag", "-o", "copy", url)
    told = [curl(*ask, cwd=tmp_path) for _ in range(2)]
    replace(service, target)
    told += [curl(*ask, cwd=tmp_path) for _ in range(2)]
    assert [(done.exit, done.status) for done in told] == [(0, 200), (0, 304)] * 2
    assert (tmp_path / "copy").read_bytes() == NEW


def test_wget_goes_on_where_a_connection_broke_off(
    recorder: Recorder, url: str, tmp_path: Path
) -> None:
    """At once, by itself; and when it is called again, with -c."""
    recorder.cut_at = CUT
    done = wget("-O", "copy", url, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "copy").read_bytes() == OLD
    both = [(None, 200), (f"bytes={CUT}-", 206)]
    assert [exchange.brief for exchange in recorder.exchanges] == both

    recorder.cut_at = CUT
    assert wget("--tries=1", url, cwd=tmp_path).returncode != 0
    assert (tmp_path / "a.wav").read_bytes() == OLD[:CUT]
    done = wget("-c", url, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "a.wav").read_bytes() == OLD
    assert [exchange.brief for exchange in recorder.exchanges] == both * 2


def test_wget_fetches_nothing_of_what_is_complete(
    recorder: Recorder, url: str, tmp_path: Path
) -> None:
    (tmp_path / "a.wav").write_bytes(OLD)
    done = wget("-c", url, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    (exchange,) = recorder.exchanges
    assert exchange.brief == (f"bytes={len(OLD)}-", 416)
    assert (tmp_path / "a.wav").read_bytes() == OLD


def test_wget_asks_by_the_date_whether_there_is_something_new(
    service: Process, recorder: Recorder, target: str, url: str, tmp_path: Path
) -> None:
    """It gives its copy the date of Last-Modified, and asks with that date, which tells files apart
    that are not of the same second.
    """
    os.utime(service.root / target.removeprefix("/media/"), (LONG_AGO_S, LONG_AGO_S))
    done = [wget("-N", url, cwd=tmp_path) for _ in range(2)]
    assert [each.returncode for each in done] == [0, 0], done
    assert [exchange.status for exchange in recorder.exchanges] == [200, 304]
    replace(service, target)
    assert wget("-N", url, cwd=tmp_path).returncode == 0
    assert (tmp_path / "a.wav").read_bytes() == NEW
