"""Firefox, without a window, driven by its own remote protocol, Marionette. Debian has no
geckodriver, and the protocol is short: JSON messages, each with its length in front.
"""

from __future__ import annotations

import itertools
import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.live.support import clean_environment
from tests.process.running import eventually

# Nothing but the tests' own requests, media that play without a click, and a free port.
_PREFERENCES = {
    "app.normandy.enabled": False,
    "app.update.disabledForTesting": True,
    "browser.region.update.enabled": False,
    "browser.safebrowsing.malware.enabled": False,
    "browser.safebrowsing.phishing.enabled": False,
    "browser.search.update": False,
    "browser.shell.checkDefaultBrowser": False,
    "browser.topsites.contile.enabled": False,
    "datareporting.healthreport.uploadEnabled": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "devtools.jsonview.enabled": False,  # a document of the browser's own
    "dom.disable_open_during_load": False,
    "extensions.getAddons.cache.enabled": False,
    "extensions.update.enabled": False,
    "marionette.port": 0,
    "media.autoplay.default": 0,
    "media.default_volume": "0.0",  # without a sound card only silence plays
    "media.gmp-manager.updateEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "network.dns.disablePrefetch": True,
    "network.prefetch-next": False,
    "network.proxy.type": 0,
    "services.settings.server": "data:,",
    "toolkit.telemetry.server": "data:,",
}
_START_S = 60.0
_STEP_S = 60.0


@contextmanager
def firefox(folder: Path) -> Iterator[Firefox]:
    """A Firefox that keeps its things in `folder`, ended with the context."""
    profile = folder / "profile"
    profile.mkdir()
    lines = (f'user_pref("{key}", {json.dumps(each)});\n' for key, each in _PREFERENCES.items())
    (profile / "user.js").write_text("".join(lines), encoding="ascii")
    home = {"HOME": str(folder), "TMPDIR": str(folder), "MOZ_CRASHREPORTER_DISABLE": "1"}
    with (folder / "firefox.log").open("wb") as output:
        process = subprocess.Popen(
            ["firefox-esr", "--headless", "--marionette", "--no-remote", "--profile", str(profile)],
            cwd=folder,
            env=clean_environment() | home,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        port = profile / "MarionetteActivePort"
        eventually("Firefox listens", lambda: port.exists() and port.read_text() != "", _START_S)
        with socket.create_connection(("127.0.0.1", int(port.read_text())), _STEP_S) as connection:
            browser = Firefox(connection)
            yield browser
            browser.end()
        process.wait(20)
    finally:
        process.kill()
        process.wait(20)


class Firefox:
    """A session; what `browser.Browser` is to Chromium."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._received = b""
        self._numbers = itertools.count(1)
        assert self._message()["marionetteProtocol"] == 3
        self._ask("WebDriver:NewSession", {})
        self._ask("WebDriver:SetTimeouts", {"script": 30_000, "pageLoad": 30_000})

    def open(self, url: str) -> None:
        """Go there."""
        self._ask("WebDriver:Navigate", {"url": url})

    def run(self, script: str, *arguments: str, how: str = "sync") -> Any:
        """What the script says; with `async`, to its last argument."""
        command = {"sync": "ExecuteScript", "async": "ExecuteAsyncScript"}[how]
        # In the page's own world, as chromedriver does.
        asked = {"script": script, "args": arguments, "sandbox": None}
        return self._ask(f"WebDriver:{command}", asked)["value"]

    def end(self) -> None:
        """The browser ends."""
        with suppress(ConnectionError):  # it may be gone before it has answered
            self._ask("Marionette:Quit", {"flags": ["eForceQuit"]})

    def _ask(self, command: str, parameters: dict[str, Any]) -> dict[str, Any]:
        number = next(self._numbers)
        message = json.dumps([0, number, command, parameters]).encode()
        self._connection.sendall(b"%d:%b" % (len(message), message))
        _, answered, error, result = self._message()
        assert answered == number
        assert error is None, error
        return result or {}

    def _message(self) -> Any:
        while b":" not in self._received:
            self._receive()
        length, _, self._received = self._received.partition(b":")
        while len(self._received) < int(length):
            self._receive()
        message, self._received = self._received[: int(length)], self._received[int(length) :]
        return json.loads(message)

    def _receive(self) -> None:
        data = self._connection.recv(65_536)
        if not data:
            raise ConnectionError("Firefox has closed the connection")
        self._received += data
