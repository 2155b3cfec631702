"""A queue in which keys take turns."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from twistedmedia.fairness.loop_queue import RoundRobin


def test_keys_take_turns_whatever_number_of_items_each_has() -> None:
    waiting: RoundRobin[str, int] = RoundRobin()
    for number in range(1000):
        waiting.add("crowd", number)
    waiting.add("one", -1)
    waiting.add("other", -2)
    waiting.add("one", -3)
    assert [waiting.next() for _ in range(7)] == [0, -1, -2, 1, -3, 2, 3]


@given(st.lists(st.none() | st.integers(0, 4), max_size=100))
def test_each_item_is_taken_once_and_in_order_within_its_key(keys: list[int | None]) -> None:
    waiting: RoundRobin[int, tuple[int, int]] = RoundRobin()
    added: list[tuple[int, int]] = []
    taken: list[tuple[int, int]] = []
    for number, key in enumerate(keys):
        if key is not None:
            added.append((key, number))
            waiting.add(key, added[-1])
        elif waiting:
            taken.append(waiting.next())
    while waiting:
        taken.append(waiting.next())
    assert sorted(taken) == sorted(added)
    for key in range(5):
        assert [each for each in taken if each[0] == key] == [
            each for each in added if each[0] == key
        ]
