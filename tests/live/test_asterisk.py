"""Real recordings: the telephone prompts of Debian's asterisk-core-sounds-en-wav, hundreds of WAV
files in nested folders, go in by every way that curl has, and come back byte for byte.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.live.support import curl
from tests.process.running import Process, drafts_in

PACKAGE = "asterisk-core-sounds-en-wav"
AT_ONCE = 200  # files in a form


@pytest.fixture(scope="module")
def prompts() -> dict[str, Path]:
    """Where they lie, by their path below the folder of the voice."""
    listed = subprocess.run(
        ["dpkg", "-L", PACKAGE], stdout=subprocess.PIPE, text=True, timeout=60, check=True
    )
    files = [Path(line) for line in listed.stdout.splitlines() if line.endswith(".wav")]
    (voice,) = {Path(*file.parts[: file.parts.index("sounds") + 2]) for file in files}
    found = {str(file.relative_to(voice)): file for file in files}
    assert len(found) > 500
    assert len({Path(name).parent for name in found}) > 5
    return found


def names_at(directory: str, name: str) -> tuple[str, str]:
    """The media name of a prompt below `directory`: directory and filename."""
    folders, _, filename = f"{directory}/{name}".rpartition("/")
    return folders, filename


def assert_all_there(
    service: Process, directory: str, prompts: dict[str, Path], tmp_path: Path
) -> None:
    """On the disk, and when curl fetches them all."""
    stored = service.root / directory
    there = sorted(str(path.relative_to(stored)) for path in stored.rglob("*") if path.is_file())
    assert there == sorted(prompts)
    for name, file in prompts.items():
        assert (stored / name).read_bytes() == file.read_bytes()
    wanted = tmp_path / "fetch"
    back = tmp_path / "back"
    base = f"http://127.0.0.1:{service.port}/media/{quote(directory)}"
    wanted.write_text(
        "".join(f'url = "{base}/{quote(name)}"\noutput = "{name}"\n' for name in prompts),
        encoding="utf-8",
    )
    done = curl("-f", "--create-dirs", "--output-dir", str(back), "-K", str(wanted), cwd=tmp_path)
    assert done.exit == 0, done.errors
    for name, file in prompts.items():
        assert (back / name).read_bytes() == file.read_bytes()
    assert drafts_in(service.root) == []


def test_the_prompts_by_multipart_forms(
    service: Process, folder: str, prompts: dict[str, Path], tmp_path: Path
) -> None:
    url = f"http://127.0.0.1:{service.port}/media"
    items = list(prompts.items())
    for start in range(0, len(items), AT_ONCE):
        some = items[start : start + AT_ONCE]
        fields = []
        for name, file in some:
            directory, filename = names_at(folder, name)
            fields += ["-F", f"{directory}=@{file};filename={filename};type=audio/wav"]
        done = curl(*fields, url, cwd=tmp_path)
        assert done.brief == (201, 200), done
        told = [(entry["directory"], entry["filename"]) for entry in done.json["files"]]
        assert told == [names_at(folder, name) for name, _ in some]
        assert [entry["size"] for entry in done.json["files"]] == [
            file.stat().st_size for _, file in some
        ]
        # They are the audio that their names promise.
        assert [entry for entry in done.json["files"] if "audio" in entry] == []
    assert_all_there(service, folder, prompts, tmp_path)


def test_a_sample_of_the_prompts_by_urlencoded_forms(
    service: Process, folder: str, prompts: dict[str, Path], tmp_path: Path
) -> None:
    url = f"http://127.0.0.1:{service.port}/media"
    step = len(prompts) // 60
    sample = dict(sorted(prompts.items())[: 60 * step : step])
    for name, file in sample.items():
        directory, filename = names_at(folder, name)
        fields = {"directory": directory, "filename": filename}
        plain = [word for each in fields.items() for word in ("--data-urlencode", "=".join(each))]
        done = curl(*plain, "--data-urlencode", f"body@{file}", url, cwd=tmp_path)
        assert done.brief == (201, 200), done
    assert len(sample) == 60
    assert_all_there(service, folder, sample, tmp_path)


def test_the_prompts_by_put(
    service: Process, folder: str, prompts: dict[str, Path], tmp_path: Path
) -> None:
    base = f"http://127.0.0.1:{service.port}/media/{folder}"
    sent = tmp_path / "send"
    sent.write_text(
        "".join(
            f'url = "{base}/{quote(name)}"\nupload-file = "{file}"\noutput = /dev/null\n'
            for name, file in prompts.items()
        ),
        encoding="utf-8",
    )
    done = curl("-f", "-K", str(sent), cwd=tmp_path)
    assert done.exit == 0, done.errors
    assert_all_there(service, folder, prompts, tmp_path)


def test_of_every_prompt_that_is_cut_off_it_is_told(
    service: Process, folder: str, prompts: dict[str, Path]
) -> None:
    """By a third. Each as it is would have no problem."""
    with service.connect() as connection:
        for number, file in enumerate(prompts.values()):
            content = file.read_bytes()
            target = f"/media/{folder}/{number}.wav"
            answer = connection.ask("PUT", target, content[: len(content) * 2 // 3])
            (entry,) = answer.files
            assert entry["audio"]["ok"] is False, file
            assert entry["audio"]["problem"].startswith("header says "), (file, entry)


def test_a_form_that_is_sent_again_stores_nothing_and_says_so_of_each_file(
    service: Process, folder: str, prompts: dict[str, Path], tmp_path: Path
) -> None:
    some = dict(sorted(prompts.items())[:50])
    url = f"http://127.0.0.1:{service.port}/media"
    fields = []
    for name, file in some.items():
        directory, filename = names_at(folder, name)
        fields += ["-F", f"{directory}=@{file};filename={filename}"]
    assert curl(*fields, url, cwd=tmp_path).brief == (201, 200)
    again = curl(*fields, url, cwd=tmp_path)
    assert again.brief == (409, 501), again
    assert [entry["code"] for entry in again.json["files"]] == [501] * 50
    assert_all_there(service, folder, some, tmp_path)
