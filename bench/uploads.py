"""
The scenarios of uploads: what is stored, by which servers, and what of it is shown.
"""

from __future__ import annotations

import time
from concurrent.futures import Executor
from pathlib import Path

import client
import servers
from figures import GIB, KIB, size_text
from scenario import (
    AIOHTTP,
    AIOHTTP_FSYNC,
    CHECK_OFF,
    DURABLE,
    KLEIN,
    NGINX,
    NOT_DURABLE,
    SMALL_CLIENTS,
    SMALL_FILE_BYTES,
    TORNADO,
    Entry,
    Figures,
    Scenario,
    Sizes,
    generator,
    latency_figures,
)

LARGE_UPLOADS = 3
GET_INTERVAL_S = 0.002
# Uploads begin this long before the first small request and end as long after the last.
UPLOADS_LEAD_S = 0.5

CHECKED_SMALL_BYTES = 40_000
# Of so many the mean time is taken.
_CHECKED_SMALL_FILES = 1000
# What the service receives at once.
_ARRIVING_BYTES = 256 * KIB  # what one upload brings at a time, where the network is fast

_UPLOAD_COLUMNS = ("s/GiB", "MB/s", "server CPU s", "peak RSS MiB", "client CPU s")
_SMALL_COLUMNS = (
    "files/s",
    "p50 ms",
    "p99 ms",
    "max ms",
    "server CPU ms/file",
    "peak RSS MiB",
    "client CPU s",
)
_CHECK_COLUMNS = ("check CPU ms/file", "check % of server CPU")
_CHECK_REMARK = (
    "The check's own CPU time is measured apart, on the same bytes in pieces of 256 KiB, since the "
    "ratios of the uploads are less exact than what they are to show."
)


def upload_scenarios(sizes: Sizes, wrk: str | None) -> list[Scenario]:
    """
    The scenarios, in the order in which they are run.

    :param wrk: the path of the program wrk, None when there is none.
    """
    return [
        _multipart(sizes),
        _put(sizes),
        _urlencoded(sizes),
        _parallel(sizes),
        _during(sizes),
        _small(sizes, wrk),
        _check(sizes, "put-wav"),
        _check(sizes, "put-mp3"),
        _check_small(sizes, wrk, "put-wav"),
        _check_small(sizes, wrk, "put-mp3"),
    ]


def _multipart(sizes: Sizes) -> Scenario:
    return Scenario(
        "multipart",
        "One large file by multipart/form-data",
        (
            "tornado and klein hold the whole body in memory, several times over; they get a file "
            f"of {size_text(sizes.hungry)} (--heavy gives them the large one).",
            "nginx cannot take forms.",
        ),
        (
            Entry(DURABLE, "multipart", sizes.large, (AIOHTTP_FSYNC.name,)),
            Entry(AIOHTTP_FSYNC, "multipart", sizes.large),
            Entry(NOT_DURABLE, "multipart", sizes.large, (AIOHTTP.name,)),
            Entry(AIOHTTP, "multipart", sizes.large),
            Entry(TORNADO, "multipart", sizes.hungry),
            Entry(KLEIN, "multipart", sizes.hungry),
        ),
        _measure_upload,
        _UPLOAD_COLUMNS,
        ("s/GiB",),
        lateness=True,
    )


def _put(sizes: Sizes) -> Scenario:
    return Scenario(
        "put",
        "One large file by PUT",
        ("nginx and aiohttp without --fsync do not sync; only twistedmedia hashes.",),
        (
            Entry(DURABLE, "put", sizes.large, (AIOHTTP_FSYNC.name,)),
            Entry(AIOHTTP_FSYNC, "put", sizes.large),
            Entry(NOT_DURABLE, "put", sizes.large, (AIOHTTP.name, NGINX.name)),
            Entry(AIOHTTP, "put", sizes.large),
            Entry(NGINX, "put", sizes.large),
        ),
        _measure_upload,
        _UPLOAD_COLUMNS,
        ("s/GiB",),
        lateness=True,
    )


def _urlencoded(sizes: Sizes) -> Scenario:
    return Scenario(
        "urlencoded",
        "One large file of random bytes by application/x-www-form-urlencoded",
        (
            "Sizes and MB/s are those of the file; the body has about 2.5 bytes for each.",
            "The peers decode the body in memory, at up to 190 times the size of the file, so they "
            "get a smaller one; nginx cannot take forms.",
        ),
        (
            Entry(DURABLE, "urlencoded", sizes.large, (AIOHTTP_FSYNC.name,)),
            Entry(AIOHTTP_FSYNC, "urlencoded", sizes.urlencoded_peer),
            Entry(NOT_DURABLE, "urlencoded", sizes.large, (AIOHTTP.name, TORNADO.name, KLEIN.name)),
            Entry(AIOHTTP, "urlencoded", sizes.urlencoded_peer),
            Entry(TORNADO, "urlencoded", sizes.urlencoded_peer),
            Entry(KLEIN, "urlencoded", sizes.urlencoded_peer),
        ),
        _measure_upload,
        _UPLOAD_COLUMNS,
        ("s/GiB",),
        lateness=True,
    )


