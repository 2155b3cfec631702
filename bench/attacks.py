"""
The attacks beside which a normal client is to be served as if it were alone.

``python bench/attacks.py NAME COUNT PORT`` attacks the service on a port of 127.0.0.1. It prints
``ready`` when the attack has begun. When its standard input ends it stops, and prints one line of
JSON: what the service answered, how many requests it did not answer, and how much was sent.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from attackers import Attackers, Habit
from bystander import NAMES
from figures import MIB

ADDRESS = "127.0.0.2"
LISTED = 10_000
SMALL = "normal/small.wav"
_SLOW = b"x" * 65  # a byte more than --min-rate asks for in a second
_FREE_LEFT = 4096
_NARROW_BYTES = 4096
_PARTS = 256
_BOUNDARY = "attack-5c1f3d07a2"
_ENDLESS = MIB  # at 65 bytes a second, four hours

Crowd = list[tuple[Habit, int]]


@dataclass(frozen=True)
class Attack:
    """
    An attack in its sizes.

    :ivar counts: how many connections: as many as were seen to do harm, and ten times as many.
    :ivar join: makes the connections of an attack of a size.
    :ivar options: what the service is started with.
    :ivar prepare: puts what is needed into the root.
    :ivar descriptors: the hard limit of the service's process, None for that of this one.
    :ivar disk_bytes: the size of a file system that holds the root alone, None for a shared one.
    :ivar log: what happens to the log while the attack runs: ``kept``, ``unread``, ``slow``,
        ``closed``.
    :ivar imports: whether the normal client imports, too.
    :ivar lists: whether the normal client asks for long pages of the attacked listing, too.
    """

    name: str
    title: str
    counts: tuple[int, ...]
    join: Callable[[Attackers, int, int], Crowd]
    options: tuple[str, ...] = ()
    prepare: Callable[[Path], None] | None = None
    descriptors: int | None = None
    disk_bytes: int | None = None
    log: str = "kept"
    imports: bool = False
    lists: bool = False


def _head(method: str, target: str, *fields: str) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: 127.0.0.1", *fields, "", ""]
    return "\r\n".join(lines).encode()


def _begun(port: int) -> str:
    """The path of a new resumable upload, made from the attackers' address."""
    connection = http.client.HTTPConnection("127.0.0.1", port, 10, source_address=(ADDRESS, 0))
    pairs = {"directory": "attack", "filename": "waited-for.wav"}
    metadata = ",".join(
        f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in pairs.items()
    )
    fields = {"Tus-Resumable": "1.0.0", "Upload-Metadata": metadata}
    connection.request("POST", "/uploads/", headers={**fields, "Upload-Length": str(_ENDLESS)})
    answer = connection.getresponse()
    answer.read()
    location = answer.headers["Location"]
    connection.close()
    if answer.status != 201 or location is None:
        raise RuntimeError(f"no upload could be begun: {answer.status}")
    return location


def _patch(target: str, size: int) -> bytes:
    content = ("Content-Type: application/offset+octet-stream", f"Content-Length: {size}")
    return _head("PATCH", target, "Tus-Resumable: 1.0.0", "Upload-Offset: 0", *content)


def _waiting(method: str) -> Callable[[Attackers, int, int], Crowd]:
    """Requests for one upload, while another one sends its content."""

    def join(_: Attackers, port: int, count: int) -> Crowd:
        target = _begun(port)
        first = _patch(target, _ENDLESS) + _SLOW
        if method == "HEAD":
            request = _head("HEAD", target, "Tus-Resumable: 1.0.0")
        else:
            request = _patch(target, 64 << 10) + bytes(32 << 10)
        return [
            (Habit(lambda _: first, _SLOW, 1.0, returns_s=10.0), 1),
            (Habit(lambda _: request, asks_again_s=10.0, returns_s=10.0), count),
        ]

    return join


