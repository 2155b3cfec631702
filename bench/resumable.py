"""
The scenarios of uploads that go over many requests (tus 1.0.0), and the load for them.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import resource
import sys
import time
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from itertools import count

import client
import servers
from figures import MIB
from scenario import DURABLE, NOT_DURABLE, Entry, Figures, Scenario, Sizes

PART_BYTES = 8 * MIB
_TUS = {"Tus-Resumable": "1.0.0"}
_CONTENT = {**_TUS, "Content-Type": "application/offset+octet-stream"}
_UNFINISHED_BYTES = 1000
_FINISHED_BYTES = 4
_STOP_S = 60.0
_COLUMNS = ("s/GiB", "MB/s", "server CPU s", "peak RSS MiB", "client CPU s")
_names = count()


@dataclass(frozen=True)
class _Used:
    """What the process of a service uses, as its /health says."""

    descriptors: int
    resident: int


def resumable_scenarios(sizes: Sizes) -> list[Scenario]:
    """The scenarios, in the order in which they are run."""
    return [_parts(sizes), _unfinished(sizes), _start(sizes)]


def _parts(sizes: Sizes) -> Scenario:
    by_tus = [
        replace(server, name=f"{server.name}, tus in 8 MiB PATCHes")
        for server in (DURABLE, NOT_DURABLE)
    ]
    checked = replace(DURABLE, name=f"{DURABLE.name}, each PATCH with its sha256")
    return Scenario(
        "tus",
        "One large file by tus, in PATCHes of 8 MiB one after the other, beside one PUT",
        (
            "All are synced before the last answer, and every 64 MiB, unless the service is not "
            "durable.",
        ),
        (
            Entry(DURABLE, "put", sizes.large),
            Entry(by_tus[0], "tus", sizes.large, (DURABLE.name,)),
            Entry(checked, "tus sha256", sizes.large, (DURABLE.name,)),
            Entry(NOT_DURABLE, "put", sizes.large),
            Entry(by_tus[1], "tus", sizes.large, (NOT_DURABLE.name,)),
        ),
        _measure_parts,
        _COLUMNS,
        ("MB/s",),
        lateness=True,
    )


def _unfinished(sizes: Sizes) -> Scenario:
    server = servers.twistedmedia("--max-unfinished=100000")
    return Scenario(
        "unfinished",
        f"{sizes.unfinished} uploads that are left unfinished, each with {_UNFINISHED_BYTES} bytes",
        ("Descriptors and memory are those of /health, before the first and after the last.",),
        (Entry(server, "tus", _UNFINISHED_BYTES),),
        lambda server, entry, load: load.submit(
            leave_unfinished, server.port, sizes.unfinished
        ).result(),
        ("uploads/s", "RSS before MiB", "RSS after MiB", "descriptors before", "after"),
        ("uploads/s",),
        lateness=False,
    )


def _start(sizes: Sizes) -> Scenario:
    nothing = replace(NOT_DURABLE, name=f"{NOT_DURABLE.name}, an empty root")
    finished = replace(NOT_DURABLE, name=f"{NOT_DURABLE.name}, {sizes.finished:,} uploads")
    counts = {nothing.name: 0, finished.name: sizes.finished}
    return Scenario(
        "start",
        f"A start after {sizes.finished:,} resumable uploads of {_FINISHED_BYTES} bytes",
        (
            "The time from the start of the process to the first answer. The uploads are made by "
            "requests beforehand, which takes some minutes.",
        ),
        (
            Entry(nothing, "tus", _FINISHED_BYTES),
            Entry(finished, "tus", _FINISHED_BYTES, (nothing.name,)),
        ),
        lambda server, entry, load: _measure_start(server, entry, counts[entry.server.name], load),
        ("first answer s", "uploads/s"),
        ("first answer s",),
        lateness=False,
    )


def _measure_start(server: servers.Running, entry: Entry, uploads: int, load: Executor) -> Figures:
    before = time.monotonic()
    load.submit(finish, server.port, uploads).result()
    seconds = time.monotonic() - before
    server.stop(_STOP_S)
    os.sync()
    before = time.monotonic()
    with servers.running(entry.server, server.root.parent) as again:
        connection = http.client.HTTPConnection("127.0.0.1", again.port, timeout=client.TIMEOUT_S)
        connection.request("GET", "/health")
        _answered(connection, 200)
        first_s = time.monotonic() - before
        connection.close()
    return {"first answer s": first_s, "uploads/s": uploads / seconds}


def finish(port: int, uploads: int) -> None:
    """Store that many small files, each by a resumable upload in one request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=client.TIMEOUT_S)
    for number in range(uploads):
        headers = {**_CONTENT, **_length_and_name(_FINISHED_BYTES, f"finished-{number}.wav")}
        # Many folders, as many small ones are faster than one of this size.
        target = f"/uploads/{client.DIRECTORY}/{number // 1000}"
        connection.request("POST", target, bytes(_FINISHED_BYTES), headers)
        _answered(connection, 201)
        if number % 10_000 == 9_999:
            print(f"{number + 1:,} of {uploads:,} uploads", file=sys.stderr, flush=True)
    connection.close()


