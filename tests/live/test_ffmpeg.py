"""ffmpeg as people push recordings with it: it sends what it encodes, and closes the connection
after the last chunk without waiting for the response (case 51).
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.support import clean_environment
from tests.process.running import Process, eventually, running

SECONDS = 3
RATE = 44_100  # lavfi's sine has this many samples a second
TIMES = 20
# Encoders add silence before and after: up to two MP3 frames at the start, one at the end.
MARGIN_S = 0.1


@pytest.fixture(scope="module")
def taking_ogg(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    root = tmp_path_factory.mktemp("ffmpeg") / "area" / "media"
    with running(root, "--formats", "mp3,wav,ogg,flac") as process:
        yield process


def ffmpeg(*arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    """Run it with these arguments."""
    return subprocess.run(
        ["ffmpeg", "-nostdin", "-v", "error", *arguments],
        env=clean_environment(),
        capture_output=True,
        timeout=60,
        check=False,
    )


def tone(kind: str, to: str | Path, *options: str) -> tuple[str | Path, ...]:
    """The arguments to send a tone to a URL, or to write it to a file."""
    made = ("-f", "lavfi", "-i", f"sine=duration={SECONDS}")
    return (*made, "-flags", "+bitexact", "-fflags", "+bitexact", "-f", kind, *options, to)


def push(kind: str, to: str | Path, *options: str) -> None:
    """Send a tone; ffmpeg has to be content."""
    done = ffmpeg(*tone(kind, to, *options))
    assert done.returncode == 0, done.stderr.decode()


def seconds_of(path: Path) -> float:
    """How long it is when it is decoded, whatever its header says."""
    done = ffmpeg("-i", path, "-f", "s16le", "-ac", "1", "-ar", str(RATE), "-")
    assert done.returncode == 0, done.stderr.decode()
    return len(done.stdout) / 2 / RATE


def stored(service: Process, name: str) -> Path:
    """The file that ffmpeg has sent before it ended; the service may not have published it yet."""
    path = service.root / name
    eventually(f"{name} is stored", path.exists)
    return path


@pytest.mark.parametrize(
    "kind",
    ["mp3", *(pytest.param(kind, marks=pytest.mark.long) for kind in ("wav", "ogg", "flac"))],
)
def test_what_ffmpeg_pushes_is_stored_each_time(taking_ogg: Process, kind: str) -> None:
    """Case 51."""
    url = f"http://127.0.0.1:{taking_ogg.port}/media/{kind}"
    for number in range(TIMES):
        push(kind, f"{url}/{number}.{kind}", "-method", "PUT")
    paths = [stored(taking_ogg, f"{kind}/{number}.{kind}") for number in range(TIMES)]
    assert len({path.read_bytes() for path in paths}) == 1
    assert seconds_of(paths[0]) == pytest.approx(SECONDS, abs=MARGIN_S)


OPTIONS = {
    "in chunks": ("-chunked_post", "1"),
    "with a connection to be kept": ("-multiple_requests", "1"),
    "after 100 Continue": ("-send_expect_100", "1"),
    "with a type": ("-content_type", "audio/mpeg"),
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_what_ffmpeg_pushes_is_stored_with_every_option(
    service: Process, folder: str, options: tuple[str, ...]
) -> None:
    """Case 51."""
    url = f"http://127.0.0.1:{service.port}/media/{folder}"
    for number in range(3):
        push("mp3", f"{url}/{number}.mp3", "-method", "PUT", *options)
    for number in range(3):
        path = stored(service, f"{folder}/{number}.mp3")
        assert seconds_of(path) == pytest.approx(SECONDS, abs=MARGIN_S)


def test_what_ffmpeg_pushes_with_a_length_is_stored(
    service: Process, folder: str, tmp_path: Path
) -> None:
    """Case 51: `-chunked_post 0` needs the length, which ffmpeg does not find out by itself."""
    push("wav", tmp_path / "tone.wav")
    size = (tmp_path / "tone.wav").stat().st_size
    for number in range(3):
        url = f"http://127.0.0.1:{service.port}/media/{folder}/{number}.wav"
        whole = ("-chunked_post", "0", "-headers", f"Content-Length: {size}\r\n")
        push("wav", url, "-method", "PUT", *whole)
    for number in range(3):
        path = stored(service, f"{folder}/{number}.wav")
        assert path.stat().st_size == size
        assert seconds_of(path) == pytest.approx(SECONDS, abs=MARGIN_S)


def test_what_ffmpeg_pushes_without_any_length_is_not_stored_as_an_empty_file(
    service: Process, folder: str
) -> None:
    """`-chunked_post 0` alone sends neither a length nor chunks, then the recording. In HTTP/1.1
    that is a request without content (RFC 9112, 6.3), so it is answered 411.
    """
    url = f"http://127.0.0.1:{service.port}/media/{folder}/a.mp3"
    with service.unchanged():
        ffmpeg(*tone("mp3", url, "-method", "PUT", "-chunked_post", "0"))
