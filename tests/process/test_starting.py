"""The service starts, in the foreground or as a daemon, or reports in one line why not."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fetch.test_certificates import Authority
from tests.process.exchange import Connection, head
from tests.process.running import (
    START_S,
    TWISTD,
    Process,
    environment,
    eventually,
    run_to_its_end,
    running,
)
from twistedmedia import __version__


@contextmanager
def taken_port() -> Iterator[int]:
    """A port on which another socket listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def assert_one_line(output: str, pattern: str) -> None:
    """Check that only the last line of `output` gives the reason, and that it has no traceback."""
    assert "Traceback" not in output, output
    lines = output.rstrip().splitlines()
    assert [line for line in lines if re.search(pattern, line)] == lines[-1:], output


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        (["--port", "99999"], "--port: '99999'"),
        (["--port", "http"], "--port: 'http'"),
        (["--interface", "nowhere"], "--interface: 'nowhere'"),
        (["--interface", "0.0.0.0"], "--interface: .*--open"),
        (["--formats", "mp3,exe"], "--formats: 'exe'.*known are mp3"),
        (["--formats", ""], "--formats: "),
        (["--max-upload", "much"], "--max-upload: 'much'"),
        (["--max-form", "8GiBs"], "--max-form: '8GiBs'"),
        (["--max-uploads", "0"], "--max-uploads: '0'"),
        (["--disk-threads", "0"], "--disk-threads: '0'"),
        (["--root", "a-file"], "--root: .*a-file"),
        (["--root", "a-file/media"], "--root: .*a-file"),
        (["--root", "dangling"], "--root: .*dangling"),
        (["--root", "/proc/media"], "--root: .*/proc/media"),
        (["--nonsense"], "--nonsense"),
        (["argument"], "argument|Wrong number"),
    ],
)
def test_an_invalid_option_ends_the_start(tmp_path: Path, options: list[str], pattern: str) -> None:
    (tmp_path / "a-file").write_bytes(b"")
    (tmp_path / "dangling").symlink_to("nowhere")
    ended = run_to_its_end("-n", "--pidfile=", "media", "--port", "0", *options, cwd=tmp_path)
    assert ended.returncode not in (0, None), ended.stdout
    assert_one_line(ended.stdout, pattern)
    assert "Usage:" not in ended.stdout
    assert sorted(os.listdir(tmp_path)) == ["a-file", "dangling"]


# Errors that do not depend on the machine are found before anything is started or logged. They give
# one line on stderr and nothing else, with each of the three ways to start.
TWIST = os.path.join(os.path.dirname(TWISTD), "twist")
WAYS = {
    "foreground": [TWISTD, "-n", "--pidfile=", "media"],
    "daemon": [TWISTD, "media"],
    "twist": [TWIST, "media"],
}


def started(
    way: str, *options: str, cwd: Path, more: Mapping[str, str] | None = None, **how: Any
) -> subprocess.CompletedProcess[str]:
    """The outcome of a start that ends by itself."""
    return subprocess.run(
        [*WAYS[way], *options],
        cwd=cwd,
        env=environment(more),
        capture_output=True,
        text=True,
        timeout=START_S,
        check=False,
        **how,
    )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("options", "variables", "pattern"),
    [
        (["--port", "99999"], {}, "--port: '99999' is not a port"),
        (["--prot", "80"], {}, "option --prot .*twistd media --help"),
        (["--root", "a-file"], {}, "--root: .*a-file is not a folder"),
        ([], {"PORT": "http"}, r"--port: 'http' .*\(set by TWISTEDMEDIA_PORT\)"),
        ([], {"MAX_UPLAOD": "1GiB"}, "TWISTEDMEDIA_MAX_UPLAOD .*TWISTEDMEDIA_MAX_UPLOAD"),
    ],
)
def test_an_invalid_option_is_one_line_on_stderr_without_the_help_text(
    tmp_path: Path, way: str, options: list[str], variables: dict[str, str], pattern: str
) -> None:
    """Cases 80 and 81."""
    (tmp_path / "a-file").write_bytes(b"")
    more = {f"TWISTEDMEDIA_{name}": value for name, value in variables.items()}
    ended = started(way, *options, cwd=tmp_path, more=more)
    assert ended.returncode not in (0, None)
    assert ended.stdout == ""
    assert re.fullmatch(f"twistedmedia cannot start: {pattern}.*\n", ended.stderr), ended.stderr
    assert os.listdir(tmp_path) == ["a-file"]