def _parallel(sizes: Sizes) -> Scenario:
    def measure(server: servers.Running, entry: Entry, load: Executor) -> Figures:
        filenames = [f"many-{number}.wav" for number in range(sizes.many_count)]
        return _stored(server, entry, filenames, load)

    return Scenario(
        "parallel",
        f"{sizes.many_count} files by PUT at once",
        (),
        (
            Entry(DURABLE, "put", sizes.many, (AIOHTTP_FSYNC.name,)),
            Entry(AIOHTTP_FSYNC, "put", sizes.many),
            Entry(NOT_DURABLE, "put", sizes.many, (AIOHTTP.name, NGINX.name)),
            Entry(AIOHTTP, "put", sizes.many),
            Entry(NGINX, "put", sizes.many),
        ),
        measure,
        ("seconds", *_UPLOAD_COLUMNS[1:]),
        ("seconds",),
        lateness=True,
    )


def _during(sizes: Sizes) -> Scenario:
    filename = "small.wav"

    def measure(server: servers.Running, entry: Entry, load: Executor) -> Figures:
        load.submit(client.upload, "put", server.port, filename, SMALL_FILE_BYTES).result()
        end_s = time.monotonic() + sizes.during_s + 2 * UPLOADS_LEAD_S
        given = (entry.kind, server.port, server.root, entry.size_bytes, LARGE_UPLOADS, end_s)
        uploads = load.submit(client.uploads_until, *given)
        time.sleep(UPLOADS_LEAD_S)
        given_gets = (server.port, filename, sizes.during_s, GET_INTERVAL_S)
        gets = load.submit(client.small_gets, *given_gets).result()
        sent = uploads.result()
        return latency_figures(gets) | {
            "GETs/s": gets.count / gets.seconds,
            "uploads MB/s": sent.size_bytes / sent.seconds / 1e6,
            "peak RSS MiB": server.peak_rss_kib() / 1024,
            "client CPU s": gets.client_cpu_s + sent.client_cpu_s,
        }

    return Scenario(
        "during",
        f"Reading a small file while {LARGE_UPLOADS} large ones arrive",
        (
            f"GETs of {SMALL_FILE_BYTES // 1000} kB on one connection, at most one each "
            f"{GET_INTERVAL_S * 1000:.0f} ms, for {sizes.during_s} s; a GET waits for the one "
            "before, so a server that is late is asked less often.",
            f"tornado gets uploads of {size_text(sizes.during_hungry)} to bound its memory; nginx "
            "gets PUTs, the others forms.",
        ),
        (
            Entry(DURABLE, "multipart", sizes.during, (TORNADO.name, AIOHTTP_FSYNC.name)),
            Entry(AIOHTTP_FSYNC, "multipart", sizes.during),
            Entry(NOT_DURABLE, "multipart", sizes.during, (TORNADO.name, AIOHTTP.name)),
            Entry(AIOHTTP, "multipart", sizes.during),
            Entry(TORNADO, "multipart", sizes.during_hungry),
            Entry(NGINX, "put", sizes.during),
        ),
        measure,
        (
            "p50 ms",
            "p99 ms",
            "p99.9 ms",
            "max ms",
            "GETs/s",
            "uploads MB/s",
            "peak RSS MiB",
            "client CPU s",
        ),
        ("p99 ms",),
    )


def _small(sizes: Sizes, wrk: str | None) -> Scenario:
    def measure(server: servers.Running, entry: Entry, load: Executor) -> Figures:
        return _small_stored(server, entry, load, sizes, wrk)

    every = [DURABLE, AIOHTTP_FSYNC, NOT_DURABLE, AIOHTTP, TORNADO, KLEIN, NGINX]
    compared_with = {
        DURABLE.name: (AIOHTTP_FSYNC.name,),
        NOT_DURABLE.name: (AIOHTTP.name, TORNADO.name, KLEIN.name, NGINX.name),
    }
    return Scenario(
        "small",
        "Small files by PUT",
        (
            f"{SMALL_CLIENTS} keep-alive clients for {sizes.small_s} s, every file under a new "
            f"name in one folder; the load is made by {generator(wrk)}.",
        ),
        tuple(
            Entry(server, "put", SMALL_FILE_BYTES, compared_with.get(server.name, ()))
            for server in every
        ),
        measure,
        _SMALL_COLUMNS,
        ("files/s",),
        # ext4 is slow to make files where many were deleted in the last minutes.
        keeps_files=True,
    )


def _check(sizes: Sizes, kind: str) -> Scenario:
    def measure(server: servers.Running, entry: Entry, load: Executor) -> Figures:
        figures = _measure_upload(server, entry, load)
        return figures | _check_figures(entry, load, 1, figures["server CPU s"])

    return Scenario(
        f"check-{client.extension_of(kind)}",
        f"What it costs to look whether a large {client.extension_of(kind).upper()} file is audio",
        (_CHECK_REMARK,),
        _check_entries(kind, sizes.large),
        measure,
        ("s/GiB", "server CPU s", *_CHECK_COLUMNS),
        ("s/GiB", "server CPU s"),
    )


