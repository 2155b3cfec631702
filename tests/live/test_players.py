"""ffprobe, ffmpeg and mpv, over HTTP: they know how long a recording is, play it, and seek. In MP3
they go by the bit rate and the table of Xing's header, as told (fastseek); else they would read on
until they are there.
"""

from __future__ import annotations

import json
import re
import subprocess
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

import pytest

from tests.live.recording import Recorder, recording
from tests.live.support import clean_environment
from tests.process.running import Process

SECONDS = 900
SECOND_BYTES = 16_000
HEADER_BYTES = 44
LATE_S = 880


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quarter of an hour of noise, of which every second is another: as WAV, and as MP3 of a
    constant bit rate and of a varying one.
    """
    folder = tmp_path_factory.mktemp("originals")
    with wave.open(str(folder / "noise.wav"), "wb") as file:
        file.setparams((1, 2, SECOND_BYTES // 2, 0, "NONE", ""))
        file.writeframes(Random(1).randbytes(SECONDS * SECOND_BYTES))
    for name, *coding in [("constant.mp3", "-b:a", "32k"), ("varying.mp3", "-q:a", "7")]:
        run("ffmpeg", "-v", "error", "-i", "noise.wav", *coding, name, cwd=folder)
    return folder


@pytest.fixture(params=["noise.wav", "constant.mp3", "varying.mp3"])
def original(request: pytest.FixtureRequest, originals: Path) -> Path:
    path: Path = originals / request.param
    return path


@pytest.fixture
def recorder(service: Process) -> Iterator[Recorder]:
    with recording(service.port) as recorder:
        yield recorder


@pytest.fixture
def store(service: Process, recorder: Recorder, folder: str) -> Callable[[Path], str]:
    """Call it with a file to have it stored, and get its URL."""

    def put(path: Path) -> str:
        target = f"/media/{folder}/{path.name}"
        (entry,) = service.ask("PUT", target, path.read_bytes()).files
        assert entry["code"] == 200
        assert entry.get("audio", {"ok": True})["ok"], entry
        return f"http://127.0.0.1:{recorder.port}{target}"

    return put


def run(*command: str, cwd: Path) -> bytes:
    """What it writes to its output; it has to succeed."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def probed(source: str, cwd: Path) -> dict[str, object]:
    """What ffprobe knows of a path or a URL, but for its name."""
    wanted = "format=format_name,duration,size,bit_rate:stream=codec_name,sample_rate,channels"
    command = ("ffprobe", "-v", "error", "-of", "json", "-show_entries", wanted, source)
    found = json.loads(run(*command, cwd=cwd))
    assert isinstance(found, dict)
    return found


def assert_sought(recorder: Recorder, path: Path) -> None:
    """The late part of the file was asked for, by its range, and most of the file never came."""
    size = path.stat().st_size
    late = [each for each in recorder.exchanges if each.start > size * 0.9]
    assert late, [each.brief for each in recorder.exchanges]
    assert {each.status for each in late} == {206}
    for each in late:
        assert each.told["Content-Range"] == f"bytes {each.start}-{size - 1}/{size}"


def test_ffprobe_knows_as_much_as_of_the_file_itself(
    recorder: Recorder, original: Path, store: Callable[[Path], str]
) -> None:
    found = probed(store(original), original.parent)
    assert found == probed(str(original), original.parent)
    told = found["format"]
    assert isinstance(told, dict)
    assert float(told["duration"]) == pytest.approx(SECONDS, abs=0.2)
    assert told["size"] == str(original.stat().st_size)
    assert recorder.exchanges[0].brief == ("bytes=0-", 206)
    assert sum(each.passed for each in recorder.exchanges) < original.stat().st_size


