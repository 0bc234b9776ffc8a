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
