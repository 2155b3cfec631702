"""The HTTP clients that people use: each sends a file under a name with an umlaut and one of an
emoji, with a length, as a form, in chunks, and after `100 Continue`; fetches one, and finishes a
download that broke off (case 83).

`CLIENTS` says how each client does each of these, or why it cannot.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from tests.live.overhearing import overhearing
from tests.live.recording import recording
from tests.live.support import clean_environment
from tests.process.running import Process

PROGRAMS = Path(__file__).with_name("clients")
CONTENT = Random(83).randbytes(300_001)
CUT = 123_456
NAMES = ("grüße.wav", "🎺.wav")
UPLOADS = ("put", "form", "chunked", "expect")
READINGS = ("download", "resume")


@dataclass(frozen=True)
class Cannot:
    """Why a client cannot do something."""

    why: str


Command = tuple[str, ...]

_CURL = ("curl", "-q", "-sS", "--fail-with-body")
_WGET = ("wget", "--no-config", "-q", "--tries=1", "-T", "20")
_WGET_PUT = (*_WGET, "-O", "-", "--method=PUT", "--body-file={file}")
_RCLONE = ("rclone", "--config=", "--retries=1", "--low-level-retries=1")
_RCLONE_HTTP = ":http,url='{base}':{path}"
_NO_WEBDAV = Cannot(
    "it uploads over HTTP to WebDAV servers only: its PUT is stored, but then it asks PROPFIND, is "
    "answered 405, and calls the transfer failed"
)


def _program(*command: str) -> dict[str, Command | Cannot]:
    """A program of ours, which can do everything."""
    return {
        operation: (*command, operation, "{form}" if operation == "form" else "{url}", "{file}")
        + (("{directory}",) if operation == "form" else ())
        for operation in (*UPLOADS, *READINGS)
    }


def _python(name: str) -> dict[str, Command | Cannot]:
    return _program(sys.executable, str(PROGRAMS / name))


CLIENTS: dict[str, dict[str, Command | Cannot]] = {
    "curl": {
        "put": (*_CURL, "-H", "Expect:", "-T", "{file}", "{url}"),
        "form": (*_CURL, "-F", "{directory}=@{file}", "{form}"),
        "chunked": (*_CURL, "-H", "Transfer-Encoding: chunked", "-T", "{file}", "{url}"),
        "expect": (*_CURL, "-H", "Expect: 100-continue", "-T", "{file}", "{url}"),
        "download": (*_CURL, "-o", "{file}", "{url}"),
        "resume": (*_CURL, "-C", "-", "-o", "{file}", "{url}"),
    },
    "wget": {
        "put": (*_WGET_PUT, "{url}"),
        "form": Cannot("it sends no multipart forms"),
        "chunked": Cannot("it always sends a length"),
        # It does not wait for 100 Continue, but passes it over.
        "expect": (*_WGET_PUT, "--header=Expect: 100-continue", "{url}"),
        "download": (*_WGET, "-O", "{file}", "{url}"),
        "resume": (*_WGET, "-c", "-O", "{file}", "{url}"),
    },
    "rclone": {
        **dict.fromkeys(UPLOADS, _NO_WEBDAV),
        "download": (*_RCLONE, "copyto", _RCLONE_HTTP, "{file}"),
        # It finishes no file that it has begun, but reads from an offset, by a Range.
        "resume": (
            "sh",
            "-c",
            f'{" ".join(_RCLONE)} cat --no-traverse --offset {CUT} "$0" >>"$1"',
            _RCLONE_HTTP,
            "{file}",
        ),
    },
    "requests": _python("with_requests.py"),
    "urllib3 before 1.25": {
        **dict.fromkeys(
            (*UPLOADS, *READINGS), Cannot("only its forms differ from those of requests")
        ),
        "form": _python("with_urllib3.py")["form"],
    },
    "httpx": _python("with_httpx.py"),
    "aiohttp": _python("with_aiohttp.py"),
    "fetch of Node": {
        **_program("node", str(PROGRAMS / "with_fetch.mjs")),
        "expect": Cannot("fetch refuses the header Expect"),
    },
    "HttpClient of Java": _program("java", "-cp", "{classes}", "WithHttpClient"),
    "HttpClient of .NET, its bytes": _python("like_dotnet.py"),
}


def can(*operations: str, names: tuple[str, ...] = NAMES[:1]) -> list[tuple[str, str, str]]:
    """Each client with each of these operations that it can do, and each of these names."""
    return [
        (client, operation, name)
        for client, table in CLIENTS.items()
        for operation in operations
        if not isinstance(table[operation], Cannot)
        for name in names
    ]


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the compiled Java program."""
    folder = tmp_path_factory.mktemp("classes")
    source = PROGRAMS / "WithHttpClient.java"
    subprocess.run(["javac", "-d", folder, source], check=True, timeout=120)
    return folder


