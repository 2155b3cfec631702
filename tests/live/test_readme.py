"""What README.md says works when it is pasted."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import wave
from pathlib import Path

from tests.live.support import clean_environment
from tests.service.running import Process, running

HOUSE = Path(__file__).parents[2]
README = HOUSE / "README.md"


def test_the_lines_under_try_it_work_in_their_order(tmp_path: Path) -> None:
    with running(tmp_path / "service" / "media", "--fetch-allow", "127.0.0.1") as service:
        try_it(service, tmp_path)


def try_it(service: Process, tmp_path: Path) -> None:
    section = README.read_text(encoding="utf-8").split("## Try it\n")[1].split("\n## ")[0]
    lines = re.findall(
        r"^    ((?:python3|curl|\.venv/bin/twistedmedia) .+)$", section, re.MULTILINE
    )
    assert sum("/twistedmedia " in line for line in lines) >= 3
    assert sum(line.startswith("curl ") for line in lines) >= 6
    environment = {
        "TWISTEDMEDIA_URL": f"http://127.0.0.1:{service.port}",
        "XDG_STATE_HOME": str(tmp_path),
    }
    answers: dict[str, list[dict[str, object]]] = {}
    outputs: dict[str, bytes] = {}
    for line in lines:
        method = "DELETE" if "DELETE" in line else "store" if "-T" in line or "-d " in line else ""
        method = "store" if " -F " in line else method
        here = line.replace("127.0.0.1:8000", f"127.0.0.1:{service.port}")
        here = here.replace(".venv/bin/twistedmedia ", f"{sys.executable} -m twistedmedia.client ")
        assert not line.startswith("curl ") or here != line
        done = subprocess.run(
            ["sh", "-c", here],
            cwd=tmp_path,
            env=clean_environment() | environment,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, (line, done.stderr)
        outputs[line] = done.stdout
        if method:
            answer = json.loads(done.stdout)
            assert (answer["code"], answer["reason"]) == (200, "OK"), (line, answer)
            answers.setdefault(method, []).append(answer)
    original = (tmp_path / "hello.wav").read_bytes()
    assert original[:4] == b"RIFF"
    assert (tmp_path / "copy.wav").read_bytes() == original
    assert (tmp_path / "copies" / "prompts" / "nl" / "hello.wav").read_bytes() == original
    assert b"RIFF" in outputs.values()  # what the first four bytes are
    assert [answer["deleted"] for answer in answers["DELETE"]] == [True]
    stored = [entry["url"] for answer in answers["store"] for entry in answer["files"]]  # type: ignore[attr-defined]
    assert stored == [
        "/media/prompts/en/hello.wav",
        "/media/prompts/de/hello.wav",
        "/media/prompts/fr/salut.wav",
        "/media/prompts/it/ciao.wav",
        "/media/prompts/en/hello.wav",
        "/media/prompts/it/ciao.wav",
        "/media/prompts/es/hola.wav",
    ]
    entries = [entry for answer in answers["store"] for entry in answer["files"]]  # type: ignore[attr-defined]
    assert [entry.get("replaced", False) for entry in entries] == [False] * 4 + [True, False, False]
    assert [entry.get("identical", False) for entry in entries] == [False] * 5 + [True, False]
    listings = [json.loads(said) for said in outputs.values() if b'"entries"' in said]
    names = [entry["name"] for listing in listings for entry in listing["entries"]]
    assert names == ["de/", "en/", "fr/", "it/"]
    fetched = [json.loads(said) for said in outputs.values() if b'"time_cost"' in said]
    assert [(each["status"], each["size"]) for each in fetched] == [(200, len(original))]
    gone, *left = stored[:4]
    assert service.ask("GET", gone).status == 404
    for url in left:
        assert service.ask("GET", url).content == original


def test_the_answer_that_is_shown_is_the_one_that_comes(service: Process) -> None:
    text = README.read_text(encoding="utf-8")
    shown = json.loads(re.search(r"^    (\{.+?\}\]\})$", text, re.MULTILINE | re.DOTALL)[1])  # type: ignore[index]
    sound = io.BytesIO()
    with wave.open(sound, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(shown["files"][0]["size"] - 44))
    content = sound.getvalue()
    answer = service.ask("PUT", "/media/as-shown/hello.wav", content).json
    assert answer.keys() == shown.keys()
    assert [entry.keys() for entry in answer["files"]] == [entry.keys() for entry in shown["files"]]
    assert answer["files"][0]["size"] == shown["files"][0]["size"]


def test_the_lines_of_the_page_about_resumable_uploads_store_a_file(tmp_path: Path) -> None:
    page = (HOUSE / "docs" / "resumable.md").read_text(encoding="utf-8")
    begin, go_on = re.findall(r"^    (curl .+)$", page, re.MULTILINE)
    content = bytes(16044)
    (tmp_path / "hello.wav").write_bytes(content)
    with running(tmp_path / "service" / "media") as service:

        def said(line: str) -> str:
            here = line.replace("127.0.0.1:8000", f"127.0.0.1:{service.port}")
            done = subprocess.run(
                ["sh", "-c", here],
                cwd=tmp_path,
                env=clean_environment(),
                capture_output=True,
                timeout=60,
                check=True,
            )
            return done.stdout.decode()

        (url,) = re.findall(r"^Location: (.+)\r$", said(begin), re.MULTILINE)
        answer = said(go_on.replace("/uploads/4f0c...", url))
    assert "204 No Content" in answer
    assert "Content-Location: /media/prompts/en/hello.wav" in answer
    assert (service.root / "prompts" / "en" / "hello.wav").read_bytes() == content
