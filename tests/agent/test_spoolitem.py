from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.spoolitem import DETECTION, EVENT, Item, Memory, first_key


def item(priority: int, number: int, size: int = 10) -> Item:
    return Item(first_key(priority) + number, "b", "", number, 0, False, 0.0, b"x" * size)


@given(st.lists(st.tuples(st.sampled_from([EVENT, DETECTION]), st.integers(0, 300)), max_size=80))
def test_memory_keeps_its_bounds_and_gives_up_the_lowest_priority_and_oldest_first(puts):
    memory = Memory(10, 2000)
    kept: list[Item] = []
    for number, (priority, size) in enumerate(puts):
        new = item(priority, number, size)
        out = memory.put(new)
        kept.append(new)
        for gone in out:
            lowest = max(i.priority for i in kept)
            assert gone == next(i for i in kept if i.priority == lowest)
            kept.remove(gone)
        assert sorted(memory.all(), key=lambda i: i.key) == memory.all()
        assert sorted(kept, key=lambda i: i.key) == memory.all()
        assert len(memory) <= 10
        assert memory.size_bytes == sum(i.size_bytes for i in kept) <= 2000


def test_shifted_items_keep_their_order_and_priority():
    memory = Memory(10, 2000)
    for number, priority in enumerate([EVENT, DETECTION, EVENT]):
        memory.put(item(priority, number))
    memory.shift(100)
    assert [(i.priority, i.number) for i in memory.all()] == [(0, 100), (0, 102), (1, 101)]
    assert memory.pop(first_key(EVENT) + 100) is not None
