import json

import pytest

from fleet.errors import FleetError
from fleet.manifestrules import MAX_DROP, MAX_LATENCY_RATIO, MIN_AGREEMENT, guarded, read_rules


def test_where_the_truth_is_known_little_accuracy_may_be_lost():
    rules = guarded(read_rules(None, {}), truth=True)
    assert rules.gate.metric == "map50_95"
    assert (rules.gate.max_drop_vs_active, rules.gate.min_score) == (MAX_DROP, None)
    assert rules.gate.max_latency_ratio == MAX_LATENCY_RATIO
    assert rules.shadow.min_agreement is None


def test_without_it_the_model_that_serves_is_the_measure():
    rules = guarded(read_rules(None, {}), truth=False)
    assert (rules.gate.metric, rules.gate.min_score) == ("agreement", MIN_AGREEMENT)
    assert rules.gate.max_drop_vs_active is None
    assert rules.shadow.min_agreement == MIN_AGREEMENT


def test_what_was_decided_is_left_as_it_is():
    options = {"gate.min_score": 0.0, "shadow.min_agreement": 0.1, "gate.max_latency_ratio": 9.0}
    rules = guarded(read_rules(None, options), truth=False)
    assert (rules.gate.min_score, rules.shadow.min_agreement) == (0.0, 0.1)
    assert rules.gate.max_latency_ratio == 9.0


def test_options_count_more_than_the_file(tmp_path):
    path = tmp_path / "rules.json"
    path.write_text(json.dumps({"gate": {"min_score": 0.5}, "canary": {"seconds": 5.0}}))
    rules = read_rules(path, {"gate.min_score": 0.6, "gate.metric": None})
    assert (rules.gate.min_score, rules.canary.seconds) == (0.6, 5.0)


@pytest.mark.parametrize(
    "content", ["", "[]", '{"gate": 1}', '{"gate": {"colour": 1}}', '{"canary": {"seconds": -1}}']
)
def test_a_file_that_holds_no_rules_is_told(tmp_path, content):
    path = tmp_path / "rules.json"
    path.write_text(content)
    with pytest.raises(FleetError, match=r"rules\.json"):
        read_rules(path, {"gate.min_score": 0.5})
