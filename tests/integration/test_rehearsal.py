"""The rehearsal of `scripts/rehearse-update`, as a test."""

import pytest

from tests.integration.mosquitto import binary
from tests.integration.rehearsal import Rehearsal


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_fleet_pushes_refuses_and_resumes_updates_and_nothing_secret_is_seen(tmp_path):
    binary()
    told: list[str] = []
    with Rehearsal(tmp_path, told.append) as rehearsal:
        found = rehearsal.run()
    assert (
        found["sabotaged"]["figures"]["gate"]["score"] < found["better"]["figures"]["gate"]["score"]
    )
    assert found["secrets"]["searched_bytes"] > 10**6
