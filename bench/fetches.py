"""The scenarios in which servers fetch from a slow service, which is upstream.py."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import users
from scenario import Entry, Figures, Measure, Scenario, Sizes
from servers import Launch, Running, Server, free_port, missing_module, twistedmedia

_BENCH = Path(__file__).resolve().parent
_PORT = free_port()  # the upstream's, which servers are told when they start
_UPSTREAM = f"http://127.0.0.1:{_PORT}/"
_HANGING = 500

_OURS = f"/fetch?url={_UPSTREAM}" + "{n}"
_THEIRS = "/fetch/{n}"


def _script(name: str, module: str, path: Path, *options: str) -> Server:
    def command(launch: Launch) -> list[str]:
        given = [option.replace("PORT", str(launch.port)) for option in options]
        return [sys.executable, str(path), *given]

    return Server(name, command, lambda: missing_module(module), has_probe=False)


_TWISTEDMEDIA = twistedmedia(f"--fetch-allow=127.0.0.1:{_PORT}")
_TORNADO = _script(
    "tornado coroutine",
    "tornado",
    _BENCH / "peers" / "tornado_fetch.py",
    "--port=PORT",
    f"--upstream={_UPSTREAM}",
)
_AIOHTTP = _script(
    "aiohttp coroutine",
    "aiohttp",
    _BENCH / "peers" / "aiohttp_fetch.py",
    "--port=PORT",
    f"--upstream={_UPSTREAM}",
)
_STYLES = {
    style: _script(
        f"klein {style}", "klein", _BENCH.parent / "examples" / "three_styles.py", _UPSTREAM, "PORT"
    )
    for style in ("blocking", "callbacks", "coroutine")
}


def fetch_scenarios(sizes: Sizes) -> list[Scenario]:
    """The scenarios, in the order in which they are run."""
    return [
        _styles(sizes),
        _fetch(sizes, 100),
        _fetch(sizes, 1000),
        _one_url(sizes, 100, 1),
        _one_url(sizes, 1000, 1),
        _one_url(sizes, 1000, 0),
        _hanging(sizes),
    ]


def _styles(sizes: Sizes) -> Scenario:
    with_siege = shutil.which("siege") is not None
    entries = [
        *(
            Entry(server, f"/{style}/{{n}}", 0, ("tornado coroutine",))
            for style, server in _STYLES.items()
        ),
        Entry(_TORNADO, _THEIRS, 0),
        Entry(_AIOHTTP, _THEIRS, 0, ("tornado coroutine",)),
        Entry(_TWISTEDMEDIA, _OURS, 0, ("tornado coroutine",)),
    ]
    return Scenario(
        name="styles",
        title="100 users of a page that asks a service which takes 100 ms",
        remarks=(
            "Load by siege, which opens a connection for each transaction."
            if with_siege
            else "Load by a generator in Python, in which each user keeps a connection.",
        ),
        entries=tuple(entries),
        measure=_measure(100, sizes.fetch_s, with_siege=with_siege),
        columns=("transactions", "rate /s", "longest s", "shortest s", "failed"),
        ratios_of=("rate /s",),
        stores=False,
    )


def _fetch(sizes: Sizes, count: int) -> Scenario:
    entries = (
        Entry(_TORNADO, _THEIRS, 0),
        Entry(_AIOHTTP, _THEIRS, 0, ("tornado coroutine",)),
        Entry(_STYLES["coroutine"], "/coroutine/{n}", 0, ("tornado coroutine",)),
        Entry(_TWISTEDMEDIA, _OURS, 0, ("tornado coroutine", "aiohttp coroutine")),
    )
    return Scenario(
        name=f"fetch-{count}",
        title=f"{count:,} users, each with a URL of its own each time; the service takes 100 ms",
        remarks=(f"Without any other limit that comes to {10 * count:,} a second.",),
        entries=entries,
        measure=_measure(count, sizes.fetch_s),
        columns=_COLUMNS,
        ratios_of=("rate /s", "server CPU us"),
        stores=False,
    )


def _one_url(sizes: Sizes, count: int, max_age: int) -> Scenario:
    entries = (
        Entry(_TORNADO, "/fetch/one", 0),
        Entry(_AIOHTTP, "/fetch/one", 0, ("tornado coroutine",)),
        Entry(_TWISTEDMEDIA, _OURS.replace("{n}", "one"), 0, ("tornado coroutine",)),
    )
    return Scenario(
        name=f"one-url-{count}" if max_age else f"shared-{count}",
        title=f"{count:,} users, one URL"
        + (", which stays fresh for a second" if max_age else ", which is never fresh"),
        remarks=("The peers ask the service each time.",),
        entries=entries,
        measure=_measure(count, sizes.fetch_s, max_age=max_age),
        columns=(*_COLUMNS, "asked upstream", "at once"),
        ratios_of=("rate /s",),
        stores=False,
    )


_COLUMNS = ("rate /s", "p50 ms", "p99 ms", "longest s", "failed", "server CPU us", "client CPU s")


def _measure(count: int, seconds: int, *, max_age: int = 0, with_siege: bool = False) -> Measure:
    def measure(server: Running, entry: Entry, load: Executor) -> Figures:
        with _upstream(max_age):
            cpu_s = server.cpu_s()
            if with_siege:
                return users.siege(server.port, count, seconds, entry.kind)
            seen = load.submit(users.visit, server.port, count, seconds, entry.kind).result()
            figures = seen.figures()
            used_us = 1e6 * (server.cpu_s() - cpu_s)
            figures["server CPU us"] = used_us / max(1, len(seen.times_s))
            with urlopen(f"{_UPSTREAM}counts") as response:
                counts = json.load(response)
            figures["asked upstream"], figures["at once"] = counts["requests"], counts["at once"]
            return figures

    return measure


def _hanging(sizes: Sizes) -> Scenario:
    return Scenario(
        name="hanging",
        title=f"GETs of a 40 kB file, one after the other, while {_HANGING} fetches hang",
        remarks=(),
        entries=(
            Entry(_TWISTEDMEDIA, "none", 40_000),
            Entry(
                Server(f"{_TWISTEDMEDIA.name}, {_HANGING} hang", _TWISTEDMEDIA.command),
                "hang",
                40_000,
                (_TWISTEDMEDIA.name,),
            ),
        ),
        measure=_while_fetches_hang(sizes.fetch_s),
        columns=("GETs", "p50 ms", "p99 ms", "longest ms"),
        ratios_of=("p99 ms", "p50 ms"),
    )


def _while_fetches_hang(seconds: int) -> Measure:
    def measure(server: Running, entry: Entry, load: Executor) -> Figures:
        (server.root / "bench").mkdir(exist_ok=True)
        (server.root / "bench" / "a.wav").write_bytes(bytes(entry.size_bytes))
        with _upstream(0):
            count = _HANGING if entry.kind == "hang" else 0
            waiting = [_ask_for_what_hangs(server.port, n) for n in range(count)]
            time.sleep(0.5)
            target = "/media/bench/a.wav"
            seen = load.submit(users.visit, server.port, 1, min(seconds, 6), target).result()
            for each in waiting:
                each.setblocking(False)
                try:
                    early = each.recv(1)
                except BlockingIOError:
                    each.close()
                else:
                    raise RuntimeError(f"a fetch did not hang: {early!r}")
        figures = seen.figures()
        figures["GETs"] = figures["transactions"]
        figures["longest ms"] = 1000 * figures["longest s"]
        return figures

    return measure


def _ask_for_what_hangs(port: int, number: int) -> socket.socket:
    asking = socket.create_connection(("127.0.0.1", port), 30)
    target = f"/fetch?url={_UPSTREAM}hang/{number}"
    asking.sendall(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    return asking


@contextmanager
def _upstream(max_age: int) -> Iterator[None]:
    command = [sys.executable, str(_BENCH / "upstream.py"), f"--port={_PORT}"]
    process = subprocess.Popen([*command, f"--max-age={max_age}"])
    try:
        for _ in range(500):
            try:
                socket.create_connection(("127.0.0.1", _PORT), 1).close()
                break
            except ConnectionRefusedError:
                time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait()
