from __future__ import annotations

import itertools
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.errors import StoreError
from agent.update.blockfile import STOP_EVERY
from agent.update.staging import Staging
from tests.fakes.blocks import make_blocks

SOURCE = make_blocks(20, 64, last=7)
EVERYTHING = frozenset(range(20))


@pytest.fixture
def staging(tmp_path):
    return Staging(tmp_path / "bundles", "a" * 64)


@pytest.fixture
def have(tmp_path):
    return tmp_path / "bundles" / ("a" * 64) / "have"


def fill(staging, numbers=EVERYTHING):
    with staging.blocks(SOURCE.index) as file:
        for number in numbers:
            file.keep([(number, SOURCE.blocks[number])])


def present(staging):
    with staging.blocks(SOURCE.index) as file:
        return file.present


def test_a_new_file_has_nothing(staging):
    assert present(staging) == frozenset()


def test_what_was_kept_is_there_again(staging):
    fill(staging, (0, 7, 8, 19))
    assert present(staging) == {0, 7, 8, 19}
    fill(staging, EVERYTHING - {0, 7, 8, 19})
    assert present(staging) == EVERYTHING
    assert staging.payload.read_bytes() == SOURCE.payload


def test_a_block_that_is_torn_is_missing_though_it_is_marked(staging, have):
    fill(staging)
    with staging.payload.open("r+b") as file:
        file.seek(3 * 64 + 40)
        file.write(bytes(24))
    assert present(staging) == EVERYTHING - {3}
    assert have.read_bytes() == bytes([0b11110111, 0xFF, 0b1111])


def test_a_block_that_was_written_and_not_marked_is_missing(staging):
    fill(staging, EVERYTHING - {5})
    with staging.payload.open("r+b") as file:
        file.seek(5 * 64)
        file.write(SOURCE.blocks[5])
    assert present(staging) == EVERYTHING - {5}


@pytest.mark.parametrize(
    "torn",
    [b"", b"\0", b"\0" * 4, b"\xff\xff\xff", b"\xff" * 4096],
    ids=lambda torn: str(len(torn)),
)
def test_a_torn_map_costs_no_block(staging, have, torn):
    fill(staging, (1, 2, 15))
    have.write_bytes(torn)
    assert present(staging) == {1, 2, 15}
    # The rest of the last byte stands for no block.
    assert have.read_bytes()[:2] == bytes([0b110, 0b10000000])
    assert len(have.read_bytes()) == 3


def test_a_map_that_is_gone_costs_the_blocks_and_no_more(staging, have):
    fill(staging, (1, 2, 15))
    have.unlink()
    assert present(staging) == frozenset()


def test_a_payload_that_is_gone_is_missing_whole(staging):
    fill(staging)
    staging.payload.unlink()
    assert present(staging) == frozenset()


def test_a_payload_that_was_cut_is_whole_again_but_for_what_was_cut(staging):
    fill(staging)
    with staging.payload.open("r+b") as file:
        file.truncate(10 * 64 + 1)
    assert present(staging) == frozenset(range(10))
    assert staging.payload.stat().st_size == len(SOURCE.payload)


def test_a_stop_ends_the_reading_early_and_forgets_nothing(tmp_path):
    source = make_blocks(2 * STOP_EVERY, 1)
    staging = Staging(tmp_path, "b" * 64)
    with staging.blocks(source.index) as file:
        for number, block in enumerate(source.blocks):
            file.keep([(number, block)])
    answers = iter((False, True))
    with staging.blocks(source.index, lambda: next(answers)) as file:
        assert file.present == frozenset(range(STOP_EVERY))
    with staging.blocks(source.index) as file:
        assert len(file.present) == 2 * STOP_EVERY


def test_a_disk_that_refuses_is_told(staging, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    with staging.blocks(SOURCE.index) as file:
        monkeypatch.setattr("agent.update.blockfile.os.pwritev", refuse)
        with pytest.raises(StoreError, match=r"payload cannot be written: No space left"):
            file.keep([(0, SOURCE.blocks[0])])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    kept=st.sets(st.integers(0, 19)),
    marks=st.binary(max_size=6),
    damaged=st.sets(st.integers(0, 19), max_size=4),
)
def test_whatever_a_crash_leaves_only_right_blocks_are_there(tmp_path, kept, marks, damaged):
    staging = Staging(tmp_path, "c" * 64)
    staging.remove()
    fill(staging, kept)
    (tmp_path / ("c" * 64) / "have").write_bytes(marks)
    with staging.payload.open("r+b") as file:
        for number in damaged:
            file.seek(number * 64 + 1)
            file.write(b"damage")
    with staging.blocks(SOURCE.index) as file:
        assert file.present <= kept - damaged
        for number in EVERYTHING - file.present:
            file.keep([(number, SOURCE.blocks[number])])
    assert staging.payload.read_bytes() == SOURCE.payload
    assert present(staging) == EVERYTHING


@given(st.permutations(range(20)), st.lists(st.integers(0, 20), max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_blocks_in_any_order_and_company_are_kept(tmp_path_factory, order, cuts):
    place = Staging(tmp_path_factory.mktemp("any"), "a" * 64)
    cuts = sorted({0, 20, *cuts})
    with place.blocks(SOURCE.index) as file:
        for begin, end in itertools.pairwise(cuts):
            file.keep([(number, SOURCE.blocks[number]) for number in order[begin:end]])
    assert present(place) == EVERYTHING
    assert place.payload.read_bytes() == SOURCE.payload


def test_a_disk_that_takes_a_part_at_a_time_gets_all_of_it(staging, monkeypatch):
    whole = os.pwritev

    def part(descriptor, parts, offset):
        return whole(descriptor, [b"".join(parts)[:50]], offset)

    monkeypatch.setattr("agent.update.blockfile.os.pwritev", part)
    with staging.blocks(SOURCE.index) as file:
        file.keep(list(enumerate(SOURCE.blocks)))
    monkeypatch.undo()
    assert present(staging) == EVERYTHING
