"""kill -9 of a real process at every point where it saves: see `tests.fakes.updatecrashes`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

SEEDS = int(os.environ.get("VIGIA_CRASH_SEEDS", "2"))
"""Lives that are tried; 20 in the long run."""


def crashes(folder, what):
    return subprocess.run(
        [sys.executable, "-m", "tests.fakes.updatecrashes", str(folder), str(what)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


@pytest.mark.parametrize("seed", range(SEEDS))
def test_kills_at_any_time_leave_a_legal_state_and_one_report_an_outcome(tmp_path, seed):
    done = crashes(tmp_path / "state", seed)
    assert done.returncode == 0, done.stderr
    found = re.match(r"seed \d+: (\d+) kills, .*'COMMITTED': (\d+)", done.stdout)
    assert found is not None
    assert int(found[1]) >= 10
    assert int(found[2]) >= 1


def test_a_kill_at_each_boundary_of_a_straight_update_changes_no_outcome(tmp_path):
    done = crashes(tmp_path, "boundaries")
    assert done.returncode == 0, done.stderr
    counts = dict(re.findall(r"([a-z.]+): (\d+) boundaries", done.stdout))
    # Two updates of nine steps, each then rolled back.
    assert int(counts["save.inside"]) == int(counts["save.done"]) == 20
    assert int(counts["fallback.written"]) >= 4
