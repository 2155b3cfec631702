"""Uploads larger than a test would hold in memory: one block over and over."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from random import Random

from tests.process.exchange import CLOSING, MULTIPART, Answer, Connection, head, part

BLOCK = Random(12).randbytes((1 << 20) + 7)  # odd, so that no two cuts fall alike


def pieces(size: int) -> Iterator[bytes]:
    """`size` bytes."""
    whole, rest = divmod(size, len(BLOCK))
    for _ in range(whole):
        yield BLOCK
    yield BLOCK[:rest]


@functools.cache
def sha256_of(size: int) -> str:
    """The digest of `pieces(size)`, in hex."""
    digest = hashlib.sha256()
    for piece in pieces(size):
        digest.update(piece)
    return digest.hexdigest()


def put(connection: Connection, name: str, size: int) -> Answer:
    """Store `size` bytes as `name` by PUT."""
    connection.send(head("PUT", f"/media/{name}", [("Content-Length", str(size))]))
    for piece in pieces(size):
        connection.send(piece)
    return connection.answer()


def post(connection: Connection, names: list[str], size: int) -> Answer:
    """Store `size` bytes as each of `names`, by one multipart form."""
    heads = []
    for name in names:
        directory, _, filename = name.rpartition("/")
        heads.append(part(directory, filename, b"").removesuffix(b"\r\n"))
    length = sum(len(each) + size + 2 for each in heads) + len(CLOSING)
    fields = [("Content-Length", str(length)), ("Content-Type", MULTIPART)]
    connection.send(head("POST", "/media", fields))
    for each in heads:
        connection.send(each)
        for piece in pieces(size):
            connection.send(piece)
        connection.send(b"\r\n")
    connection.send(CLOSING)
    return connection.answer()


def post_fields(connection: Connection, name: str, size: int) -> Answer:
    """Store `size` zeros, each of them escaped, as `name` by an urlencoded form."""
    directory, _, filename = name.rpartition("/")
    begin = f"directory={directory}&filename={filename}&body=".encode()
    block = b"%00" * (1 << 18)
    fields = [
        ("Content-Length", str(len(begin) + 3 * size)),
        ("Content-Type", "application/x-www-form-urlencoded"),
    ]
    connection.send(head("POST", "/media", fields) + begin)
    whole, rest = divmod(size, 1 << 18)
    for _ in range(whole):
        connection.send(block)
    connection.send(b"%00" * rest)
    return connection.answer()
