"""
What a scenario is: a question, the servers that it is put to, its load, its table's columns.

A scenario's load runs against one server that has just been started; running the servers in turn
and making tables of the figures is the business of run.py. The scenarios themselves are in
uploads.py, resumable.py, downloads.py, fetches.py and operating.py.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path

import client
import servers
from figures import GIB, MIB

SMALL_FILE_BYTES = 20_000
SMALL_CLIENTS = 16


@dataclass(frozen=True)
class Sizes:
    """How much is sent: sizes of files, or seconds for loads that go on for a time."""

    large: int = GIB
    hungry: int = 128 * MIB
    urlencoded_peer: int = 16 * MIB
    many: int = 100 * MIB
    many_count: int = 20
    during: int = GIB
    during_hungry: int = 256 * MIB
    during_s: int = 10
    small_s: int = 5
    download: int = 200 * MIB
    download_count: int = 20
    readers_s: int = 60
    cold: int = 64 * MIB
    cold_s: int = 5
    listing_s: int = 5
    fetch_s: int = 10
    listed: int = 100_000
    unfinished: int = 2_000
    finished: int = 100_000
    lateness_s: float = 3.0

    def heavy(self) -> Sizes:
        """The same with the large file for the servers that hold it in memory, too."""
        return replace(self, hungry=self.large)


FULL = Sizes()
QUICK = Sizes(
    large=64 * MIB,
    hungry=16 * MIB,
    urlencoded_peer=4 * MIB,
    many=8 * MIB,
    many_count=8,
    during=64 * MIB,
    during_hungry=32 * MIB,
    during_s=2,
    small_s=1,
    download=32 * MIB,
    download_count=4,
    readers_s=5,
    cold=16 * MIB,
    cold_s=2,
    listing_s=2,
    fetch_s=3,
    listed=5_000,
    unfinished=200,
    finished=2_000,
    lateness_s=1.0,
)


@dataclass(frozen=True)
class Entry:
    """
    One row of a table: a server and how files go to it or come from it.

    :ivar kind: ``multipart``, ``urlencoded``, ``put``, ``put-wav``, ``put-mp3``, ``tus``; where
        files are read ``get``; ``pages`` or ``at once`` where a folder is listed; the target of the
        request where something is fetched.
    :ivar compared_with: names of the servers beside which it is to be read.
    """

    server: servers.Server
    kind: str
    size_bytes: int
    compared_with: tuple[str, ...] = ()


Figures = dict[str, float]
Measure = Callable[[servers.Running, Entry, Executor], Figures]
Prepare = Callable[[Path, Entry], None]


@dataclass(frozen=True)
class Scenario:
    """
    A question, the servers that it is put to, and how the answer is shown.

    :ivar measure: puts the load on a running server and gives its figures.
    :ivar columns: the keys of the figures that the table shows.
    :ivar ratios_of: the figures whose ratios to those of the other servers are shown; the first one
        is what the scenario is about.
    :ivar lateness: whether a run with the probe in the server is of interest; *measure* is repeated
        in it.
    :ivar prepare: puts the files that are read into the folder of a running server, once. Without
        it, what is in the folder is deleted between one call of *measure* and the next.
    :ivar stores: whether the servers store files; then each gets a small one beforehand.
    :ivar keeps_files: whether what was stored is deleted only when all else is done.
    """

    name: str
    title: str
    remarks: tuple[str, ...]
    entries: tuple[Entry, ...]
    measure: Measure
    columns: tuple[str, ...]
    ratios_of: tuple[str, ...]
    lateness: bool = False
    prepare: Prepare | None = None
    stores: bool = True
    keeps_files: bool = False


DURABLE = servers.twistedmedia()
NOT_DURABLE = servers.twistedmedia("--no-durable")
CHECK_OFF = servers.twistedmedia("--check=off")
AIOHTTP_FSYNC = servers.peer("aiohttp", "aiohttp_stream.py", "--fsync")
AIOHTTP = servers.peer("aiohttp", "aiohttp_stream.py")
TORNADO = servers.peer("tornado", "tornado_pool.py")
KLEIN = servers.peer("klein", "klein_plain.py")
NGINX = servers.nginx()


def generator(wrk: str | None) -> str:
    """What makes the load of small requests, for the remarks of a scenario."""
    return "wrk" if wrk else "a generator in Python, as wrk is not installed"


def small_get_figures(
    server: servers.Running, filename: str, seconds: int, wrk: str | None, load: Executor
) -> Figures:
    """What :data:`SMALL_CLIENTS` see who read one small file again and again, and what it costs."""
    cpu_s = server.cpu_s()
    given = (server.port, filename, SMALL_CLIENTS, seconds)
    if wrk is None:
        gets = load.submit(client.small_gets_at_once, *given).result()
    else:
        gets = load.submit(client.small_gets_by_wrk, wrk, *given).result()
    cpu_s = server.cpu_s() - cpu_s
    return latency_figures(gets) | {
        "GETs/s": gets.count / gets.seconds,
        "server CPU ms/GET": cpu_s / gets.count * 1000,
        "peak RSS MiB": server.peak_rss_kib() / 1024,
        "client CPU s": gets.client_cpu_s,
    }


def latency_figures(seen: client.Latencies) -> Figures:
    """The figures of small requests that every table with them shows."""
    return {
        "p50 ms": seen.p50_ms,
        "p99 ms": seen.p99_ms,
        "p99.9 ms": seen.p999_ms,
        "max ms": seen.max_ms,
    }
