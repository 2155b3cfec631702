"""Sends and fetches one file in the bytes of .NET's HttpClient, which Debian does not have.

`OPERATION URL FILE`, for a form its directory, and for a form optionally how many bytes are given
to the kernel at a time. Any response but a success is a failure. The form is that of the sources of
System.Net.Http (dotnet/runtime): `MultipartContent` quotes the boundary,
`ContentDispositionHeaderValue` does not quote tokens, encodes a file name that is not ASCII by RFC
2047, and adds it again by RFC 5987.
"""

import re
import socket
import sys
import uuid
from base64 import b64encode
from pathlib import Path
from urllib.parse import quote, urlsplit

HEAD_PIECE_BYTES = 7
CHUNK_BYTES = 4096


def main(operation: str, url: str, name: str, directory: str = "", piece: str = "0") -> None:
    path = Path(name)
    split = urlsplit(url)
    content = path.read_bytes() if path.exists() else b""
    length = f"Content-Length: {len(content)}"
    body: list[bytes] = []
    match operation:
        case "put":
            method, fields, body = "PUT", [length], [content]
        case "form":
            boundary = str(uuid.uuid4())
            form = multipart(boundary, directory, path.name, content)
            kind = f'Content-Type: multipart/form-data; boundary="{boundary}"'
            method, fields, body = "POST", [kind, f"Content-Length: {len(form)}"], [form]
        case "chunked":
            method, fields, body = "PUT", ["Transfer-Encoding: chunked"], list(chunks(content))
        case "expect":
            method, fields, body = "PUT", ["Expect: 100-continue", length], [content]
        case "download":
            method, fields = "GET", []
        case "resume":
            method, fields = "GET", [f"Range: bytes={len(content)}-"]
    lines = [f"{method} {quote(split.path)} HTTP/1.1", f"Host: {split.netloc}", *fields]
    with socket.create_connection((split.hostname, split.port), 30) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        incoming = connection.makefile("rb")
        send(connection, "".join(f"{line}\r\n" for line in [*lines, ""]).encode(), HEAD_PIECE_BYTES)
        if operation == "expect":
            assert incoming.readline() == b"HTTP/1.1 100 Continue\r\n"
            assert incoming.readline() == b"\r\n"
        for each in body:
            send(connection, each, int(piece))
        status = incoming.readline().split()[1]
        told = b""
        while (line := incoming.readline()) != b"\r\n":
            told += line
        size = re.search(rb"(?im)^Content-Length: (\d+)", told)
        assert size is not None, told
        received = incoming.read(int(size[1]))
    expected = {"download": b"200", "resume": b"206"}.get(operation, b"201")
    assert status == expected, (status, received)
    if operation in ("download", "resume"):
        path.write_bytes(content + received)


def send(connection: socket.socket, data: bytes, piece: int) -> None:
    """Send it in pieces of that size; at once when that is 0."""
    piece = piece or len(data)
    for start in range(0, len(data), piece):
        connection.sendall(data[start : start + piece])


def multipart(boundary: str, directory: str, filename: str, content: bytes) -> bytes:
    """What MultipartFormDataContent writes that got one StreamContent."""
    disposition = (
        f"Content-Disposition: form-data; name={quoted(directory)}; filename={quoted(filename)}; "
        f"filename*=utf-8''{quote(filename)}"
    )
    begin = f"--{boundary}\r\nContent-Type: audio/wav\r\n{disposition}\r\n\r\n"
    return begin.encode() + content + f"\r\n--{boundary}--\r\n".encode()


def quoted(value: str) -> str:
    """A parameter as .NET writes it: a token as it is, else quoted; not ASCII, by RFC 2047."""
    if not value.isascii():
        return f'"=?utf-8?B?{b64encode(value.encode()).decode()}?="'
    return value if re.fullmatch(r"[\w!#$%&'*+.^`|~-]+", value, re.ASCII) else f'"{value}"'


def chunks(content: bytes) -> list[bytes]:
    """The chunked coding, in the pieces in which HttpClient writes it."""
    pieces = []
    for start in range(0, len(content), CHUNK_BYTES):
        chunk = content[start : start + CHUNK_BYTES]
        pieces += [b"%X\r\n" % len(chunk), chunk, b"\r\n"]
    return [*pieces, b"0\r\n\r\n"]


if __name__ == "__main__":
    main(*sys.argv[1:])