@pytest.mark.parametrize(
    ("options", "variables"), [(["--access-log", "-"], {}), ([], {"ACCESS_LOG": "-"})]
)
def test_a_daemon_refuses_an_access_log_on_its_standard_output(
    tmp_path: Path, options: list[str], variables: dict[str, str]
) -> None:
    """A daemon does not have a standard output, so the lines would be lost."""
    more = {f"TWISTEDMEDIA_{name}": value for name, value in variables.items()}
    ended = started("daemon", *options, "--port", "0", cwd=tmp_path, more=more)
    assert ended.returncode not in (0, None)
    by = r" \(set by TWISTEDMEDIA_ACCESS_LOG\)" if variables else ""
    pattern = f"twistedmedia cannot start: --access-log: - is .*; name a file, .* -n{by}\n"
    assert re.fullmatch(pattern, ended.stderr), ended.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("way", WAYS)
def test_the_version_is_printed(tmp_path: Path, way: str) -> None:
    ended = started(way, "--version", cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (0, f"twistedmedia {__version__}\n")


def drop_privileges_of_root() -> None:
    """Make permissions hold for a child process of root."""
    drop_from_bounding_set, dac_override, dac_read_search = 24, 1, 2  # prctl(2), capabilities(7)
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() == 0:
        for capability in (dac_override, dac_read_search):
            assert libc.prctl(drop_from_bounding_set, capability, 0, 0, 0) == 0


@pytest.mark.parametrize("way", ["foreground", "twist"])
@pytest.mark.parametrize(
    ("root", "mode"), [("unreadable", 0o300), ("unwritable", 0o500), ("closed", 0o000)]
)
@pytest.mark.parametrize("is_missing", [False, True])
def test_a_root_without_permissions_ends_the_start_in_one_line(
    tmp_path: Path, way: str, root: str, mode: int, is_missing: bool
) -> None:
    """Case 80. If the root is missing, the folder above it has no permissions."""
    if is_missing and root == "unreadable":
        mode = 0o500  # the folder above need not be read
    folder = tmp_path / root
    folder.mkdir(mode=mode)
    given = folder / "media" if is_missing else folder
    options = ["--port", "0", "--root", str(given)]
    ended = started(way, *options, cwd=tmp_path, preexec_fn=drop_privileges_of_root)
    folder.chmod(0o700)
    assert ended.returncode not in (0, None), ended.stdout
    said = ended.stdout + ended.stderr
    pattern = f"cannot start: --root: the root {given} cannot be used: Permission denied"
    assert_one_line(said, pattern)
    assert os.listdir(folder) == []


def test_the_error_of_a_port_in_use_names_its_variable(tmp_path: Path) -> None:
    """Case 80."""
    with taken_port() as port:
        more = {"TWISTEDMEDIA_PORT": str(port), "TWISTEDMEDIA_ROOT": "media"}
        ended = run_to_its_end("-n", "--pidfile=", "media", cwd=tmp_path, more=more)
    assert_one_line(
        ended.stdout, rf"cannot start: --port: .*{port}.*in use.*\(set by TWISTEDMEDIA_PORT\)"
    )


def own_lines(log: str) -> list[str]:
    """The log without the lines of twistd and Twisted."""
    return re.findall(r"\[twistedmedia\.\S+#\w+\] (.*)", log)


def test_the_log_begins_with_the_url_to_open(serve: Callable[..., Process]) -> None:
    service = serve()
    assert own_lines(service.log)[0] == f"listening on http://127.0.0.1:{service.port}/"
    assert not re.search(r"--open|#warn", service.log)


def test_the_log_begins_with_the_urls_of_all_endpoints(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(Authority("localhost").pem)
    endpoints = [
        "tcp:0:interface=127.0.0.1",
        f"ssl:0:interface=127.0.0.1:privateKey={tmp_path}/key.pem",
        f"unix:{tmp_path}/media.sock",
    ]
    listen = [f"--listen={endpoint}" for endpoint in endpoints]
    with running(tmp_path / "area" / "media", *listen) as service:
        plain, encrypted, path = own_lines(service.log)[:3]
        assert plain == f"listening on http://127.0.0.1:{service.port}/"
        secured = re.fullmatch(r"listening on https://127\.0\.0\.1:(\d+)/", encrypted)
        assert secured is not None
        assert int(secured[1]) not in (0, service.port)
        assert path == f"listening on unix:{tmp_path}/media.sock"
        assert stat.S_IMODE((tmp_path / "media.sock").stat().st_mode) == 0o660  # case 82
        client = ssl.create_default_context(cafile=str(tmp_path / "key.pem"))
        with (
            socket.create_connection(("127.0.0.1", int(secured[1])), 5) as connection,
            client.wrap_socket(connection, server_hostname="localhost") as tls,
        ):
            tls.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            assert tls.recv(12) == b"HTTP/1.0 200"


@pytest.mark.parametrize(
    ("more", "may"),
    [([], "read, write, delete and fetch"), (["--no-fetch"], "read, write and delete")],
)
def test_open_warns(serve: Callable[..., Process], more: list[str], may: str) -> None:
    service = serve("--open", *more)
    warnings = re.findall(r"#warn\] (.*)", service.log)
    assert warnings == [f"--open: everyone who can connect may {may}"]
    assert own_lines(service.log)[0] == f"listening on http://127.0.0.1:{service.port}/"


def test_twist_listens_too(tmp_path: Path) -> None:
    """`twist` starts services in one step, `twistd` in two."""
    log = tmp_path / "twist.log"
    service = Process(
        [TWIST, "--log-format=text", "media", "--port", "0", "--root", str(tmp_path / "media")],
        tmp_path,
        log,
        tmp_path / "media",
    )
    try:
        assert service.ask("PUT", "/media/a/b.wav", b"x").brief == (201, 200)
        assert service.stop() == -signal.SIGTERM
    finally:
        service.kill()


def test_a_connection_is_kept_as_long_as_the_option_says(serve: Callable[..., Process]) -> None:
    """Case 67."""
    service = serve("--keep-alive", "1s")
    with service.connect() as connection:
        began = time.monotonic()  # before the response, which may be seen late
        assert connection.ask("GET", "/health").status == 200
        assert connection.read_to_the_end() == b""
        assert 0.9 < time.monotonic() - began < 15  # the default is 75 s


@pytest.mark.parametrize(
    ("variable", "value", "pattern"),
    [
        ("TWISTEDMEDIA_PORT", "99999", "--port: '99999'"),
        ("TWISTEDMEDIA_DURABLE", "maybe", "--durable: 'maybe'"),
        ("TWISTEDMEDIA_INTERFACE", "0.0.0.0", "--interface: .*--open"),
    ],
)
def test_an_invalid_variable_ends_the_start(
    tmp_path: Path, variable: str, value: str, pattern: str
) -> None:
    ended = run_to_its_end("-n", "--pidfile=", "media", cwd=tmp_path, more={variable: value})
    assert ended.returncode not in (0, None), ended.stdout
    assert_one_line(ended.stdout, pattern)


def test_a_port_in_use_ends_the_start(tmp_path: Path) -> None:
    with taken_port() as port:
        ended = run_to_its_end(
            "-n", "--pidfile=", "media", "--port", str(port), "--root", "media", cwd=tmp_path
        )
    assert ended.returncode not in (0, None), ended.stdout
    assert_one_line(ended.stdout, f"cannot start: --port: .*{port}.*in use")


def test_a_root_in_use_by_another_service_ends_the_start(
    serve: Callable[..., Process], tmp_path: Path
) -> None:
    service = serve()
    ended = run_to_its_end(
        "-n", "--pidfile=", "media", "--port", "0", "--root", str(service.root), cwd=tmp_path
    )
    assert ended.returncode not in (0, None), ended.stdout
    assert_one_line(ended.stdout, "cannot start: --root: another service uses")
    assert service.ask("PUT", "/media/a/b.wav", b"x").status == 201


def test_help_names_every_option(tmp_path: Path) -> None:
    shown = run_to_its_end("media", "--help", cwd=tmp_path)
    assert shown.returncode == 0
    options = (
        "port interface open root formats max-upload max-form max-uploads disk-threads durable"
    )
    for option in [*options.split(), "no-durable"]:
        assert re.search(rf"--{option}[ =]", shown.stdout), option


def test_the_service_listens_on_loopback_only(serve: Callable[..., Process]) -> None:
    service = serve()
    listening = [
        line.split()[1]
        for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
        if line.split()[3] == "0A" and int(line.split()[1].partition(":")[2], 16) == service.port
    ]
    assert [address.partition(":")[0] for address in listening] == ["0100007F"]


def test_with_open_the_service_listens_on_any_interface(serve: Callable[..., Process]) -> None:
    """The client connects to another loopback address of this machine."""
    service = serve("--open", "--interface", "0.0.0.0")
    with socket.create_connection(("127.0.0.2", service.port), 5) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert connection.recv(12) == b"HTTP/1.0 404"


def test_without_durability_the_responses_are_the_same(serve: Callable[..., Process]) -> None:
    service = serve("--no-durable")
    assert service.ask("PUT", "/media/a/b.wav", b"x").brief == (201, 200)
    assert service.ask("PUT", "/media/a/b.wav", b"x").brief == (409, 501)
    assert service.ask("DELETE", "/media/a/b.wav").json["deleted"] is True
    assert service.tree() == []


@contextmanager
def daemon(folder: Path, *options: str) -> Iterator[int]:
    """Run `twistd media` as a daemon in `folder`. Yields its process id, and kills it then."""
    pidfile = folder / "service.pid"
    ended = run_to_its_end(
        "--pidfile", "service.pid", "--logfile", "service.log", "media", *options, cwd=folder
    )
    assert ended.returncode == 0, ended.stdout
    pid = int(pidfile.read_text(encoding="ascii"))
    try:
        yield pid
    finally:
        if pidfile.exists():
            os.kill(pid, signal.SIGKILL)


def test_a_daemon_starts_serves_and_stops(tmp_path: Path) -> None:
    with daemon(tmp_path, "--port", "0", "--root", "media", "--grace", "1s") as pid:
        log = tmp_path / "service.log"

        def ports() -> list[str]:
            return re.findall(r"starting on (\d+)\n", log.read_text(encoding="utf-8"))

        eventually("the log says the port", lambda: len(ports()) == 1)  # a thread writes it
        port = int(ports()[0])
        with Connection(port) as connection:
            # it has threads, which do not survive a fork
            assert connection.ask("PUT", "/media/a/b.wav", b"x" * 100_000).brief == (201, 200)
            assert connection.ask("GET", "/media/a/b.wav").content == b"x" * 100_000
        # --root was relative to the folder of the start
        assert (tmp_path / "media" / "a" / "b.wav").stat().st_size == 100_000
        upload = Connection(port)
        upload.send(head("PUT", "/media/a/c.wav", [("Content-Length", "1000000")]) + b"x" * 9999)
        os.kill(pid, signal.SIGTERM)
        eventually("its pidfile goes", lambda: not (tmp_path / "service.pid").exists())
        assert upload.read_to_the_end() == b""
        upload.close()
        eventually("it ends", lambda: has_ended(pid))
    assert os.listdir(tmp_path / "media" / "a") == ["b.wav"]
    assert "Server Shut Down" in log.read_text(encoding="utf-8")
    assert "Traceback" not in log.read_text(encoding="utf-8")


def has_ended(pid: int) -> bool:
    """Whether the process has ended. It may be a zombie."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return True
    return status.rpartition(")")[2].split()[0] in "ZX"


@pytest.mark.parametrize("why", ["port", "root"])
def test_a_daemon_that_cannot_start_logs_the_reason(
    tmp_path: Path, serve: Callable[..., Process], why: str
) -> None:
    service = serve()
    options = {
        "port": ["--port", str(service.port), "--root", "another"],
        "root": ["--port", "0", "--root", str(service.root)],
    }[why]
    ended = run_to_its_end(
        "--pidfile", "service.pid", "--logfile", "service.log", "media", *options, cwd=tmp_path
    )
    assert ended.returncode not in (0, None), ended.stdout
    log = (tmp_path / "service.log").read_text(encoding="utf-8")
    lines = [line for line in log.splitlines() if "cannot start" in line]
    assert len(lines) == 1, log
    assert f"--{why}: " in lines[0]
    assert "Traceback" not in log, log
    eventually("its pidfile is removed", lambda: not (tmp_path / "service.pid").exists())


FULL = """
import sys
from twisted.internet import reactor
from twisted.internet.interfaces import IListeningPort
from twistedmedia.service.endpoints import endpoint_from
from twistedmedia.library.library import Library, UploadLimits
from twistedmedia.service.service import MediaService, ServiceEndpoint
from twistedmedia.store.local.directory import DirectoryStore
from twistedmedia.web.tree import media_resource
from twistedmedia.http.site import MediaSite

class FullSite(MediaSite):
    def would_drop(self, addr):
        return True

store = DirectoryStore(reactor, "media")
library = Library(store, UploadLimits())
site = FullSite(media_resource(library), reactor)
made = [endpoint_from(reactor, text) for text in sys.argv[1:]]
endpoints = [ServiceEndpoint(endpoint, "--listen", False) for endpoint in made]
MediaService(reactor, endpoints, site, library, store).privilegedStartService()
ports = [reader for reader in reactor.getReaders() if IListeningPort.providedBy(reader)]
assert len(ports) == len(endpoints)
assert [port.factory.buildProtocol(port.getHost()) for port in ports] == [None] * len(ports)
"""


def test_each_port_asks_the_site_whether_to_reject_a_connection(tmp_path: Path) -> None:
    """Case 91. It asks before a protocol is made for the connection, also for TLS."""
    (tmp_path / "key.pem").write_bytes(Authority("localhost").pem)
    local = "interface=127.0.0.1"
    endpoints = [f"tcp:0:{local}", f"ssl:0:{local}:privateKey=key.pem", "unix:media.sock"]
    done = subprocess.run(
        [sys.executable, "-c", FULL, *endpoints],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
