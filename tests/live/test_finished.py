"""Case 95: a start after 100,000 finished resumable uploads."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from tests.process.running import running

FINISHED = 100_000
ETAG = '"5-1854e3d9f1e2a000"'

pytestmark = pytest.mark.long


def starts_in(root: Path) -> float:
    """The seconds until a service answers for the first time: the best of three starts."""
    taken = []
    for _ in range(3):
        begun_s = time.monotonic()
        with running(root) as service:
            taken.append(time.monotonic() - begun_s)
            known = f"{FINISHED - 1:032x}"
            if (root / f".twistedmedia/uploads/{known}.stored").exists():
                answer = service.ask("HEAD", f"/uploads/{known}", None, {"Tus-Resumable": "1.0.0"})
                assert answer.status == 200
    return min(taken)


def test_a_start_after_100_000_finished_uploads_takes_no_second(root: Path) -> None:
    """Case 95. On a busy machine, half as long again as with none of them."""
    empty_s = starts_in(root)
    (root / "a").mkdir(parents=True)
    (root / "a/b.mp3").write_bytes(b"hello")
    modified_ns = int(ETAG.strip('"').partition("-")[2], 16)
    os.utime(root / "a/b.mp3", ns=(modified_ns, modified_ns))
    plan = {"directory": "a", "filename": "b.mp3", "length": 5, "sha256": None, "note": ""}
    folder = root / ".twistedmedia/uploads"
    for n in range(FINISHED):
        record = json.dumps({**plan, "caller": f"192.0.2.{n % 50}"})
        (folder / f"{n:032x}.stored").write_text(record)
        (folder / f"{n:032x}.etag").symlink_to(ETAG)
    assert starts_in(root) < max(1.0, 1.5 * empty_s)
