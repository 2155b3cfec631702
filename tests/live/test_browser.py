"""An audio element in a real browser: it plays and seeks."""

from __future__ import annotations

import wave
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.live.browser import Browser, browsing
from tests.live.recording import Recorder, recording
from tests.live.test_players import run
from tests.process.running import Process

pytestmark = pytest.mark.long  # a large program; --quick does not install it

SECONDS = 300
RATE_HZ = 44_100
PAGE = "<!doctype html><meta charset=utf-8><title>a page with a player</title>"

# What it does to an element and sees of it. Each step waits for the event that says that it is
# done.
_LISTEN = """
const [url, done] = arguments;
const audio = new Audio();
const seen = {};
const once = (name) =>
    new Promise((resolve) => audio.addEventListener(name, resolve, {once: true}));
const plays = async (from) => { do await once('timeupdate'); while (audio.currentTime <= from); };
const seek = async (to) => { const sought = once('seeked'); audio.currentTime = to; await sought; };
audio.addEventListener('error', () => done({error: audio.error.code + audio.error.message}));
(async () => {
    const known = once('loadedmetadata');
    audio.src = url;
    await known;
    seen.duration = audio.duration;
    seen.seekable = audio.seekable.end(0);
    await audio.play();
    await plays(0.2);
    const middle = audio.duration / 2;
    await seek(middle);
    await plays(middle + 0.2);
    seen.middle = audio.currentTime;
    await seek(1);
    await plays(1.2);
    seen.begin = audio.currentTime;
    const ended = once('ended');
    await seek(audio.duration - 0.5);
    await ended;
    seen.end = audio.currentTime;
    done(seen);
})().catch((fault) => done({error: String(fault)}));
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture
def recorder(service: Process) -> Iterator[Recorder]:
    with recording(service.port, {"/page": PAGE}) as recorder:
        yield recorder


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five minutes of noise, as WAV (26 MB) and MP3."""
    folder = tmp_path_factory.mktemp("recordings")
    with wave.open(str(folder / "noise.wav"), "wb") as file:
        file.setparams((1, 2, RATE_HZ, 0, "NONE", ""))
        file.writeframes(Random(1).randbytes(SECONDS * RATE_HZ * 2))
    run("ffmpeg", "-v", "error", "-i", "noise.wav", "-b:a", "320k", "noise.mp3", cwd=folder)
    return folder


@pytest.fixture(params=["noise.wav", "noise.mp3"])
def target(request: pytest.FixtureRequest, recordings: Path, service: Process, folder: str) -> str:
    """Where one of them is stored."""
    target = f"/media/{folder}/{request.param}"
    content = (recordings / request.param).read_bytes()
    assert service.ask("PUT", target, content).status == 201
    return target


def assert_played(seen: dict[str, Any]) -> None:
    """All of it happened."""
    assert "error" not in seen, seen
    assert seen["duration"] == pytest.approx(SECONDS, abs=0.2)
    assert seen["seekable"] == seen["duration"]
    middle = seen["duration"] / 2
    assert middle < seen["middle"] < middle + 5
    assert 1 < seen["begin"] < 6
    assert seen["end"] == pytest.approx(seen["duration"], abs=0.1)


def test_an_audio_element_plays_and_seeks(
    browser: Browser, service: Process, recorder: Recorder, target: str
) -> None:
    """In a page from the same origin."""
    browser.open(f"http://127.0.0.1:{recorder.port}/page")
    assert_played(browser.run(_LISTEN, target, how="async"))
    asked = [exchange for exchange in recorder.exchanges if exchange.target == target]
    assert asked[0].brief == ("bytes=0-", 206)
    # What it has it keeps, and asks whether that is still true.
    assert {each.status for each in asked if each.asked["If-None-Match"] is None} == {206}
    assert {each.status for each in asked if each.asked["If-None-Match"]} <= {304}
    size = int(asked[0].told["Content-Length"])
    assert [each for each in asked if size * 0.4 < each.start < size * 0.6]
    # One answer is a part of the same file as all others.
    etag = asked[0].told["ETag"]
    assert {each.told["ETag"] for each in asked} == {etag}
    assert {each.asked["If-Range"] for each in asked} <= {None, etag}


def test_an_audio_element_of_another_origin_plays_it_as_well(
    browser: Browser, service: Process, recorder: Recorder, target: str
) -> None:
    """An element asks for media without CORS."""
    browser.open(f"http://127.0.0.1:{recorder.port}/page")
    url = f"http://127.0.0.1:{service.port}{target}"
    assert_played(browser.run(_LISTEN, url, how="async"))
    assert recorder.exchanges == [] or {each.target for each in recorder.exchanges} == {
        "/favicon.ico"
    }


def test_what_is_missing_is_an_error(browser: Browser, recorder: Recorder) -> None:
    """A 404 is never taken for media (case 48)."""
    browser.open(f"http://127.0.0.1:{recorder.port}/page")
    seen = browser.run(_LISTEN, "/media/missing/a.wav", how="async")
    assert seen["error"].startswith("4")  # MEDIA_ERR_SRC_NOT_SUPPORTED
    assert recorder.exchanges[-1].status == 404
