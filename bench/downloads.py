"""
The scenarios of reading: files that are downloaded and folders that are listed, by which servers,
and what of it is shown.
"""

from __future__ import annotations

import time
from concurrent.futures import Executor
from pathlib import Path

import client
import reader
import servers
from content import Content, listed_names
from figures import KIB, size_text
from scenario import (
    AIOHTTP,
    DURABLE,
    KLEIN,
    NGINX,
    SMALL_CLIENTS,
    SMALL_FILE_BYTES,
    TORNADO,
    Entry,
    Figures,
    Scenario,
    Sizes,
    generator,
    latency_figures,
    small_get_figures,
)

SMALL_GET_BYTES = 40_000
# A client that draws 8 kB/s for as long as a prompt lasts, twice a second, as a phone does.
READERS = 200
READER_BYTES_PER_S = 8000
READER_BUFFER_BYTES = 16 * KIB
READER_INTERVAL_S = 0.5
COLD_CLIENTS = 4
GET_INTERVAL_S = 0.002
LATER_PAGES = 5
# The load is under way so long after its beginning.
LEAD_S = 0.5

FILE, _SMALL = "file.wav", "small.wav"
_COLD = tuple(f"cold-{number}.wav" for number in range(COLD_CLIENTS))


def download_scenarios(sizes: Sizes, wrk: str | None) -> list[Scenario]:
    """
    The scenarios, in the order in which they are run.

    :param wrk: the path of the program wrk, None when there is none.
    """
    return [
        _download(sizes),
        _small_get(sizes, wrk),
        _readers(sizes),
        _cold(sizes),
        _listing(sizes),
    ]


def _download(sizes: Sizes) -> Scenario:
    def measure(server: servers.Running, entry: Entry, load: Executor) -> Figures:
        load.submit(reader.verify, server.port, FILE, entry.size_bytes).result()
        cpu_s = server.cpu_s()
        given = (server.port, FILE, entry.size_bytes, sizes.download_count)
        read = load.submit(reader.downloads_in_turn, *given).result()
        cpu_s = server.cpu_s() - cpu_s
        return {
            "MB/s": read.size_bytes / read.seconds / 1e6,
            "server CPU s/GB": cpu_s / read.size_bytes * 1e9,
            "peak RSS MiB": server.peak_rss_kib() / 1024,
            "client CPU s": read.client_cpu_s,
        }

    return Scenario(
        "download",
        "A large file, again and again",
        (
            f"{sizes.download_count} GETs one after the other on one connection, of a file that is "
            "in the page cache; the client has the kernel throw the bytes away.",
        ),
        (
            Entry(DURABLE, "get", sizes.download, (NGINX.name, AIOHTTP.name)),
            Entry(NGINX, "get", sizes.download),
            Entry(AIOHTTP, "get", sizes.download),
        ),
        measure,
        ("MB/s", "server CPU s/GB", "peak RSS MiB", "client CPU s"),
        ("MB/s", "server CPU s/GB"),
        prepare=prepare_file,
    )


def _small_get(sizes: Sizes, wrk: str | None) -> Scenario:
    def measure(server: servers.Running, entry: Entry, load: Executor) -> Figures:
        load.submit(reader.verify, server.port, FILE, entry.size_bytes).result()
        return small_get_figures(server, FILE, sizes.small_s, wrk, load)

    return Scenario(
        "small-get",
        "Reading a small file",
        (
            f"{SMALL_CLIENTS} keep-alive clients for {sizes.small_s} s; the load is made by "
            f"{generator(wrk)}.",
        ),
        (
            Entry(
                DURABLE,
                "get",
                SMALL_GET_BYTES,
                (AIOHTTP.name, TORNADO.name, KLEIN.name, NGINX.name),
            ),
            Entry(AIOHTTP, "get", SMALL_GET_BYTES),
            Entry(TORNADO, "get", SMALL_GET_BYTES),
            Entry(KLEIN, "get", SMALL_GET_BYTES),
            Entry(NGINX, "get", SMALL_GET_BYTES),
        ),
        measure,
        (
            "GETs/s",
            "p50 ms",
            "p99 ms",
            "max ms",
            "server CPU ms/GET",
            "peak RSS MiB",
            "client CPU s",
        ),
        ("GETs/s", "server CPU ms/GET"),
        prepare=prepare_file,
    )


