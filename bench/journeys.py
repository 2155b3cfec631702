"""
Counts the modules of the package that a request enters, from the connection to its end.

The fewer there are, the fewer files has a reader to open who follows a request. Usage, from any
folder: ``python bench/journeys.py [--names]``. Prints one line for each kind of request; with
``--names`` the modules as well.

The service runs in this process, as twistd would run it, and a profile function of each thread
notes whose functions are called. A client in a process of its own sends one request on one
connection, twice: what only the first one enters is not counted.
"""

from __future__ import annotations

import argparse
import re
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from base64 import b64encode
from pathlib import Path
from types import FrameType
from typing import Any

from twisted.internet import reactor
from twisted.internet.threads import deferToThread

import twistedmedia
from twistedmedia.service.tap import Options, makeService

PACKAGE = Path(twistedmedia.__file__).parent
SETTLE_S = 0.05  # after a request: what follows the end of its connection

_SMALL = 16 << 10
_LARGE = 1 << 20
_CLIENT = """
import socket, sys
port, request = int(sys.argv[1]), sys.stdin.buffer.read()
with socket.create_connection(("127.0.0.1", port)) as connection:
    connection.sendall(request)
    response = b""
    while piece := connection.recv(1 << 20):
        response += piece
head, _, content = response.partition(b"\\r\\n\\r\\n")
sys.stdout.buffer.write(head + b"\\r\\n\\r\\n" + content[:200])
"""


def wav(size: int) -> bytes:
    """Silence of telephony, `size` bytes in all."""
    content = size - 44
    facts = (16, 1, 1, 8000, 16000, 2, 16)
    layout = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", size - 8, b"WAVE", b"fmt ", *facts)
    return layout + struct.pack("<4sI", b"data", content) + b"\0" * content


def request(method: str, target: str, content: bytes = b"", *headers: str) -> bytes:
    """One request, after which the connection ends."""
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost", "Connection: close", *headers]
    if content or method in ("PUT", "POST", "PATCH"):
        lines.append(f"Content-Length: {len(content)}")
    return "\r\n".join([*lines, "", ""]).encode() + content


def _form(name: str, content: bytes) -> bytes:
    body = (
        b'--bound\r\nContent-Disposition: form-data; name="file"; filename="'
        + name.encode()
        + b'"\r\n\r\n'
        + content
        + b"\r\n--bound--\r\n"
    )
    return request("POST", "/media/", body, "Content-Type: multipart/form-data; boundary=bound")


_TUS = "Tus-Resumable: 1.0.0"
_PATCH = (_TUS, "Upload-Offset: 0", "Content-Type: application/offset+octet-stream")


