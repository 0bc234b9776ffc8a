"""The soak and the drill, shortened; `scripts/soak` runs them at length."""

from __future__ import annotations

import pytest

from tests.soak.drill import drill
from tests.soak.plot import draw
from tests.soak.soak import soak

pytestmark = pytest.mark.slow


@pytest.mark.timeout(240)
def test_chaos_leaves_every_message_accounted_for(tmp_path):
    report = soak(tmp_path / "soak", 40, seed=1, every=(0.5, 1.5))
    assert report["faults"] == []
    assert sum(report["troubles"].values()) >= 5
    assert report["account"]["messages"] > 200
    draw(report, tmp_path / "soak.png")
    assert (tmp_path / "soak.png").stat().st_size > 10_000


@pytest.mark.timeout(180)
def test_the_plug_is_pulled_and_nothing_written_is_lost(tmp_path):
    report = drill(tmp_path / "drill", 4, seed=2)
    assert report["faults"] == []
