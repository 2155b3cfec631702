"""Stored files that are opened by their own URLs, in Chromium and in Firefox: audio plays, and what
only is called so does nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.live.browser import Browser, browsing
from tests.live.firefox import Firefox, firefox
from tests.live.recording import recording
from tests.live.test_players import run
from tests.process.running import Process, eventually, running

pytestmark = pytest.mark.long  # large programs; --quick does not install them

BROWSERS = {"Chromium": browsing, "Firefox": firefox}
SECONDS = 5
# Formats, and how ffmpeg is told to make them of a WAV.
FORMATS = {
    "wav": (),
    "mp3": (),
    "ogg": ("-c:a", "libvorbis"),
    "opus": ("-c:a", "libopus"),
    "flac": (),
    "m4a": (),
    "webm": ("-c:a", "libopus"),
    "weba": ("-c:a", "libopus", "-f", "webm"),
}
# Firefox plays WAV in an <audio>, but saves one that is opened by its own URL, whatever its type
# and whoever serves it.
PLAYED = [
    (name, extension)
    for name in BROWSERS
    for extension in FORMATS
    if (name, extension) != ("Firefox", "wav")
]

# What a browser does with a document that is a media file. Timers do not run in it.
_PLAY = """
const media = document.querySelector('video, audio');
if (media === null) return 'no media: ' + document.contentType;
media.play().catch(() => {});
return null;
"""
_SEE = """
const media = document.querySelector('video, audio');
return {error: media.error && media.error.message, time: media.currentTime, all: media.duration};
"""

# Opens URLs in windows and sees what becomes of them and of the page that has opened them. After a
# download a window is as it was, or closed.
_OPEN = """
const [urls, done] = arguments;
document.title = 'the opener';
document.cookie = 'kept=yes';
window.name = 'untouched';
const opened = JSON.parse(urls).map((url) => [url, window.open(url)]);
setTimeout(() => {
    const seen = opened.map(([url, page]) => page.closed ? {url} : {
        url,
        there: page.location.href,
        title: page.document.title,
    });
    done({seen, title: document.title, cookie: document.cookie, name: window.name});
    opened.forEach(([url, page]) => page.close());
}, 3000);
"""

# What a stranger would do to the service, to the window that has opened him, and to its cookies.
_ATTACK = """
document.title = 'it runs';
document.cookie = 'kept=stolen';
try { opener.document.title = 'it runs'; opener.name = 'it runs'; } catch (fault) {}
fetch('/media/strange/a.wav');
fetch('/media/strange/b.wav', {method: 'DELETE'});
new Image().src = '/media/strange/' + document.cookie;
"""
HTML = f"<!doctype html><title>a page</title><script>{_ATTACK}</script>" + (
    "<img src=x onerror=\"opener.name = 'it runs'\">"
    '<meta http-equiv=refresh content="0;url=/media/strange/refreshed">'
    "<form action=/media method=post><input name=directory value=strange></form>"
    "<iframe src=\"javascript:parent.opener.name = 'it runs'\"></iframe>"
)
XHTML = (
    '<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><head><title>a page</title>'
    f"<script><![CDATA[{_ATTACK}]]></script></head><body/></html>"
)
SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" onload="opener.name = \'it runs\'">'
    f"<title>a picture</title><script><![CDATA[{_ATTACK}]]></script></svg>"
)
HOSTILE = {"html": HTML, "xhtml": XHTML, "svg": SVG}
NAMES = ("mp3", "wav", "ogg", "webm", "html", "svg", "xhtml", "xml", "txt")


@pytest.fixture(scope="module")
def playing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A service of the module's own, which stores all formats that browsers play."""
    root = tmp_path_factory.mktemp("playing") / "area" / "media"
    with running(root, "--formats", ",".join(FORMATS), "--access-log", "-") as process:
        yield process


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory, playing: Process) -> None:
    """One of each format, stored."""
    folder = tmp_path_factory.mktemp("recordings")
    source = ("-f", "lavfi", "-i", f"sine=duration={SECONDS}")
    run("ffmpeg", "-v", "error", *source, "tone.wav", cwd=folder)
    for extension, how in FORMATS.items():
        name = f"tone.{extension}"
        if extension != "wav":
            run("ffmpeg", "-v", "error", "-i", "tone.wav", *how, name, cwd=folder)
        answer = playing.ask("PUT", f"/media/played/{name}", (folder / name).read_bytes())
        assert answer.status == 201
        assert "audio" not in answer.files[0], "the check has found something"


