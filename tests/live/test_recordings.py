"""Files as ffmpeg writes them, in the codings and at the sampling rates that there are: whole ones
are audio without a problem, those that are cut off are told.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.live.support import clean_environment
from tests.process.running import Process, running

SECONDS = 3
ALL_FORMATS = "mp3,wav,ogg,oga,opus,flac,m4a,aac"
SOURCE = ("-f", "lavfi", "-i", f"anoisesrc=d={SECONDS}:a=0.3:seed=1,highpass=200")


@dataclass(frozen=True)
class Made:
    """A file of ffmpeg's: its extension, and the options that it is made with."""

    extension: str
    options: tuple[str, ...]
    piped: bool = False  # written into a pipe, so that no size could be written into its head

    def __str__(self) -> str:
        return " ".join([*(["pipe"] if self.piped else []), self.extension, *self.options])


def _made(extension: str, *options: str, piped: bool = False) -> Made:
    words = tuple(word for option in options for word in option.split(" "))
    return Made(extension, words, piped)


def _wav() -> Iterator[Made]:
    for coding in ("u8", "s16le", "s24le", "s32le", "f32le", "f64le", "alaw", "mulaw"):
        for rate, channels in (("8000", "1"), ("44100", "2")):
            yield _made("wav", f"-c:a pcm_{coding} -ar {rate} -ac {channels}")
    for rate in ("11025", "16000", "22050", "32000", "48000", "96000", "192000"):
        yield _made("wav", f"-ar {rate}")
    yield _made("wav", "-ac 6")
    for coding in (
        "adpcm_ima_wav",
        "adpcm_ms",
        "g722",
        "aac",
        "libmp3lame",
        "libmp3lame -b:a 64k",
    ):
        yield _made("wav", f"-c:a {coding} -ar 16000")
    yield _made("wav", "-c:a ac3 -ar 48000")
    yield _made("wav", "-c:a g726 -ar 8000 -ac 1")
    yield _made("wav", "-c:a libgsm_ms -ar 8000 -ac 1")
    yield _made("wav", "-c:a g723_1 -ar 8000 -ac 1 -b:a 6300")
    yield _made("wav", "-rf64 always")
    yield _made("wav", "-rf64 auto")
    yield _made("wav", "-write_bext 1 -metadata description=a -metadata originator=b")
    yield _made("wav", "-metadata title=a -metadata artist=someone")
    yield _made("wav", "-fflags +bitexact")
    yield _made("wav", "-write_peak on")


def _mp3() -> Iterator[Made]:
    rates = ("8000", "11025", "12000", "16000", "22050", "24000", "32000", "44100", "48000")
    for rate in rates:
        yield _made("mp3", f"-ar {rate}")
        yield _made("mp3", f"-ar {rate} -q:a 4 -ac 2")
    for rate, bits in (("8000", "8k"), ("8000", "64k"), ("44100", "32k"), ("44100", "320k")):
        yield _made("mp3", f"-ar {rate} -b:a {bits} -ac 1")
    yield _made("mp3", "-ar 44100 -b:a 128k -abr 1")
    yield _made("mp3", "-ar 44100 -write_xing 0")
    yield _made("mp3", "-ar 44100 -q:a 5 -write_xing 0")
    yield _made("mp3", "-ar 44100 -q:a 5 -write_xing 0 -id3v2_version 0")
    yield _made("mp3", "-ar 44100 -id3v2_version 0")
    for version in ("3", "4"):
        yield _made("mp3", f"-ar 44100 -id3v2_version {version} -write_id3v1 1 -metadata title=a")
    yield _made("mp3", "-ar 44100 -metadata comment=" + "x" * 3000)
    yield _made("mp3", "-ar 44100 -metadata_header_padding 20000 -metadata title=a")
    yield _made("mp3", "-ar 44100 -ac 2 -joint_stereo 0")
    yield _made("mp3", "-ar 44100 -reservoir 0")
    yield _made("mp3", "-c:a libshine -ar 44100 -b:a 128k")
    for coding, rate in (("mp2", "48000"), ("libtwolame", "44100"), ("mp2", "22050")):
        yield _made("mp3", f"-c:a {coding} -ar {rate} -f mp2")


def _piped() -> Iterator[Made]:
    yield _made("wav", "-f wav -ar 8000", piped=True)
    yield _made("wav", "-f wav -rf64 always -ar 8000", piped=True)
    yield _made("mp3", "-f mp3 -ar 44100", piped=True)
    yield _made("mp3", "-f mp3 -ar 44100 -q:a 4", piped=True)


