"""What docs/deploying.md says: the units as systemd sees them, and proxies before a service."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

import pytest

from tests.live import servers
from tests.live.servers import Command, listening, program
from tests.live.support import clean_environment
from tests.process.exchange import Answer, Connection, head
from tests.process.running import TWISTD, Process, eventually, free_port, run_to_its_end, running
from tests.process.test_activation import OnPath

PROJECT = Path(__file__).parents[2]
HOWTO = (PROJECT / "docs" / "deploying.md").read_text(encoding="utf-8")
UNITS = ["twistedmedia.service", "twistedmedia.socket"]
EXPOSURE = 15  # tenths, of 100: what `systemd-analyze security` may find at most

# The client's own address: at 127.0.0.1 is the proxy.
CLIENT = "127.0.0.2"
CLAIMED = "192.0.2.7"
HOST = "media.example"
UPLOAD_BYTES = 50 << 20

CADDY = """
{
    admin off
    auto_https off
    default_bind 127.0.0.1
    http_port %d
}
%s
"""


def snippet(language: str) -> str:
    """The one of the howto in this language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", HOWTO, re.MULTILINE | re.DOTALL)
    return str(found)


def replaced(text: str, *changes: tuple[str, str]) -> str:
    """`text` with these changes, each of which has to be one."""
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


