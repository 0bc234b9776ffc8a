from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.outbox import Draft, MemoryOutbox


def draft(number: int, size: int = 1) -> Draft:
    return Draft("a", bytes(size), number, replay=False)


@given(
    st.integers(1, 5),
    st.integers(1, 30),
    st.lists(st.one_of(st.integers(0, 40), st.none()), max_size=60),
)
def test_the_newest_win_within_both_bounds(max_messages, max_bytes, steps):
    outbox = MemoryOutbox(max_messages, max_bytes)
    model: list[Draft] = []
    for number, size in enumerate(steps):
        if size is None:
            if model:
                assert outbox.first() is model.pop(0)
                outbox.remove_first()
            else:
                assert outbox.first() is None
            continue
        new = draft(number, size)
        out = outbox.put(new)
        model.append(new)
        assert out == model[: len(out)]
        del model[: len(out)]
        assert len(outbox) == len(model) <= max_messages
        assert outbox.size_bytes == sum(len(d.body) for d in model) <= max_bytes
        # No more than needed is dropped.
        if out:
            again = [out[-1], *model]
            assert len(again) > max_messages or sum(len(d.body) for d in again) > max_bytes
