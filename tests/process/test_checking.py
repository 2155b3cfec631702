"""Bytes that are not the audio that the name promises: passed over, flagged or refused, whichever
way they come. Which bytes those are is the subject of tests/audio.
"""

from __future__ import annotations

import hashlib
import os
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.audio.samples import frames, wav
from tests.process.exchange import (
    MULTIPART,
    URLENCODED,
    Answer,
    chunked,
    form,
    head,
    part,
    request,
    urlencoded,
)
from tests.process.running import Process, eventually, running

FORM = {"Content-Type": MULTIPART}
GOOD = wav(1)
CUT = wav(600, actual=252)
GOOD_FILES = {"a.wav": GOOD, "a.WAV": GOOD, "a.mp3": frames(20), "long.wav": wav(150)}
# Each with the words that say what is wrong with it.
BAD_FILES = {
    "empty.wav": (b"", "it is empty"),
    "text.wav": (b"this is a text", "the content is something else, not WAV"),
    "page.mp3": (b"<!DOCTYPE html><html></html>", "the content is HTML, not MP3"),
    "really mp3.wav": (frames(20), "the content is MP3, not WAV"),
    "really wav.mp3": (GOOD, "the content is WAV, not MP3"),
    "cut.wav": (CUT, "header says 10:00, data ends at 4:12"),
    "short.wav": (GOOD[:-8000], "header says 0:01, data ends at 0:00"),
    "header.wav": (GOOD[:14], "it ends before the audio begins"),
}
BAD = BAD_FILES["short.wav"][0]