@pytest.fixture(scope="module")
def browsers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Both, by their names."""
    with (
        browsing(tmp_path_factory.mktemp("chromium")) as chromium,
        firefox(tmp_path_factory.mktemp("firefox")) as gecko,
    ):
        yield {"Chromium": chromium, "Firefox": gecko}


@pytest.mark.usefixtures("recordings")
@pytest.mark.parametrize(("name", "extension"), PLAYED)
def test_a_file_that_is_opened_by_its_own_url_plays(
    browsers: dict[str, Browser | Firefox], playing: Process, name: str, extension: str
) -> None:
    """Case 73."""
    browser = browsers[name]
    browser.open(f"http://127.0.0.1:{playing.port}/media/played/tone.{extension}")
    assert browser.run(_PLAY) is None
    eventually("it plays, or fails", lambda: was_played(browser.run(_SEE)))
    seen = browser.run(_SEE)
    assert seen["error"] is None
    assert seen["all"] == pytest.approx(SECONDS, abs=0.2)


def was_played(seen: dict[str, Any]) -> bool:
    return seen["time"] > 0.3 or seen["error"] is not None


@pytest.mark.parametrize("name", BROWSERS)
@pytest.mark.parametrize("hostile", HOSTILE)
def test_what_only_is_called_audio_does_nothing(
    browsers: dict[str, Browser | Firefox], playing: Process, name: str, hostile: str
) -> None:
    """Cases 36 and 73: whoever has stored it, also an administrator under its own name, and whoever
    opens it, also a page of the same origin.
    """
    browser = browsers[name]
    origin = f"http://127.0.0.1:{playing.port}"
    folder = playing.root / "hostile" / name
    folder.mkdir(parents=True, exist_ok=True)
    for extension in NAMES:
        (folder / f"{hostile}.{extension}").write_text(HOSTILE[hostile], encoding="utf-8")
    targets = [f"/media/hostile/{name}/{hostile}.{extension}" for extension in NAMES]
    before = playing.tree()
    browser.open(f"{origin}/health?{name}")
    urls = [origin + target for target in targets]
    seen = browser.run(_OPEN, json.dumps(urls), how="async")
    assert (seen["title"], seen["cookie"]) == ("the opener", "kept=yes"), seen
    assert seen["name"] == "untouched", seen
    for each in seen["seen"]:
        assert each.get("there") in (None, "about:blank", each["url"]), each
        assert each.get("title") != "it runs", each
    assert playing.tree() == before
    for target in targets:
        assert f'"GET {target} HTTP/1.1" 20' in playing.log, "nobody has opened it"
    assert "/media/strange" not in playing.log


@pytest.mark.parametrize("name", BROWSERS)
@pytest.mark.parametrize("hostile", HOSTILE)
def test_what_does_nothing_there_would_do_it_elsewhere(
    browsers: dict[str, Browser | Firefox], service: Process, name: str, hostile: str
) -> None:
    """The same, served as a page: the test above would see it."""
    kinds = {"html": "text/html", "xhtml": "application/xhtml+xml", "svg": "image/svg+xml"}
    page = (kinds[hostile], HOSTILE[hostile])
    with recording(service.port, {"/opener": "<title>opener</title>", "/page": page}) as recorder:
        browser = browsers[name]
        origin = f"http://127.0.0.1:{recorder.port}"
        browser.open(f"{origin}/opener")
        seen = browser.run(_OPEN, json.dumps([f"{origin}/page"]), how="async")
        assert (seen["title"], seen["cookie"]) == ("it runs", "kept=stolen"), seen
        assert seen["name"] == "it runs", seen
        eventually(
            "it asks the service",
            lambda: any("/media/strange" in each.target for each in recorder.exchanges),
        )
