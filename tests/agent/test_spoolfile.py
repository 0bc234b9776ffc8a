from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agent.errors import StoreError
from agent.spoolfile import DamagedError, SpoolFile, set_aside
from agent.spoolitem import DETECTION, EVENT, PRIORITIES, Item, first_key


def item(number: int, priority: int = EVENT, size: int = 10, at: float = 2e9) -> Item:
    key = first_key(priority) + number
    return Item(key, "b", "a", number, 3, True, at, b"x" * size)


class Files(RuleBasedStateMachine):
    """A file does what a dictionary does, also over being closed and opened again."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "f.db"
        self.file = SpoolFile(self.path)
        self.model: dict[int, Item] = {}
        self.number = 0

    @rule(new=st.lists(st.tuples(st.sampled_from(PRIORITIES), st.integers(0, 9000)), max_size=9))
    def add(self, new):
        items = []
        for priority, size in new:
            items.append(item(self.number, priority, size))
            self.number += 1
        self.file.change(items, ())
        self.model |= {i.key: i for i in items}

    @rule(data=st.data())
    def remove(self, data):
        keys = set(data.draw(st.lists(st.sampled_from([*self.model, -5]), max_size=5)))
        self.file.change((), keys)
        for key in keys:
            self.model.pop(key, None)

    @rule(messages=st.integers(0, 20), size=st.integers(0, 60_000), data=st.data())
    def bound(self, messages, size, data):
        spare = set(data.draw(st.lists(st.sampled_from([*self.model, -5]), max_size=3)))
        gone = self.file.surplus(messages, size, spare)
        assert not spare & set(gone)
        order = sorted(self.model, key=lambda k: (-self.model[k].priority, k))
        assert gone == [k for k in order if k not in spare][: len(gone)]
        self.file.change((), gone)
        for key in gone:
            del self.model[key]
        if not spare - {-5}:
            assert len(self.model) <= messages
            assert self.file.size_bytes <= size

    @rule()
    def reopen(self):
        self.file.close()
        self.file = SpoolFile(self.path)

    @invariant()
    def holds_what_was_put(self):
        found = [i for p in PRIORITIES for i in self.file.read(p, -1, 1000)]
        assert found == [self.model[key] for key in sorted(self.model)]
        assert self.file.messages == len(self.model)
        assert self.file.size_bytes == sum(i.size_bytes for i in self.model.values())

    def teardown(self):
        self.file.close()
        self.folder.cleanup()


TestFiles = Files.TestCase
TestFiles.settings = settings(max_examples=15, stateful_step_count=15, deadline=None)


@pytest.fixture
def file(tmp_path):
    made = SpoolFile(tmp_path / "f.db")
    yield made
    made.close()


def test_reading_goes_on_behind_a_key(file):
    file.change([item(n) for n in range(10)] + [item(10, DETECTION)], ())
    assert [i.seq for i in file.read(EVENT, 3, 4)] == [4, 5, 6, 7]
    assert [i.seq for i in file.read(DETECTION, -1, 4)] == [10]
    assert (file.last(EVENT), file.last(DETECTION)) == (9, first_key(DETECTION) + 10)


def test_age_spares_what_has_no_known_age(file):
    file.change([item(0, at=5.0), item(1, at=100.0), item(2, at=150.0), item(3, at=900.0)], ())
    assert file.too_old(500.0, 50.0, {2}) == [1]


def test_a_second_user_is_refused_and_the_file_is_not_blamed(file, tmp_path):
    with pytest.raises(StoreError, match="locked") as caught:
        SpoolFile(tmp_path / "f.db")
    assert not isinstance(caught.value, DamagedError)


@pytest.mark.parametrize(
    "content", [b"no database at all" * 100, b"SQLite format 3\0" + b"\xff" * 5000]
)
def test_damage_is_told_from_other_failures_and_can_be_set_aside(tmp_path, content):
    path = tmp_path / "f.db"
    path.write_bytes(content)
    with pytest.raises(DamagedError):
        SpoolFile(path)
    assert set_aside(path).read_bytes() == content
    SpoolFile(path).close()


def test_a_format_of_another_version_is_set_aside(tmp_path):
    path = tmp_path / "f.db"
    made = SpoolFile(path)
    made._db.execute("PRAGMA user_version=99")
    made.close()
    with pytest.raises(DamagedError, match="format 99"):
        SpoolFile(path)


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "elsewhere").write_text("")
    (tmp_path / "f.db").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError):
        SpoolFile(tmp_path / "f.db")
