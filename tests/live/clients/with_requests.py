"""Sends and fetches one file with requests: `OPERATION URL FILE`, and for a form its directory.

For a form the file's part is named by the directory. Any response but a success is a failure.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import requests

TIMEOUT_S = 30


def pieces(path: Path) -> Iterator[bytes]:
    """The content, of which requests does not know the length."""
    with path.open("rb") as file:
        while piece := file.read(50_000):
            yield piece


def main(operation: str, url: str, name: str, directory: str = "") -> None:
    path = Path(name)
    match operation:
        case "put":
            with path.open("rb") as file:
                response = requests.put(url, data=file, timeout=TIMEOUT_S)
        case "form":
            with path.open("rb") as file:
                response = requests.post(url, files={directory: file}, timeout=TIMEOUT_S)
        case "chunked":
            response = requests.put(url, data=pieces(path), timeout=TIMEOUT_S)
        case "expect":  # the header goes out, and the content at once behind it
            headers = {"Expect": "100-continue"}
            with path.open("rb") as file:
                response = requests.put(url, data=file, headers=headers, timeout=TIMEOUT_S)
        case "download":
            response = requests.get(url, timeout=TIMEOUT_S)
            path.write_bytes(response.content)
        case "resume":
            headers = {"Range": f"bytes={path.stat().st_size}-"}
            response = requests.get(url, headers=headers, timeout=TIMEOUT_S)
            assert response.status_code == 206, response.status_code
            with path.open("ab") as file:
                file.write(response.content)
    response.raise_for_status()


main(*sys.argv[1:])
