"""The event log of a daemon, rotated by logrotate as docs/running.md says."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.live.servers import program
from tests.process.running import eventually
from tests.process.test_event_log import daemon, events_of, numbered, put

PAGE = Path(__file__).parents[2] / "docs" / "running.md"
FOLDER, PIDFILE = "/var/log/twistedmedia", "/run/twistedmedia/service.pid"
SIGNALLING = re.compile(r"    nocreate\n    sharedscripts\n    postrotate\n.*\n    endscript\n")


def configuration(folder: Path) -> str:
    """The one of the page, for a daemon in `folder`."""
    (text,) = re.findall(r"^```logrotate\n(.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S)
    assert FOLDER in text
    assert PIDFILE in text
    return str(text).replace(FOLDER, str(folder)).replace(PIDFILE, str(folder / "service.pid"))


def rotate(folder: Path, text: str) -> None:
    path = folder / "logrotate.conf"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o644)
    command = [program("logrotate"), "--force", "--state", folder / "state", path]
    subprocess.run(command, check=True, timeout=60)


@pytest.mark.parametrize("way", ["renamed", "copied and truncated"])
def test_logrotate_rotates_the_event_log(tmp_path: Path, way: str) -> None:
    folder = tmp_path / "area"
    with daemon(folder) as (port, _, log):
        text = configuration(folder)
        if way != "renamed":
            text, changes = SIGNALLING.subn("    copytruncate\n", text)
            assert changes == 1
        put(port, numbered("before", 10))
        eventually("the log is written", lambda: events_of(log.read_text(), "before") == 20)
        twistds = log.with_name("service.log.1")
        twistds.write_text("of twistd\n")
        rotate(folder, text)
        eventually("there is a new log", log.exists)
        put(port, numbered("after", 10))
        eventually("the log is written", lambda: events_of(log.read_text(), "after") == 20)
        assert b"\0" not in log.read_bytes()
        assert not twistds.exists() or way != "renamed"
    assert events_of(log.read_text(), "before") == 0
    (old,) = folder.glob("service.log-*")
    assert events_of(old.read_text(), "before") == 20
    assert events_of(old.read_text(), "after") == 0
    (old,) = folder.glob("service.log.1-*")
    assert old.read_text() == "of twistd\n"