def test_ffmpeg_seeks_and_hears_what_is_there(
    recorder: Recorder, original: Path, store: Callable[[Path], str]
) -> None:
    def heard(source: str) -> bytes:
        seek = ("-fflags", "fastseek", "-ss", str(LATE_S))
        command = ("ffmpeg", "-v", "error", *seek, "-i", source, "-t", "2", "-f", "s16le", "-")
        return run(*command, cwd=original.parent)

    sound = heard(store(original))
    assert sound == heard(str(original))
    assert len(sound) == pytest.approx(2 * SECOND_BYTES, abs=SECOND_BYTES / 10)
    if original.suffix == ".wav":
        at = HEADER_BYTES + LATE_S * SECOND_BYTES
        assert sound == original.read_bytes()[at : at + len(sound)]
    assert_sought(recorder, original)


def test_mpv_seeks_and_hears_what_is_there(
    recorder: Recorder, original: Path, store: Callable[[Path], str], tmp_path: Path
) -> None:
    def heard(source: str) -> bytes:
        name = tmp_path / "heard.wav"
        into = ("--ao=pcm", "--ao-pcm-waveheader=no", f"--ao-pcm-file={name}", "--audio-format=s16")
        mpv(source, *into, f"--start={LATE_S}", "--length=2", cwd=tmp_path)
        return name.read_bytes()

    sound = heard(store(original))
    assert sound == heard(str(original))
    assert len(sound) == pytest.approx(2 * SECOND_BYTES, abs=SECOND_BYTES / 10)
    if original.suffix == ".wav":
        at = HEADER_BYTES + LATE_S * SECOND_BYTES
        found = original.read_bytes().index(sound)
        assert abs(found - at) <= SECOND_BYTES / 100
    assert_sought(recorder, original)


def test_mpv_plays_to_the_end(
    recorder: Recorder, original: Path, store: Callable[[Path], str], tmp_path: Path
) -> None:
    """In the time that it takes, with nobody to hear it."""
    said = mpv(
        store(original),
        "--ao=null",
        "--term-playing-msg=it lasts ${duration}",
        f"--start={SECONDS - 1}",
        cwd=tmp_path,
    )
    assert re.search("it lasts 00:15:0[01]", said)  # rounded; encoders add some silence
    assert "End of file" in said
    assert_sought(recorder, original)


def test_safari_asks_for_two_bytes_and_then_for_the_rest(
    service: Process, store: Callable[[Path], str], original: Path
) -> None:
    """Case 45: what does not answer exactly that it does not play. Its later ranges have both ends,
    for it knows the size by then.
    """
    target = urlsplit(store(original)).path
    content = original.read_bytes()
    size = len(content)
    like_safari = {
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        "Connection": "keep-alive",
        "Referer": f"http://127.0.0.1:{service.port}{target}",
        "X-Playback-Session-Id": "6F6E6520-6D6F-7265-2074-696D65000000",
    }
    with service.connect() as connection:

        def ask(span: str, **more: str) -> tuple[str, bytes]:
            answer = connection.ask(
                "GET", target, headers={**like_safari, "Range": f"bytes={span}", **more}
            )
            assert answer.status == 206
            assert answer.headers["Accept-Ranges"] == "bytes"
            assert answer.headers["Content-Length"] == str(len(answer.content))
            assert answer.headers["Transfer-Encoding"] is None
            assert answer.headers["Content-Type"].startswith("audio/")
            etags.add(answer.headers["ETag"])
            return answer.headers["Content-Range"], answer.content

        etags: set[str] = set()
        assert ask("0-1") == (f"bytes 0-1/{size}", content[:2])
        assert ask(f"0-{size - 1}") == (f"bytes 0-{size - 1}/{size}", content)
        middle = size // 2
        (etag,) = etags
        sought = ask(f"{middle}-{size - 1}", **{"If-Range": etag})
        assert sought == (f"bytes {middle}-{size - 1}/{size}", content[middle:])
        assert len(etags) == 1


def mpv(source: str, *options: str, cwd: Path) -> str:
    """What it says."""
    quickly = "--demuxer-lavf-o=fflags=+fastseek"
    return run("mpv", "--no-config", "--vo=null", quickly, *options, source, cwd=cwd).decode()
