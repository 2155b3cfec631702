"""Complete pages of a store's listing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from twistedmedia.store.interface import Batch, ListedFile


@dataclass(frozen=True)
class Page:
    """All batches of a page together."""

    entries: tuple[ListedFile | str, ...]
    more: bool
    left_out: int


async def page_of(
    store: Any,
    folders: tuple[str, ...] = ("a", "b"),
    after: str = "",
    limit: int = 1000,
    **options: Any,
) -> Page:
    """Read all batches of a page."""
    listed = store.list(folders, after, limit, **options)
    entries: list[ListedFile | str] = []
    left = limit
    while True:
        batch: Batch = await listed.read(lambda batch: batch)
        assert len(batch.entries) + batch.left <= left
        left = batch.left
        entries += batch.entries
        if batch.end is not None:
            return Page(tuple(entries), batch.end.more, batch.end.left_out)