def _chunks(size: int, target: str, returns_s: float) -> Callable[[Attackers, int, int], Crowd]:
    """Contents in chunks of *size* bytes, as fast as they are read."""

    def join(_: Attackers, __: int, count: int) -> Crowd:
        one = b"%x\r\n%b\r\n" % (size, b"x" * size)
        many = one * ((256 << 10) // len(one))

        def opens(number: int) -> bytes:
            return _head("PUT", target.format(number), "Transfer-Encoding: chunked")

        return [(Habit(opens, many, returns_s=returns_s), count)]

    return join


def _heads(_: Attackers, __: int, count: int) -> Crowd:
    """Requests without content, 16 and more in each piece, as fast as they are read."""
    many = _head("GET", f"/media/{SMALL}") * 16
    return [(Habit(lambda _: many, many, returns_s=0.1), count)]


def _slow_puts(_: Attackers, __: int, count: int) -> Crowd:
    def opens(number: int) -> bytes:
        return _head("PUT", f"/media/attack/{number}.wav", f"Content-Length: {_ENDLESS}") + _SLOW

    return [(Habit(opens, _SLOW, 1.0), count)]


def _slow_imports(attackers: Attackers, _: int, count: int) -> Crowd:
    said = f"HTTP/1.1 200 OK\r\nContent-Length: {_ENDLESS}\r\n\r\n".encode()
    upstream = attackers.listen(Habit(lambda _: said, b"x" * 300, 1.0))

    def opens(number: int) -> bytes:
        url = f"http://{ADDRESS}:{upstream}/{number}.wav"
        content = urlencode({"url": url, "directory": "attack"}).encode()
        kind = "Content-Type: application/x-www-form-urlencoded"
        return _head("POST", "/media", kind, f"Content-Length: {len(content)}") + content

    return [(Habit(opens), count)]


def _listed(root: Path) -> None:
    """A folder whose listing is as large as it can be made with this number of names."""
    (root / NAMES).mkdir()
    for number in range(LISTED):
        (root / NAMES / f"{number:05}-{'n' * 240}.wav").touch()


def _listing(_: int) -> bytes:
    return _head("GET", f"/media/{NAMES}/?limit={LISTED}")


def _closed_readers(_: Attackers, __: int, count: int) -> Crowd:
    return [(Habit(_listing, reads=False, window_bytes=_NARROW_BYTES), count)]


def _leaving_readers(_: Attackers, __: int, count: int) -> Crowd:
    return [(Habit(_listing, window_bytes=_NARROW_BYTES, leaves_after_bytes=1), count)]


def _reservations(_: Attackers, port: int, count: int) -> Crowd:
    """Uploads that together declare all bytes that are free, but 4,096."""
    connection = http.client.HTTPConnection("127.0.0.1", port, 10, source_address=(ADDRESS, 0))
    connection.request("GET", "/health")
    free = json.load(connection.getresponse())["free"]
    connection.close()
    size = (free - _FREE_LEFT) // count

    def opens(number: int) -> bytes:
        return _head("PUT", f"/media/attack/{number}.wav", f"Content-Length: {size}") + _SLOW

    return [(Habit(opens, _SLOW, 1.0), count)]


def _forms(_: Attackers, __: int, count: int) -> Crowd:
    """Forms with as many parts as a form may have, of a byte each, that never end."""
    # The service need not look at less than 256 KiB of a content before its end.
    padding = f"X-Padding: {'p' * 1100}"

    def opens(number: int) -> bytes:
        parts = "".join(
            f"--{_BOUNDARY}\r\nContent-Disposition: form-data;"
            f' name="attack"; filename="{number}-{part}.wav"\r\n{padding}\r\n\r\nx\r\n'
            for part in range(_PARTS)
        ).encode()
        kind = f"Content-Type: multipart/form-data; boundary={_BOUNDARY}"
        # Without its last line break: what is sent later belongs to the last part.
        return _head("POST", "/media", kind, f"Content-Length: {_ENDLESS}") + parts[:-2]

    return [(Habit(opens, _SLOW, 1.0), count)]


def _logged(_: Attackers, __: int, count: int) -> Crowd:
    """Small uploads, each of which the service logs."""

    def opens(number: int) -> bytes:
        return _head("PUT", f"/media/attack/{number}.wav", "Content-Length: 1") + b"x"

    return [(Habit(opens, asks_again_s=0.02), count)]


_FETCHING = ("--fetch-allow=127.0.0.0/8",)
ATTACKS = {
    attack.name: attack
    for attack in (
        Attack("waiting-head", "HEADs of one resumable upload", (150, 1500), _waiting("HEAD")),
        Attack("waiting-patch", "PATCHes of one resumable upload", (150, 1500), _waiting("PATCH")),
        Attack(
            "chunks-1",
            "PUTs in chunks of one byte",
            (1, 8, 40, 80, 400),
            _chunks(1, "/media/attack/{}.wav", 1.0),
        ),
        Attack(
            "chunks-20",
            "PUTs in chunks of 20 bytes",
            (8, 80),
            _chunks(20, "/media/attack/{}.wav", 1.0),
        ),
        Attack(
            "drained",
            "PUTs that are refused, in chunks of one byte",
            (150, 1500),
            _chunks(1, "/nowhere", 0.1),
        ),
        Attack("heads", "pipelined GETs of a small file", (30, 100, 1000), _heads),
        Attack("slow-puts", "PUTs at 65 bytes a second", (64, 640), _slow_puts),
        Attack(
            "slow-imports",
            "imports from a server that sends 300 bytes a second",
            (32, 320),
            _slow_imports,
            _FETCHING,
            imports=True,
        ),
        Attack(
            "closed-readers",
            f"readers of a listing of {LISTED:,} names that take nothing",
            (150, 1500),
            _closed_readers,
            prepare=_listed,
            lists=True,
        ),
        Attack(
            "leaving-readers",
            f"readers that abort one listing of {LISTED:,} names after another",
            (1, 10),
            _leaving_readers,
            prepare=_listed,
            lists=True,
        ),
        Attack(
            "reservations",
            "PUTs that declare all of the disk",
            (1, 10),
            _reservations,
            disk_bytes=700 * MIB,
        ),
        Attack(
            "forms-4096",
            f"forms of {_PARTS} parts, 4,096 descriptors",
            (16, 160),
            _forms,
            descriptors=4096,
        ),
        Attack(
            "forms-1024",
            f"forms of {_PARTS} parts, 1,024 descriptors",
            (4, 40),
            _forms,
            descriptors=1024,
        ),
        *(
            Attack(f"log-{how}", f"small PUTs, with the log {how}", (1, 10), _logged, log=how)
            for how in ("unread", "slow", "closed")
        ),
    )
}


def main() -> None:
    """Attack until the standard input ends."""
    name, count, port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    attack = ATTACKS[name]
    crowd: Crowd = []
    attackers = Attackers(port, ADDRESS, crowd)
    crowd += attack.join(attackers, port, count)
    attackers.run(sys.stdin.fileno(), lambda: print("ready", flush=True))
    print(json.dumps(attackers.seen()), flush=True)
    # Without closing thousands of connections one by one: the kernel does it at once.
    os._exit(0)


if __name__ == "__main__":
    main()