def _readers(sizes: Sizes) -> Scenario:
    pace = reader.Pace(
        READERS, READER_BYTES_PER_S, READER_BUFFER_BYTES, READER_INTERVAL_S, sizes.readers_s
    )

    def measure(server: servers.Running, entry: Entry, load: Executor) -> Figures:
        idle_kib, idle_tcp_kib = server.rss_kib(), servers.tcp_memory_kib()
        cpu_s = server.cpu_s()
        given = (server.port, FILE, entry.size_bytes, pace)
        draining = load.submit(reader.drain, *given)
        time.sleep(sizes.readers_s / 2)
        half_kib, half_tcp_kib = server.rss_kib(), servers.tcp_memory_kib()
        half_cpu_s = server.cpu_s()
        drained = draining.result()
        end_cpu_s = server.cpu_s()
        return {
            "cut off": drained.cut_off,
            "kB/s each": drained.size_bytes / drained.seconds / READERS / 1000,
            "starved": drained.starved,
            "server CPU s, 1st half": half_cpu_s - cpu_s,
            "2nd half": end_cpu_s - half_cpu_s,
            "RSS before MiB": idle_kib / 1024,
            "RSS at half MiB": half_kib / 1024,
            "RSS at end MiB": server.rss_kib() / 1024,
            "kernel TCP MiB": (half_tcp_kib - idle_tcp_kib) / 1024,
        }

    return Scenario(
        "readers",
        f"{READERS} readers at {READER_BYTES_PER_S // 1000} kB/s",
        (
            f"Each has a receive buffer of {size_text(READER_BUFFER_BYTES)}, which the kernel "
            f"doubles, and takes what is due every {READER_INTERVAL_S} s, for "
            f"{sizes.readers_s} s; *starved* are the times when nothing had come.",
        ),
        (
            Entry(DURABLE, "get", sizes.download, (AIOHTTP.name,)),
            Entry(AIOHTTP, "get", sizes.download),
        ),
        measure,
        (
            "cut off",
            "kB/s each",
            "starved",
            "server CPU s, 1st half",
            "2nd half",
            "RSS before MiB",
            "RSS at half MiB",
            "RSS at end MiB",
            "kernel TCP MiB",
        ),
        ("kernel TCP MiB",),
        lateness=True,
        prepare=prepare_file,
    )


def _cold(sizes: Sizes) -> Scenario:
    def prepare(root: Path, entry: Entry) -> None:
        folder = root / client.DIRECTORY
        Content(SMALL_FILE_BYTES).write_to(folder / _SMALL)
        for filename in _COLD:
            Content(entry.size_bytes).write_to(folder / filename)

    def measure(server: servers.Running, entry: Entry, load: Executor) -> Figures:
        end_s = time.monotonic() + sizes.cold_s + 2 * LEAD_S
        given = (server.port, server.root, _COLD, entry.size_bytes, end_s)
        downloads = load.submit(reader.cold_downloads, *given)
        time.sleep(LEAD_S)
        given_gets = (server.port, _SMALL, sizes.cold_s, GET_INTERVAL_S)
        gets = load.submit(client.small_gets, *given_gets).result()
        read = downloads.result()
        return latency_figures(gets) | {
            "GETs/s": gets.count / gets.seconds,
            "downloads MB/s": read.size_bytes / read.seconds / 1e6,
        }

    return Scenario(
        "cold",
        f"Reading a small file while {COLD_CLIENTS} clients download from the disk",
        (
            f"GETs as in `during`, for {sizes.cold_s} s; meanwhile each of the others reads a file "
            "of its own, which is dropped from the page cache before every GET.",
        ),
        (
            Entry(DURABLE, "get", sizes.cold, (NGINX.name, AIOHTTP.name)),
            Entry(NGINX, "get", sizes.cold),
            Entry(AIOHTTP, "get", sizes.cold),
        ),
        measure,
        ("p50 ms", "p99 ms", "p99.9 ms", "max ms", "GETs/s", "downloads MB/s"),
        ("p99 ms", "downloads MB/s"),
        lateness=True,
        prepare=prepare,
    )


def _listing(sizes: Sizes) -> Scenario:
    names = listed_names(sizes.listed)
    listings = {"pages": reader.list_by_pages, "at once": reader.list_at_once}

    def prepare(root: Path, entry: Entry) -> None:
        folder = root / client.DIRECTORY
        for name in names:
            (folder / name).touch()
        Content(entry.size_bytes).write_to(folder / names[0])

    def measure(server: servers.Running, entry: Entry, load: Executor) -> Figures:
        given = (server.port, names, LATER_PAGES)
        listing = load.submit(listings[entry.kind], *given).result()
        end_s = time.monotonic() + sizes.listing_s + 2 * LEAD_S
        listed = load.submit(reader.list_until, server.port, end_s)
        time.sleep(LEAD_S)
        given_gets = (server.port, names[0], sizes.listing_s, GET_INTERVAL_S)
        gets = load.submit(client.small_gets, *given_gets).result()
        return {
            "first page ms": listing.first_page_s * 1000,
            "later page ms": listing.later_page_s * 1000,
            "all pages ms": listing.all_s * 1000,
            "GET p50 ms": gets.p50_ms,
            "GET p99 ms": gets.p99_ms,
            "GET max ms": gets.max_ms,
            "listings/s": listed.result() / (sizes.listing_s + 2 * LEAD_S),
            "peak RSS MiB": server.peak_rss_kib() / 1024,
        }

    return Scenario(
        "listing",
        f"A folder of {sizes.listed:,} files",
        (
            "A page has 1,000 entries, the later one is from the middle, *all pages* have 10,000 "
            "each; nginx knows no pages and lists all files at once. The GETs are as in `during`, "
            f"of one of the files, for {sizes.listing_s} s while the first page is asked for again "
            "and again.",
        ),
        (
            Entry(DURABLE, "pages", SMALL_FILE_BYTES, (NGINX.name,)),
            Entry(NGINX, "at once", SMALL_FILE_BYTES),
        ),
        measure,
        (
            "first page ms",
            "later page ms",
            "all pages ms",
            "GET p50 ms",
            "GET p99 ms",
            "GET max ms",
            "listings/s",
            "peak RSS MiB",
        ),
        ("first page ms",),
        lateness=True,
        prepare=prepare,
    )


def prepare_file(root: Path, entry: Entry) -> None:
    """Put the file that is read into the folder of a server."""
    Content(entry.size_bytes).write_to(root / client.DIRECTORY / FILE)