# The units


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """A folder with the units, which start the twistd that runs the tests."""
    for name in UNITS:
        text = (PROJECT / "deploy" / name).read_text(encoding="utf-8")
        if name.endswith(".service"):
            text = replaced(text, ("/opt/twistedmedia/bin/twistd", TWISTD))
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def analyze(*arguments: str, cwd: Path) -> str:
    done = subprocess.run(
        ["systemd-analyze", "--no-pager", *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_systemd_finds_nothing_wrong_with_the_units(units: Path) -> None:
    assert analyze("verify", *(str(units / name) for name in UNITS), cwd=units) == ""


def test_the_service_is_exposed_as_little_as_the_howto_says(units: Path) -> None:
    service = str(units / "twistedmedia.service")
    found = analyze("security", "--offline=true", f"--threshold={EXPOSURE}", service, cwd=units)
    level = re.search(r"Overall exposure level for \S+: ([\d.]+)", found)
    assert level is not None, found
    assert f"gives it {level[1]} of 10" in HOWTO


def test_every_option_that_is_named_is_one(tmp_path: Path) -> None:
    texts = [HOWTO, *((PROJECT / "deploy" / name).read_text(encoding="utf-8") for name in UNITS)]
    named = set(re.findall(r"TWISTEDMEDIA_([A-Z_]+)", "\n".join(texts)))
    named |= {found.replace("-", "_").upper() for found in re.findall(r"`--([a-z-]+)", HOWTO)}
    shown = run_to_its_end("media", "--help", cwd=tmp_path).stdout
    known = {found.replace("-", "_").upper() for found in re.findall(r"--([a-z-]+)", shown)}
    assert named <= known
    assert len(named) > 8


def test_the_access_log_is_rotated(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    with running(tmp_path / "area" / "media", "--access-log", str(log)) as service:
        text = replaced(
            snippet("logrotate"),
            ("/var/log/twistedmedia/access.log", str(log)),
            ("systemctl reload twistedmedia.service", f"kill -HUP {service.pid}"),
        )
        configuration = tmp_path / "logrotate.conf"
        configuration.write_text(text, encoding="utf-8")
        configuration.chmod(0o644)
        service.ask("GET", "/health?before")
        eventually("it is written", lambda: "?before" in log.read_text(encoding="ascii"))
        subprocess.run(
            [program("logrotate"), "--force", "--state", tmp_path / "state", configuration],
            check=True,
            timeout=60,
        )
        eventually("there is a new one", log.exists)
        service.ask("GET", "/health?after")
        eventually("it is written", lambda: "?after" in log.read_text(encoding="ascii"))
    assert "?before" not in log.read_text(encoding="ascii")
    old = log.with_name("access.log.1").read_text(encoding="ascii")
    assert "?before" in old
    assert "?after" not in old


# The proxies


class Proxied:
    """A service behind a proxy, and a client of that."""

    def __init__(self, service: Process, port: int) -> None:
        self.service = service
        self.port = port

    def connect(self) -> Connection:
        """A new connection to the proxy, to be closed by its context."""
        to = ("127.0.0.1", self.port)
        return Connection(socket.create_connection(to, 20, source_address=(CLIENT, 0)))

    def ask(
        self,
        method: str,
        target: str,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request on a connection of its own, which claims to come from somewhere else."""
        fields = {"Host": HOST, "X-Forwarded-For": CLAIMED, **(headers or {})}
        with self.connect() as connection:
            return connection.ask(method, target, content, fields)


def nginx(address: str, folder: Path, *changes: tuple[str, str]) -> tuple[Command, int]:
    """The command of one before the service at `address`, and its port."""
    port = free_port()
    if address.startswith("/"):
        address = f"unix:{address}"
    text = replaced(
        snippet("nginx"),
        ("listen 80;", f"listen 127.0.0.1:{port};"),
        ("127.0.0.1:8000;", f"{address};"),
        *changes,
    )
    return servers.nginx(folder, text), port


def chained_nginx(address: str, folder: Path) -> tuple[Command, int]:
    """One that has another proxy in front of it, as the howto says."""
    return nginx(address, folder, ("$remote_addr;", "$proxy_add_x_forwarded_for;"))


def caddy(address: str, folder: Path) -> tuple[Command, int]:
    """The command of one before the service at `address`, and its port."""
    port = free_port()
    if address.startswith("/"):
        address = f"unix/{address}"
    text = replaced(snippet("caddy"), ("127.0.0.1:8000", address))
    (folder / "Caddyfile").write_text(CADDY % (port, text), encoding="ascii")
    command: Command = [program("caddy"), "run", "--config", "Caddyfile"]
    return [*command, "--adapter", "caddyfile"], port


Proxy = Callable[[str, Path], tuple[Command, int]]


@contextmanager
def on_tcp(folder: Path, *options: str) -> Iterator[tuple[Process, str]]:
    with running(folder / "area" / "media", "--access-log", "-", *options) as service:
        yield service, f"127.0.0.1:{service.port}"


@contextmanager
def on_path(folder: Path, *options: str) -> Iterator[tuple[Process, str]]:
    path = folder / "service.sock"
    service = OnPath(path, "--access-log", "-", *options)
    try:
        yield service, str(path)
    finally:
        service.kill()


@contextmanager
def behind(proxy: Proxy, address: str, service: Process, folder: Path) -> Iterator[Proxied]:
    command, port = proxy(address, folder)
    with listening(command, port, folder, {"HOME": str(folder), "XDG_DATA_HOME": str(folder)}):
        yield Proxied(service, port)


@pytest.fixture(params=["tcp", "unix"])
def trusting(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Process, str]]:
    """A service that trusts the proxy on its machine, and its address."""
    if request.param == "tcp":
        with on_tcp(tmp_path, "--trusted-proxy", "127.0.0.1") as service:
            yield service
    else:
        with on_path(tmp_path, "--trusted-proxy", "unix") as service:
            yield service


@pytest.mark.parametrize("proxy", [nginx, chained_nginx, caddy])
def test_everything_goes_through_a_proxy(
    trusting: tuple[Process, str], tmp_path: Path, proxy: Proxy
) -> None:
    service, address = trusting
    with behind(proxy, address, service, tmp_path) as proxied:
        content = Random(proxy.__name__).randbytes(UPLOAD_BYTES)
        fields = {"Host": HOST, "X-Forwarded-For": CLAIMED, "Content-Length": str(UPLOAD_BYTES)}
        with proxied.connect() as upload:
            upload.send(head("PUT", "/media/a/b.wav", fields.items()) + content[: 10 << 20])
            # It has come to the service, as far as it was sent.
            eventually("it streams", lambda: draft_bytes(service) > 8 << 20)
            upload.send(content[10 << 20 :])
            stored = upload.answer()
        assert stored.brief == (201, 200)
        assert stored.files[0]["sha256"] == hashlib.sha256(content).hexdigest()
        assert stored.headers["Location"] == "/media/a/b.wav"

        assert proxied.ask("GET", "/media/a/b.wav").content == content
        part = proxied.ask("GET", "/media/a/b.wav", headers={"Range": "bytes=30000000-30000099"})
        assert (part.status, part.content) == (206, content[30_000_000:30_000_100])
        known = {"If-None-Match": stored.files[0]["etag"]}
        assert proxied.ask("GET", "/media/a/b.wav", headers=known).status == 304

        with proxied.connect() as connection:
            expecting = {"Host": HOST, "Content-Length": "4", "Expect": "100-continue"}
            connection.send(head("PUT", "/media/a/c.wav", expecting.items()))
            assert connection.answer_head()[0] == 100
            connection.send(b"RIFF")
            assert connection.answer().brief == (201, 200)

        own, strange = {"Origin": f"http://{HOST}"}, {"Origin": "http://stranger.example"}
        assert proxied.ask("DELETE", "/media/a/c.wav", headers=strange).brief == (403, 403)
        assert proxied.ask("DELETE", "/media/a/c.wav", headers=own).json["deleted"] is True
        assert proxied.ask("DELETE", "/media/a/b.wav").json["deleted"] is True
        eventually("all is logged", lambda: len(clients_in(service.log, "/media")) == 8)
    assert set(clients_in(service.log, "/media")) == {CLIENT}
    assert f"from {CLAIMED}" not in service.log


def clients_in(log: str, target: str) -> list[str]:
    """Whom the access log's lines name that are about targets that begin so."""
    return re.findall(rf'^(\S+) - - \[.*?\] "[A-Z]+ {target}', log, re.MULTILINE)


def draft_bytes(service: Process) -> int:
    """The bytes that have come of an upload in progress."""
    sizes = [0]
    for number, what in service.descriptors().items():
        with suppress(FileNotFoundError):  # it has been closed since
            if "/media/" in what:
                sizes.append(os.stat(f"/proc/{service.pid}/fd/{number}").st_size)
    return max(sizes)


@pytest.mark.parametrize("proxy", [nginx, caddy])
def test_a_proxy_that_is_not_trusted_is_refused(tmp_path: Path, proxy: Proxy) -> None:
    with (
        on_tcp(tmp_path) as (service, address),
        behind(proxy, address, service, tmp_path) as proxied,
    ):
        assert proxied.ask("GET", "/health").brief == (403, 403)
    assert set(clients_in(service.log, "/health")) == {"127.0.0.1"}


def buffering_nginx(address: str, folder: Path) -> tuple[Command, int]:
    """One that receives an upload before it passes it on."""
    return nginx(address, folder, ("proxy_request_buffering off;", "proxy_request_buffering on;"))


@pytest.mark.parametrize("proxy", [nginx, buffering_nginx, caddy])
def test_what_was_sent_whole_through_a_proxy_is_stored_though_its_client_left(
    trusting: tuple[Process, str], tmp_path: Path, proxy: Proxy
) -> None:
    """Case 51: ffmpeg closes after its last byte, and nginx would give up the request then."""
    service, address = trusting
    content = Random(51).randbytes(70_000)
    with behind(proxy, address, service, tmp_path) as proxied:
        for n in range(20):
            with proxied.connect() as connection:
                fields = {"Host": HOST, "Content-Length": str(len(content))}
                connection.send(head("PUT", f"/media/left/{n}.wav", fields.items()) + content)
                if n % 2:
                    connection.socket.shutdown(socket.SHUT_WR)
            url = f"http://127.0.0.1:{proxied.port}/media/pushed/{n}.mp3"
            tone = ("-f", "lavfi", "-i", "sine=duration=3", "-f", "mp3", "-method", "PUT")
            sent = subprocess.run(
                ["ffmpeg", "-nostdin", "-v", "error", *tone, "-headers", f"Host: {HOST}\r\n", url],
                env=clean_environment(),
                timeout=60,
                check=False,
            )
            assert sent.returncode == 0
        left = [service.root / "left" / f"{n}.wav" for n in range(20)]
        pushed = [service.root / "pushed" / f"{n}.mp3" for n in range(20)]
        for path in (*left, *pushed):
            eventually(f"{path} is stored", path.exists)
        assert {path.read_bytes() for path in left} == {content}
        assert len({path.stat().st_size for path in pushed}) == 1