def _measure_parts(server: servers.Running, entry: Entry, load: Executor) -> Figures:
    cpu_s = server.cpu_s()
    filename = f"large-{next(_names)}.wav"
    if entry.kind == "put":
        sent = load.submit(client.upload, "put", server.port, filename, entry.size_bytes).result()
    else:
        checked = entry.kind != "tus"
        given = (server.port, filename, entry.size_bytes, checked)
        sent = load.submit(upload_in_parts, *given).result()
    cpu_s = server.cpu_s() - cpu_s
    path = server.root / client.DIRECTORY / filename
    client.content_of("put", entry.size_bytes).verify(path)
    path.unlink()
    return {
        "s/GiB": sent.seconds / sent.size_bytes * (1 << 30),
        "MB/s": sent.size_bytes / sent.seconds / 1e6,
        "server CPU s": cpu_s,
        "peak RSS MiB": server.peak_rss_kib() / 1024,
        "client CPU s": sent.client_cpu_s,
    }


def upload_in_parts(port: int, filename: str, size_bytes: int, checked: bool) -> client.Transfer:
    """Store one file by tus, on one connection; *checked*: each part has its checksum."""
    pieces = list(client.content_of("put", size_bytes).pieces())
    parts = [b"".join(pieces[at : at + 8]) for at in range(0, len(pieces), 8)]
    digests = [_checksum(part) if checked else {} for part in parts]
    cpu, start = client.cpu_s(resource.RUSAGE_SELF), time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=client.TIMEOUT_S)
    url = _create(connection, filename, size_bytes)
    offset = 0
    for part, digest in zip(parts, digests, strict=True):
        _patch(connection, url, offset, part, digest)
        offset += len(part)
    connection.close()
    seconds = time.monotonic() - start
    return client.Transfer(size_bytes, seconds, client.cpu_s(resource.RUSAGE_SELF) - cpu)


def leave_unfinished(port: int, uploads: int) -> Figures:
    """Begin that many uploads, and say what they cost while nobody goes on with them."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=client.TIMEOUT_S)
    for number in range(20):  # so that all code is loaded before the first look
        _leave_unfinished(connection, f"warm-{number}.wav")
    before, start = _used(connection), time.monotonic()
    for number in range(uploads):
        _leave_unfinished(connection, f"unfinished-{number}.wav")
    seconds, after = time.monotonic() - start, _used(connection)
    connection.close()
    return {
        "uploads/s": uploads / seconds,
        "RSS before MiB": before.resident / MIB,
        "RSS after MiB": after.resident / MIB,
        "descriptors before": before.descriptors,
        "after": after.descriptors,
    }


def _leave_unfinished(connection: http.client.HTTPConnection, filename: str) -> None:
    url = _create(connection, filename, 2 * _UNFINISHED_BYTES)
    _patch(connection, url, 0, bytes(_UNFINISHED_BYTES), {})


def _create(connection: http.client.HTTPConnection, filename: str, size_bytes: int) -> str:
    headers = {**_TUS, **_length_and_name(size_bytes, filename)}
    connection.request("POST", f"/uploads/{client.DIRECTORY}", headers=headers)
    return _answered(connection, 201)["Location"]


def _length_and_name(size_bytes: int, filename: str) -> dict[str, str]:
    metadata = f"filename {base64.b64encode(filename.encode()).decode()}"
    return {"Upload-Length": str(size_bytes), "Upload-Metadata": metadata}


def _patch(
    connection: http.client.HTTPConnection,
    url: str,
    offset: int,
    part: bytes,
    digest: dict[str, str],
) -> None:
    headers = {**_CONTENT, **digest, "Upload-Offset": str(offset)}
    connection.request("PATCH", url, part, headers)
    found = _answered(connection, 204)["Upload-Offset"]
    if found != str(offset + len(part)):
        raise client.UnexpectedAnswerError(f"{found} after {len(part)} bytes from {offset} on")


def _answered(connection: http.client.HTTPConnection, status: int) -> http.client.HTTPMessage:
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != status:
        raise client.UnexpectedAnswerError(f"{answer.status}: {content!r}")
    return answer.headers


def _used(connection: http.client.HTTPConnection) -> _Used:
    connection.request("GET", "/health")
    health = json.loads(connection.getresponse().read())
    return _Used(health["descriptors"]["open"], health["memory"]["resident"])


def _checksum(part: bytes) -> dict[str, str]:
    digest = base64.b64encode(hashlib.sha256(part).digest()).decode()
    return {"Upload-Checksum": f"sha256 {digest}"}