@pytest.fixture(scope="module", params=["off", "flag", "reject"])
def checked(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Process, str]]:
    """A service with each value of --check, and the value."""
    root = tmp_path_factory.mktemp("checked") / "area" / "media"
    with running(root, "--check", request.param) as process:
        yield process, request.param


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A service that refuses."""
    root = tmp_path_factory.mktemp("strict") / "area" / "media"
    with running(root, "--check", "reject") as process:
        yield process


Way = Callable[[Process, str, bytes], Answer]


def by_put(service: Process, name: str, content: bytes) -> Answer:
    return service.ask("PUT", _url(name), content)


def by_chunked_put(service: Process, name: str, content: bytes) -> Answer:
    pieces = [content[at : at + 9973] for at in range(0, len(content), 9973)]
    with service.connect() as connection:
        connection.send(head("PUT", _url(name), [("Transfer-Encoding", "chunked")]))
        connection.send(chunked(pieces))
        return connection.answer()


def by_form(service: Process, name: str, content: bytes) -> Answer:
    return service.ask("POST", "/media", form(part(*os.path.split(name), content)), FORM)


def by_fields(service: Process, name: str, content: bytes) -> Answer:
    directory, filename = os.path.split(name)
    sent = urlencoded(("body", content), ("directory", directory), ("filename", filename))
    return service.ask("POST", "/media", sent, {"Content-Type": URLENCODED})


def by_replacement(service: Process, name: str, content: bytes) -> Answer:
    """Of a file that an administrator has put there."""
    path = service.root / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"whatever was there before")
    return service.ask("PUT", _url(name), content, {"If-Match": "*"})


def _url(name: str) -> str:
    return f"/media/{name}".replace(" ", "%20")


WAYS = pytest.mark.parametrize("way", [by_put, by_chunked_put, by_form, by_fields, by_replacement])


def audio_of(answer: Answer) -> dict[str, Any] | None:
    """What the only entry of an answer says about audio."""
    (entry,) = answer.files
    audio = entry.get("audio")
    assert audio is None or isinstance(audio, dict)
    return audio


@WAYS
@pytest.mark.parametrize("filename", GOOD_FILES)
def test_audio_is_stored_without_a_word(
    checked: tuple[Process, str], folder: str, way: Way, filename: str
) -> None:
    service, _ = checked
    answer = way(service, f"{folder}/{filename}", GOOD_FILES[filename])
    assert answer.brief in {(201, 200), (200, 200)}
    assert "audio" not in answer.files[0]
    assert (service.root / folder / filename).read_bytes() == GOOD_FILES[filename]


@WAYS
@pytest.mark.parametrize("filename", BAD_FILES)
def test_what_is_not_the_audio_that_its_name_promises(
    checked: tuple[Process, str], folder: str, way: Way, filename: str
) -> None:
    service, check = checked
    content, problem = BAD_FILES[filename]
    path = service.root / folder / filename
    answer = way(service, f"{folder}/{filename}", content)
    if way is by_fields and not content:
        assert answer.brief == (400, 503)  # an empty `body` is missing, checked or not
    elif check == "reject":
        assert answer.brief == (422, 509)
        assert problem in answer.json["reason"]
        if way is by_replacement:
            assert path.read_bytes() == b"whatever was there before"
        else:
            assert not path.parent.exists()
    else:
        assert answer.brief == ((200, 200) if way is by_replacement else (201, 200))
        expected = {"ok": False, "problem": problem} if check == "flag" else None
        assert audio_of(answer) == expected
        assert path.read_bytes() == content
        if way is not by_replacement:
            stored = f"stored: '{folder}/{filename}'"
            eventually("it is logged", lambda: stored in service.log)


def test_a_recording_that_is_cut_off_is_told_in_these_words(service: Process, folder: str) -> None:
    """With the options that a service has by default."""
    answer = service.ask("PUT", f"/media/{folder}/a.wav", CUT)
    assert answer.brief == (201, 200)
    assert audio_of(answer) == {"ok": False, "problem": "header says 10:00, data ends at 4:12"}
    assert service.ask("GET", f"/media/{folder}/a.wav").content == CUT


def test_of_a_form_each_file_is_judged_by_itself(checked: tuple[Process, str], folder: str) -> None:
    service, check = checked
    parts = [
        part(folder, "good.wav", GOOD),
        part(folder, "bad.wav", BAD),
        part("note", None, b"this is a text"),
        part(folder, "good.mp3", frames(20)),
        part(folder, "bad.mp3", GOOD),
        part(folder, "bad.txt", b"this is a text"),
    ]
    answer = service.ask("POST", "/media", form(*parts), FORM)
    codes = [entry["code"] for entry in answer.files]
    flagged = [entry.get("audio", {}).get("ok") for entry in answer.files]
    if check == "reject":
        assert answer.brief == (207, 509)
        assert codes == [200, 509, 200, 509, 504]
        assert flagged == [None] * 5
        names = ["good.mp3", "good.wav"]
    else:
        assert answer.brief == (207, 504)
        assert codes == [200, 200, 200, 200, 504]
        assert flagged == [None, False, None, False, None] if check == "flag" else [None] * 5
        names = ["bad.mp3", "bad.wav", "good.mp3", "good.wav"]
    assert sorted(os.listdir(service.root / folder)) == names


def test_a_form_of_which_no_file_is_audio_is_answered_as_one_file(
    strict: Process, folder: str
) -> None:
    with strict.unchanged():
        parts = [part(folder, f"{n}.wav", BAD) for n in range(3)]
        answer = strict.ask("POST", "/media", form(*parts), FORM)
        assert answer.brief == (422, 509)
        assert [entry["code"] for entry in answer.files] == [509] * 3
        assert not (strict.root / folder).exists()


def test_what_is_refused_leaves_nothing(strict: Process, folder: str) -> None:
    with strict.unchanged():
        for content in (b"", BAD, CUT):
            for filename in ("a/b.wav", "c.wav"):
                assert by_put(strict, f"{folder}/{filename}", content).brief == (422, 509)
    for text in (f"not stored: '{folder}/a/b.wav'", "header says 10:00, data ends at 4:12"):
        eventually("it is logged", lambda text=text: text in strict.log)


def test_audio_is_judged_last(strict: Process, folder: str) -> None:
    """The order of judgement: size, exists, digest, audio."""
    name = f"/media/{folder}/a.wav"
    wrong = {"Repr-Digest": f"sha-256=:{b64encode(bytes(32)).decode()}:"}
    assert strict.ask("PUT", name, BAD, wrong).brief == (400, 508)
    assert strict.ask("PUT", name, GOOD).brief == (201, 200)
    assert strict.ask("PUT", name, BAD).brief == (409, 501)
    assert strict.ask("PUT", name, BAD, wrong).brief == (409, 501)
    for content in (BAD, CUT):
        assert strict.ask("PUT", name, content, {"If-Match": '"stale"'}).brief == (412, 412)
        with strict.unchanged():
            assert strict.ask("PUT", name, content, {"If-Match": "*"}).brief == (422, 509)
    assert strict.ask("PUT", f"/media/{folder}/a.txt", BAD).brief == (415, 504)
    assert strict.ask("GET", name).content == GOOD


@pytest.mark.parametrize("content", [BAD, CUT], ids=["small", "large"])
def test_what_is_there_already_is_recognised_whatever_it_is(
    checked: tuple[Process, str], folder: str, content: bytes
) -> None:
    """An identical retry changes nothing, so nothing is refused."""
    service, check = checked
    path = service.root / folder / "a.wav"
    path.parent.mkdir()
    path.write_bytes(content)
    sha256 = hashlib.sha256(content)
    declared = {"Repr-Digest": f"sha-256=:{b64encode(sha256.digest()).decode()}:"}
    lines = f"Repr-Digest: {declared['Repr-Digest']}"
    with service.unchanged():
        answers = [
            service.ask("PUT", f"/media/{folder}/a.wav", content, declared),
            service.ask("POST", "/media", form(part(folder, "a.wav", content, lines)), FORM),
            service.ask("PUT", f"/media/{folder}/a.wav", content, {**declared, "If-Match": '"x"'}),
        ]
    for answer in answers:
        assert answer.brief == (200, 200), check
        assert answer.files[0]["identical"] is True


@pytest.mark.parametrize("content", [BAD, CUT], ids=["small", "large"])
def test_who_lost_the_answer_is_told_again_what_is_wrong(
    service: Process, folder: str, content: bytes
) -> None:
    """A clip that is cut off is found out when it arrives, also when that took two attempts."""
    digest = b64encode(hashlib.sha256(content).digest()).decode()
    lines = f"Repr-Digest: sha-256=:{digest}:"
    sent = form(part(folder, "a.wav", content, lines))
    first = service.ask("POST", "/media", sent, FORM)
    assert first.brief == (201, 200)
    headers = {"Repr-Digest": f"sha-256=:{digest}:"}
    for again in (
        service.ask("POST", "/media", sent, FORM),
        service.ask("PUT", f"/media/{folder}/a.wav", content, headers),
        service.ask("PUT", f"/media/{folder}/a.wav", content, {**headers, "If-Match": '"x"'}),
    ):
        assert again.files[0]["identical"] is True
        assert audio_of(again) == audio_of(first) is not None


def test_a_retry_of_what_was_refused_is_refused_again(strict: Process, folder: str) -> None:
    digest = b64encode(hashlib.sha256(BAD).digest()).decode()
    with strict.unchanged():
        for _ in range(3):
            answer = strict.ask(
                "PUT", f"/media/{folder}/a.wav", BAD, {"Repr-Digest": f"sha-256=:{digest}:"}
            )
            assert answer.brief == (422, 509)
    assert by_put(strict, f"{folder}/a.wav", GOOD).brief == (201, 200)


def test_a_refusal_does_not_end_the_connection(strict: Process, folder: str) -> None:
    with strict.connect() as connection:
        for n in range(5):
            connection.send(request("PUT", f"/media/{folder}/{n}.wav", (GOOD, BAD, CUT)[n % 3]))
        statuses = [connection.answer().status for _ in range(5)]
        assert statuses == [201, 422, 422, 201, 422]
        assert connection.ask("GET", f"/media/{folder}/3.wav").content == GOOD


def test_other_formats_are_known_by_their_beginning(tmp_path: Path) -> None:
    options = ("--check", "reject", "--formats", "mp3,wav,ogg,oga,opus,flac,m4a,aac")
    opus = b"OggS\0\2" + bytes(20) + b"\1\x13OpusHead" + bytes(40)
    flac = b"fLaC\0\0\0\x22" + bytes(60)
    m4a = b"\0\0\0\x20ftypM4A " + bytes(60)
    aac = b"\xff\xf1\x50\x80\x02\x1f\xfc" + bytes(60)
    contents = {"opus": opus, "flac": flac, "m4a": m4a, "aac": aac}
    with running(tmp_path / "area" / "media", *options) as service:
        for extension in ("mp3", "wav", "ogg", "oga", "opus", "flac", "m4a", "aac"):
            for kind, content in contents.items():
                fits = kind == extension or (kind == "opus" and extension in ("ogg", "oga"))
                answer = by_put(service, f"{extension}/{kind}.{extension}", content)
                assert answer.brief == ((201, 200) if fits else (422, 509)), (extension, kind)
        assert len(service.tree()) == 6 + 6
