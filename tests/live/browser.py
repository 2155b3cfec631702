"""A browser: Debian's Chromium, without a window, driven by its chromedriver (W3C WebDriver)."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.live.support import clean_environment
from tests.process.running import eventually


@contextmanager
def browsing(folder: Path, *more: str) -> Iterator[Browser]:
    """A browser with `more` arguments, which keeps its things in `folder`."""
    log = folder / "chromedriver.log"
    home = {"HOME": str(folder), "TMPDIR": str(folder)}
    with log.open("wb") as output:
        driver = subprocess.Popen(
            ["chromedriver", "--port=0"],
            cwd=folder,
            env=clean_environment() | home,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        started = re.compile(r"started successfully on port (\d+)")
        eventually("chromedriver listens", lambda: bool(started.search(log.read_text())), 30)
        browser = Browser(int(started.findall(log.read_text())[0]), folder / "profile", *more)
        try:
            yield browser
        finally:
            browser.end()
    finally:
        driver.terminate()
        driver.wait(20)


class Browser:
    """A session of chromedriver's."""

    def __init__(self, port: int, profile: Path, *more: str) -> None:
        """`profile` is Chromium's folder, `more` are arguments for it."""
        self._base = f"http://127.0.0.1:{port}"
        arguments = [
            "--headless=new",
            "--no-sandbox",
            "--mute-audio",
            "--autoplay-policy=no-user-gesture-required",
            f"--user-data-dir={profile}",
            *more,
        ]
        options = {"goog:chromeOptions": {"args": arguments}}
        made = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": options}})
        self._base += f"/session/{made['sessionId']}"
        self._ask("POST", "/timeouts", {"script": 30_000, "pageLoad": 30_000})

    def open(self, url: str) -> None:
        """Go there."""
        self._ask("POST", "/url", {"url": url})

    def run(self, script: str, *arguments: str, how: str = "sync") -> Any:
        """What the script says; with `async`, to its last argument."""
        return self._ask("POST", f"/execute/{how}", {"script": script, "args": arguments})

    def end(self) -> None:
        """The browser ends."""
        self._ask("DELETE", "")

    def _ask(self, method: str, path: str, value: object = None) -> Any:
        data = None if value is None else json.dumps(value).encode()
        request = urllib.request.Request(self._base + path, data, method=method)
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(request, timeout=60) as answer:
            return json.load(answer)["value"]
