"""Sends and fetches one file with httpx: `OPERATION URL FILE`, and for a form its directory.

For a form the file's part is named by the directory. Any response but a success is a failure.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import httpx


def pieces(path: Path) -> Iterator[bytes]:
    """The content, of which httpx does not know the length."""
    with path.open("rb") as file:
        while piece := file.read(50_000):
            yield piece


def main(operation: str, url: str, name: str, directory: str = "") -> None:
    path = Path(name)
    with httpx.Client(timeout=30, trust_env=False) as client:
        match operation:
            case "put":
                response = client.put(url, content=path.read_bytes())
            case "form":
                with path.open("rb") as file:
                    response = client.post(url, files={directory: file})
            case "chunked":
                response = client.put(url, content=pieces(path))
            case "expect":  # the header goes out, and the content at once behind it
                headers = {"Expect": "100-continue"}
                response = client.put(url, content=path.read_bytes(), headers=headers)
            case "download":
                response = client.get(url)
                path.write_bytes(response.content)
            case "resume":
                response = client.get(url, headers={"Range": f"bytes={path.stat().st_size}-"})
                assert response.status_code == 206, response.status_code
                with path.open("ab") as file:
                    file.write(response.content)
    response.raise_for_status()


main(*sys.argv[1:])
