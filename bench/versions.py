"""
Two versions of the service in place of the service and its peers: this one, and the one of another
environment.
"""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

from scenario import Entry, Scenario
from servers import Launch, Server


def against(scenario: Scenario, python: Path, other: str) -> Scenario | None:
    """
    A scenario with each entry of this service twice: as it is here, and under the twistd beside
    *python*, which is called *other*. None when it has no such entry.

    The lateness of the event loop is not measured.
    """
    entries = []
    for entry in scenario.entries:
        if entry.server.name.startswith("twistedmedia"):
            server = _under(python, other, entry.server)
            entries += [
                replace(entry, compared_with=(server.name,)),
                Entry(server, entry.kind, entry.size_bytes),
            ]
    return replace(scenario, entries=tuple(entries), lateness=False) if entries else None


def package_of(python: Path) -> Path:
    """The folder of the service's package in the environment of *python*."""
    program = "import twistedmedia; print(twistedmedia.__file__)"
    done = subprocess.run(
        [str(python), "-c", program], cwd="/", check=True, capture_output=True, text=True
    )
    return Path(done.stdout.strip()).parent


def _under(python: Path, other: str, server: Server) -> Server:
    def command(launch: Launch) -> list[str]:
        _, *arguments = server.command(launch)
        return [str(python.with_name("twistd")), *arguments]

    name = server.name.replace("twistedmedia", f"twistedmedia of {other}", 1)
    return Server(name, command, has_probe=False)
