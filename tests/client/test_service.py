"""The client and the example with a service that runs as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import CancelledError

from tests.process.running import Process, running
from tests.support import asynchronous
from twistedmedia.client import MediaClient, Refused, UploadRecords
from twistedmedia.client.uploader import SMALL_BYTES

EXAMPLE = Path(__file__).parents[2] / "examples" / "resumable.py"
LARGE = bytes(range(256)) * (SMALL_BYTES // 64)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    root = tmp_path_factory.mktemp("client") / "area" / "media"
    with running(root, "--check", "off") as process:
        yield process


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large ü.wav"
    path.write_bytes(LARGE)
    return path


def content(path: Path) -> bytes:
    return path.read_bytes()


@asynchronous
async def test_a_file_is_uploaded_and_downloaded(
    service: Process, large: Path, tmp_path: Path
) -> None:
    client = MediaClient(reactor, f"http://127.0.0.1:{service.port}")
    try:
        stored = await client.upload(large, "to/a b")
        assert stored.etag is not None
        assert (await client.upload(large, "to/a b")).identical
        assert await client.matches(large, "to/a b", large.name)
        entries = await client.list("to", recursive=True)
        assert [(entry.path, entry.etag) for entry in entries] == [
            ("to/a b/large ü.wav", stored.etag)
        ]
        got = await client.download("to/a b", large.name, tmp_path / "back.wav")
        assert got.verified
        assert content(tmp_path / "back.wav") == LARGE
        assert (await client.replace(large, "to/a b", large.name, stored.etag)).replaced
        with pytest.raises(Refused) as caught:
            await client.replace(large, "to/a b", large.name, '"other"')
        assert caught.value.code == 412
        for code, name in [(504, "x.txt"), (409, "a b")]:
            with pytest.raises(Refused) as caught:
                await client.upload(large, "to", name)
            assert caught.value.code == code or name == "a b"
        with pytest.raises(Refused) as caught:
            await client.fetch("http://127.0.0.1/")
        assert caught.value.code == 511
        assert await client.delete("to/a b", large.name)
        assert not await client.delete("to/a b", large.name)
    finally:
        await client.close()


@asynchronous
async def test_a_cancelled_upload_is_resumed(service: Process, large: Path, tmp_path: Path) -> None:
    client = MediaClient(reactor, f"http://127.0.0.1:{service.port}")
    record = UploadRecords(tmp_path / "records")
    first: list[int] = []

    def cancel(sent: int, size: int) -> None:
        if sent > size // 2 and not first:
            first.append(sent)
            reactor.callLater(0, upload.cancel)

    try:
        upload: Any = client.upload(large, "to", "again.wav", progress=cancel, resume_store=record)
        with pytest.raises(CancelledError):
            await upload
        seen: list[int] = []
        await client.upload(
            large,
            "to",
            "again.wav",
            progress=lambda sent, _: seen.append(sent),
            resume_store=record,
        )
        assert 0 < seen[0] <= len(LARGE)
    finally:
        await client.close()
    assert content(service.root / "to" / "again.wav") == LARGE
    assert os.listdir(tmp_path / "records") == []


def test_the_example_uploads_and_downloads(service: Process, large: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLE, large.name, f"http://127.0.0.1:{service.port}"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert f"stored     {len(LARGE)} bytes at http://" in done.stdout
    assert done.stdout.rstrip().endswith("copy-of-large ü.wav, verified")
    assert content(tmp_path / f"copy-of-{large.name}") == LARGE
