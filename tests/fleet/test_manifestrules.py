import json

import pytest

from agent.bundle.manifest import Build, CanaryRules, GateRules
from fleet.errors import FleetError
from fleet.manifestrules import DAY_S, MAX_RULES_BYTES, ManifestRules, facts, read_rules


def test_without_any_the_manifests_defaults_count():
    assert read_rules(None, {"gate.min_score": None}) == ManifestRules()


def test_options_count_more_than_the_file(tmp_path):
    path = tmp_path / "rules.json"
    path.write_text(
        json.dumps({"gate": {"metric": "top1", "min_score": 0.5}, "min_release_counter": 3})
    )
    rules = read_rules(
        path, {"gate.min_score": 0.7, "canary.seconds": 5.0, "build.precision": "int8"}
    )
    assert rules.gate == GateRules(metric="top1", min_score=0.7)
    assert rules.canary == CanaryRules(seconds=5.0)
    assert rules.build == Build(precision="int8")
    assert rules.min_release_counter == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"gates": {}}', "gates"),
        ('{"gate": {"min_score": 2}}', r"gate\.min_score"),
        ('{"gate": []}', "rules.json"),
        ("[]", "rules.json"),
        ("{", "rules.json"),
        ('{"min_release_counter": -1}', "min_release_counter"),
        (" " * (MAX_RULES_BYTES + 1), "larger"),
    ],
)
def test_what_is_not_possible_is_told(tmp_path, text, message):
    path = tmp_path / "rules.json"
    path.write_text(text)
    with pytest.raises(FleetError, match=message):
        read_rules(path, {"gate.metric": "top1"})


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(FleetError, match="No such file"):
        read_rules(tmp_path / "none.json", {})


def test_facts_end_when_they_should():
    made = facts(ManifestRules(), "line", "1", 1_700_000_000.9, 30)
    assert (made.created, made.expires) == (1_700_000_000, 1_700_000_000 + 30 * DAY_S)
