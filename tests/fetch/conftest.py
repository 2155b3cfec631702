"""Worlds for tests of fetches, which must be idle at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.fetch.reactor import World


@pytest.fixture
def make() -> Iterator[Callable[..., World]]:
    """Makes worlds, which must leave nothing behind after the test."""
    worlds: list[World] = []

    def made(**settings: object) -> World:
        worlds.append(World(**settings))  # type: ignore[arg-type]
        return worlds[-1]

    yield made
    for world in worlds:
        world.assert_idle()


@pytest.fixture
def world(make: Callable[..., World]) -> World:
    return make()
