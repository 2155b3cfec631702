"""Fixtures for tests of the options and of the service that they describe."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def bare_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty working directory, and an environment without variables of the service."""
    for name in [each for each in os.environ if each.startswith("TWISTEDMEDIA_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path
