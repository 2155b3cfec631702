"""The service starts, or says in one line why not; alone and as a daemon."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.service.exchange import Connection, head
from tests.service.running import Process, eventually, run_to_its_end


@contextmanager
def taken_port() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def assert_one_line(output: str, pattern: str) -> None:
    """One line of the output, and its last, says why; and nothing looks like a crash."""
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
def test_an_option_that_makes_no_sense_ends_the_start(
    tmp_path: Path, options: list[str], pattern: str
) -> None:
    (tmp_path / "a-file").write_bytes(b"")
    (tmp_path / "dangling").symlink_to("nowhere")
    ended = run_to_its_end("-n", "--pidfile=", "media", "--port", "0", *options, cwd=tmp_path)
    assert ended.returncode not in (0, None), ended.stdout
    assert_one_line(ended.stdout, pattern)
    assert sorted(os.listdir(tmp_path)) == ["a-file", "dangling"]


@pytest.mark.parametrize(
    ("variable", "value", "pattern"),
    [
        ("TWISTEDMEDIA_PORT", "99999", "--port: '99999'"),
        ("TWISTEDMEDIA_DURABLE", "maybe", "--durable: 'maybe'"),
        ("TWISTEDMEDIA_INTERFACE", "0.0.0.0", "--interface: .*--open"),
    ],
)
def test_a_variable_that_makes_no_sense_ends_the_start(
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


def test_only_loopback_is_listened_on(serve: Callable[..., Process]) -> None:
    service = serve()
    listening = [
        line.split()[1]
        for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
        if line.split()[3] == "0A" and int(line.split()[1].partition(":")[2], 16) == service.port
    ]
    assert [address.partition(":")[0] for address in listening] == ["0100007F"]


def test_open_listens_where_it_is_told(serve: Callable[..., Process]) -> None:
    """Still asked from this machine, by another of its loopback addresses."""
    service = serve("--open", "--interface", "0.0.0.0")
    with socket.create_connection(("127.0.0.2", service.port), 5) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert connection.recv(12) == b"HTTP/1.0 404"


def test_without_durability_everything_else_is_as_with_it(serve: Callable[..., Process]) -> None:
    service = serve("--no-durable")
    assert service.ask("PUT", "/media/a/b.wav", b"x").brief == (201, 200)
    assert service.ask("PUT", "/media/a/b.wav", b"x").brief == (409, 501)
    assert service.ask("DELETE", "/media/a/b.wav").json["deleted"] is True
    assert service.tree() == []


@contextmanager
def daemon(folder: Path, *options: str) -> Iterator[int]:
    """`twistd media` as a daemon in `folder`, and its process id. Ended at the end, if it runs."""
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
        found = re.search(r"starting on (\d+)", log.read_text(encoding="utf-8"))
        assert found is not None
        port = int(found[1])
        with Connection(port) as connection:
            # threads, which no fork carries over, are there
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
    """A process that nobody has waited for yet has ended all the same."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except FileNotFoundError:
        return True
    return status.rpartition(")")[2].split()[0] in "ZX"


@pytest.mark.parametrize("why", ["port", "root"])
def test_a_daemon_that_cannot_start_says_so_in_its_log(
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
    eventually("nothing of it stays", lambda: not (tmp_path / "service.pid").exists())