def run(
    client: str, operation: str, name: str, port: int, folder: str, classes: Path, cwd: Path
) -> None:
    """Have a client do something with the file `name` of the folder. It has to succeed."""
    command = CLIENTS[client][operation]
    assert not isinstance(command, Cannot), command
    base = f"http://127.0.0.1:{port}/media"
    words = {
        "{url}": f"{base}/{folder}/{name}",
        "{form}": base,
        "{base}": base,
        "{path}": f"{folder}/{name}",
        "{directory}": folder,
        "{file}": name,
        "{classes}": str(classes),
    }
    filled = []
    for word in command:
        for placeholder, value in words.items():
            word = word.replace(placeholder, value)
        filled.append(word)
    done = subprocess.run(
        filled,
        cwd=cwd,
        env=clean_environment() | {"LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_the_table_says_of_every_client_how_it_does_everything_or_why_it_cannot() -> None:
    for client, table in CLIENTS.items():
        assert sorted(table) == sorted((*UPLOADS, *READINGS)), client
        for operation, way in table.items():
            assert way.why if isinstance(way, Cannot) else way, (client, operation)


@pytest.mark.parametrize(
    ("client", "operation", "name"),
    [*can("put", "form", names=NAMES), *can("chunked", "expect")],
)
def test_what_a_client_sends_is_stored_under_the_name_that_was_meant(
    service: Process,
    folder: str,
    tmp_path: Path,
    classes: Path,
    client: str,
    operation: str,
    name: str,
) -> None:
    """Cases 61 and 83."""
    (tmp_path / name).write_bytes(CONTENT)
    with overhearing(service.port) as overhearer:
        run(client, operation, name, overhearer.port, folder, classes, tmp_path)
    assert [path.name for path in (service.root / folder).iterdir()] == [name]
    assert (service.root / folder / name).read_bytes() == CONTENT
    asked = overhearer.asked
    if operation in ("put", "form"):
        assert int(asked["Content-Length"]) >= len(CONTENT)
    elif operation == "chunked":
        assert asked["Transfer-Encoding"].lower() == "chunked"
    else:
        assert asked["Expect"].lower() == "100-continue"


@pytest.mark.parametrize(("client", "operation", "name"), can(*READINGS))
def test_what_a_client_fetches_is_what_is_stored_byte_for_byte(
    service: Process,
    folder: str,
    tmp_path: Path,
    classes: Path,
    client: str,
    operation: str,
    name: str,
) -> None:
    """Case 83."""
    (service.root / folder).mkdir()
    (service.root / folder / name).write_bytes(CONTENT)
    if operation == "resume":
        (tmp_path / name).write_bytes(CONTENT[:CUT])
    with recording(service.port) as recorder:
        run(client, operation, name, recorder.port, folder, classes, tmp_path)
    assert (tmp_path / name).read_bytes() == CONTENT
    last = recorder.exchanges[-1]
    if operation == "resume":
        assert last.brief == (f"bytes={CUT}-", 206)
        assert last.passed == len(CONTENT) - CUT
    else:
        assert last.status == 200


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("piece", [1, 13, 1000])
def test_a_form_of_dotnet_is_understood_in_pieces_of_any_size(
    service: Process, folder: str, tmp_path: Path, piece: int, name: str
) -> None:
    """Cases 61 and 83."""
    content = CONTENT[:5000]
    (tmp_path / name).write_bytes(content)
    url = f"http://127.0.0.1:{service.port}/media"
    program = [sys.executable, PROGRAMS / "like_dotnet.py"]
    subprocess.run(
        [*program, "form", url, name, folder, str(piece)], cwd=tmp_path, check=True, timeout=60
    )
    assert (service.root / folder / name).read_bytes() == content