class _Journeys:
    """Sends requests to the service at `port` and reports the modules that each kind enters."""

    def __init__(self, port: int, fetch_url: str, entered: set[str]) -> None:
        self._port = port
        self._fetch_url = fetch_url
        self._entered = entered

    def run(self) -> dict[str, set[str]]:
        """The modules by kind of request. Blocks; for a thread."""
        small = wav(_SMALL)
        found: dict[str, set[str]] = {}
        for turn in ("first", "second"):  # the second replaces what the first has found
            found["multipart upload"] = self._modules(_form(f"form-{turn}.wav", small))
            found["PUT"] = self._modules(request("PUT", f"/media/clips/put-{turn}.wav", small))
            found["small GET"] = self._modules(request("GET", f"/media/clips/put-{turn}.wav"))
            found["listing"] = self._modules(request("GET", "/media/clips/"))
            found["tus POST"], upload = self._created(f"tus-{turn}.wav")
            found["tus PATCH, last"] = self._modules(request("PATCH", upload, small, *_PATCH))
            fetch = f"/fetch?url={self._fetch_url}"
            found["fetch"] = self._modules(request("GET", fetch))
            fields = f"url={self._fetch_url}&directory=clips&filename=import-{turn}.wav".encode()
            form = "Content-Type: application/x-www-form-urlencoded"
            found["import"] = self._modules(request("POST", "/media/", fields, form))
            found["DELETE"] = self._modules(request("DELETE", f"/media/clips/put-{turn}.wav"))
        return found

    def _created(self, name: str) -> tuple[set[str], str]:
        """The modules that creating a resumable upload enters, and the path of that upload."""
        pairs = {"directory": "clips", "filename": name}
        encoded = (f"{key} {b64encode(value.encode()).decode()}" for key, value in pairs.items())
        metadata = f"Upload-Metadata: {','.join(encoded)}"
        length = f"Upload-Length: {_SMALL}"
        entered, head = self._journey(request("POST", "/uploads/", b"", _TUS, length, metadata))
        location = re.search(rb"(?im)^location: \S*(/uploads/\S+)", head)
        assert location is not None
        return entered, location[1].decode()

    def _modules(self, sent: bytes) -> set[str]:
        return self._journey(sent)[0]

    def _journey(self, sent: bytes) -> tuple[set[str], bytes]:
        """Send a request. The modules that it enters, and the beginning of the response."""
        self._entered.clear()
        client = [sys.executable, "-c", _CLIENT, str(self._port)]
        answer = subprocess.run(client, input=sent, stdout=subprocess.PIPE, check=True).stdout
        time.sleep(SETTLE_S)
        entered = set(self._entered)
        if not answer.split(b" ", 2)[1].startswith(b"2"):
            raise SystemExit(f"{sent[:80]!r} was answered by {answer[:400]!r}")
        return entered, answer


def main() -> None:
    """Print how many modules each kind of request enters."""
    parser = argparse.ArgumentParser(description="modules that a request enters")
    parser.add_argument("--names", action="store_true", help="print the modules as well")
    with_names = parser.parse_args().names
    entered: set[str] = set()
    prefix = str(PACKAGE)

    def note(frame: FrameType, event: str, argument: Any) -> None:
        path = frame.f_code.co_filename
        if path.startswith(prefix) and frame.f_code.co_name != "<module>":
            entered.add(path)

    threading.setprofile(note)
    with tempfile.TemporaryDirectory() as folder:
        _serve(Path(folder), entered, note, with_names)


def _serve(folder: Path, entered: set[str], note: Any, with_names: bool) -> None:
    port, upstream_port = _free_port(), _free_port()
    (folder / "clip.wav").write_bytes(wav(_LARGE))
    upstream = subprocess.Popen(
        [sys.executable, "-m", "http.server", "-b", "127.0.0.1", "-d", folder, str(upstream_port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    options = Options()
    given = ["--port", str(port), "--root", str(folder / "root"), "--fetch-allow", "127.0.0.1"]
    options.parseOptions(given)  # type: ignore[no-untyped-call]
    service = makeService(options)
    journeys = _Journeys(port, f"http://127.0.0.1:{upstream_port}/clip.wav", entered)

    def measure() -> None:
        sys.setprofile(note)
        deferToThread(_after_start, journeys).addCallbacks(report, fail).addBoth(stop)

    def report(found: dict[str, set[str]]) -> None:
        sys.setprofile(None)
        for kind, modules in found.items():
            print(f"{kind:20} {len(modules):3}")
            if with_names:
                for module in sorted(modules):
                    print("   ", Path(module).relative_to(PACKAGE))

    def fail(failure: Any) -> None:
        print(failure.getErrorMessage(), file=sys.stderr)

    def stop(_: object) -> None:
        upstream.terminate()
        reactor.stop()  # type: ignore[attr-defined]

    reactor.callWhenRunning(measure)  # type: ignore[attr-defined]
    reactor.addSystemEventTrigger(  # type: ignore[attr-defined]
        "before", "shutdown", service.stopService
    )
    service.privilegedStartService()
    service.startService()
    reactor.run()  # type: ignore[attr-defined]


def _after_start(journeys: _Journeys) -> dict[str, set[str]]:
    time.sleep(1)  # the upstream, and what follows the start of the service
    return journeys.run()


def _free_port() -> int:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        return int(reserved.getsockname()[1])


if __name__ == "__main__":
    main()