def _check_small(sizes: Sizes, wrk: str | None, kind: str) -> Scenario:
    def measure(server: servers.Running, entry: Entry, load: Executor) -> Figures:
        first = f"first.{client.extension_of(kind)}"
        load.submit(client.upload, kind, server.port, first, entry.size_bytes).result()
        figures = _small_stored(server, entry, load, sizes, wrk)
        upload_cpu_s = figures["server CPU ms/file"] / 1000
        return figures | _check_figures(entry, load, _CHECKED_SMALL_FILES, upload_cpu_s)

    return Scenario(
        f"check-small-{client.extension_of(kind)}",
        f"What it costs to look whether a small {client.extension_of(kind).upper()} file is audio",
        (_CHECK_REMARK, f"Uploads as in `small`, made by {generator(wrk)}."),
        _check_entries(kind, CHECKED_SMALL_BYTES),
        measure,
        ("files/s", "server CPU ms/file", *_CHECK_COLUMNS),
        ("files/s", "server CPU ms/file"),
        keeps_files=True,
    )


def _check_entries(kind: str, size_bytes: int) -> tuple[Entry, ...]:
    return (
        Entry(DURABLE, kind, size_bytes, (CHECK_OFF.name,)),
        Entry(CHECK_OFF, kind, size_bytes),
    )


def _check_figures(entry: Entry, load: Executor, files: int, upload_cpu_s: float) -> Figures:
    """What the check by itself costs a file, and its part of an upload that took *upload_cpu_s*."""
    check_cpu_s = 0.0
    if entry.server is not CHECK_OFF:
        given = (entry.kind, entry.size_bytes, files)
        check_cpu_s = load.submit(audio_check_cpu_s, *given).result()
    return {
        "check CPU ms/file": check_cpu_s * 1000,
        "check % of server CPU": check_cpu_s / upload_cpu_s * 100,
    }


def audio_check_cpu_s(kind: str, size_bytes: int, files: int) -> float:
    """
    The CPU seconds that the service's check takes for a file of true audio, fed as it arrives.

    :param files: of how many, one after the other, the mean is taken.
    """
    # Here, so that the peers can be measured where the service is not installed.
    from twistedmedia.audio.verdict import AudioCheck

    extension = client.extension_of(kind)
    pieces = [
        block[start : start + _ARRIVING_BYTES]
        for block in client.content_of(kind, size_bytes).pieces()
        for start in range(0, len(block), _ARRIVING_BYTES)
    ]

    def problem() -> str | None:
        check = AudioCheck()
        for piece in pieces:
            check.feed(piece)
        return check.problem(extension)

    found = problem()  # and what is made once in the life of a server is made
    if found is not None:
        raise ValueError(f"a fault was found with true audio: {found}")
    start_s = time.process_time()
    for _ in range(files):
        problem()
    return (time.process_time() - start_s) / files


def _small_stored(
    server: servers.Running, entry: Entry, load: Executor, sizes: Sizes, wrk: str | None
) -> Figures:
    """Store small files for a while, check that they are there, and say how fast it went."""
    cpu_s = server.cpu_s()
    given = (entry.kind, server.port, entry.size_bytes, SMALL_CLIENTS, sizes.small_s)
    if wrk is None:
        puts = load.submit(client.small_uploads, *given).result()
    else:
        puts = load.submit(client.small_uploads_by_wrk, wrk, *given).result()
    cpu_s = server.cpu_s() - cpu_s
    _check_count(server.root / client.DIRECTORY, puts.count, entry.size_bytes)
    return latency_figures(puts) | {
        "files/s": puts.count / puts.seconds,
        "server CPU ms/file": cpu_s / puts.count * 1000,
        "peak RSS MiB": server.peak_rss_kib() / 1024,
        "client CPU s": puts.client_cpu_s,
    }


def _measure_upload(server: servers.Running, entry: Entry, load: Executor) -> Figures:
    return _stored(server, entry, [f"large.{client.extension_of(entry.kind)}"], load)


def _stored(server: servers.Running, entry: Entry, filenames: list[str], load: Executor) -> Figures:
    """Store files of an entry's size at once, check what arrived, and say what it took."""
    cpu_s = server.cpu_s()
    given = (entry.kind, server.port, filenames, entry.size_bytes)
    sent = load.submit(client.uploads_at_once, *given).result()
    cpu_s = server.cpu_s() - cpu_s
    for filename in filenames:
        content = client.content_of(entry.kind, entry.size_bytes)
        content.verify(server.root / client.DIRECTORY / filename)
    return {
        "seconds": sent.seconds,
        "s/GiB": sent.seconds / sent.size_bytes * GIB,
        "MB/s": sent.size_bytes / sent.seconds / 1e6,
        "server CPU s": cpu_s,
        "peak RSS MiB": server.peak_rss_kib() / 1024,
        "client CPU s": sent.client_cpu_s,
    }


def _check_count(folder: Path, answered: int, size_bytes: int) -> None:
    # A hidden draft may be on its way in or out; it is not counted.
    whole = sum(path.stat().st_size == size_bytes for path in folder.glob("small-*"))
    if whole < answered:
        raise ValueError(f"{answered} files were acknowledged, {whole} are there")