def _others() -> Iterator[Made]:
    yield _made("ogg", "-c:a libvorbis -ac 2")
    yield _made("oga", "-c:a libvorbis -ac 2 -ar 22050")
    yield _made("ogg", "-c:a libopus -f ogg")
    yield _made("ogg", "-c:a flac -f ogg")
    yield _made("ogg", "-c:a libspeex -ar 8000 -ac 1 -f ogg")
    yield _made("opus", "-c:a libopus -ac 2")
    yield _made("opus", "-c:a libopus -b:a 12k -ac 1 -application voip")
    for rate in ("8000", "44100", "96000"):
        yield _made("flac", f"-ar {rate}")
    yield _made("flac", "-sample_fmt s32 -metadata title=a")
    yield _made("m4a", "-c:a aac -ar 44100")
    yield _made("m4a", "-c:a aac -movflags faststart")
    yield _made("m4a", "-c:a aac -movflags frag_keyframe+empty_moov")
    yield _made("m4a", "-c:a alac")
    for rate in ("8000", "16000", "22050", "44100", "48000", "96000"):
        yield _made("aac", f"-c:a aac -ar {rate}")
    yield _made("aac", "-c:a aac -metadata title=a -write_id3v2 1")


WHOLE = [*_wav(), *_mp3(), *_piped(), *_others()]

# Under a name that promises WAV: what it is, in words, and how ffmpeg makes it.
NAMED_WRONGLY = {
    "MP3": "-f mp3",
    "Ogg": "-c:a libvorbis -ac 2 -f ogg",
    "Ogg Opus": "-c:a libopus -f ogg",
    "FLAC": "-f flac",
    "MP4": "-c:a aac -f ipod",
    "AAC": "-c:a aac -f adts",
    "WebM or Matroska": "-c:a libopus -f webm",
    "AIFF": "-f aiff",
    "Sun audio": "-f au",
    "CAF": "-f caf",
    "Windows Media": "-c:a wmav2 -f asf",
}

CUT = [
    made
    for made in WHOLE
    if made.extension in ("wav", "mp3") and not made.piped and "mp2" not in made.options
]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """One that takes every format."""
    root = tmp_path_factory.mktemp("recordings") / "area" / "media"
    with running(root, "--formats", ALL_FORMATS, "--no-durable") as process:
        yield process


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Made], bytes]:
    """Call it for a content; each is made once."""
    folder = tmp_path_factory.mktemp("made")
    contents: dict[Made, bytes] = {}

    def made(file: Made) -> bytes:
        if file not in contents:
            into = "pipe:1" if file.piped else f"made.{file.extension}"
            command = ["ffmpeg", "-y", "-v", "error", *SOURCE, *file.options, into]
            done = subprocess.run(
                command,
                cwd=folder,
                env=clean_environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 0, done.stderr.decode()
            contents[file] = done.stdout if file.piped else (folder / into).read_bytes()
        return contents[file]

    return made


def judged(service: Process, directory: str, extension: str, content: bytes) -> Any:
    """What the service says of it as audio when it is stored; nothing when that is in order."""
    answer = service.ask("PUT", f"/media/{directory}/a.{extension}", content)
    assert answer.brief == (201, 200)
    return answer.files[0].get("audio")


@pytest.mark.parametrize("made", WHOLE, ids=str)
def test_a_whole_recording_has_no_problem(
    service: Process, folder: str, make: Callable[[Made], bytes], made: Made
) -> None:
    content = make(made)
    assert len(content) > 1000
    assert judged(service, folder, made.extension, content) is None


@pytest.mark.parametrize("kept", [0.9, 0.5, 0.1])
@pytest.mark.parametrize("made", CUT, ids=str)
def test_a_recording_that_is_cut_off_is_told(
    service: Process, folder: str, make: Callable[[Made], bytes], made: Made, kept: float
) -> None:
    content = make(made)
    said = judged(service, folder, made.extension, content[: int(len(content) * kept)])
    assert said["ok"] is False
    assert said["problem"]


@pytest.mark.parametrize("what", NAMED_WRONGLY)
def test_another_format_is_known_by_its_magic(
    service: Process, folder: str, make: Callable[[Made], bytes], what: str
) -> None:
    content = make(_made("x", NAMED_WRONGLY[what]))
    said = judged(service, folder, "wav", content)
    assert said == {"ok": False, "problem": f"the content is {what}, not WAV"}
