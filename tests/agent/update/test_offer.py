import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.bundle.documents import Assignment, Grant
from agent.bundle.manifest import CanaryRules, GateRules, ShadowRules, parse_manifest
from agent.update.offer import rules
from tests.vectors.bundles import make_bundle

LEAST = {
    "gate": ["max_drop_vs_active", "latency_p95_ms", "max_latency_ratio", "memory_mb"],
    "shadow": [],
    "canary": ["max_latency_ratio", "max_error_rate", "max_detection_drift",
               "max_memory_growth_mb"],
}  # fmt: skip
"""Rules that are stricter when they are smaller; the others when they are larger."""

FRACTIONS = st.floats(0.01, 1.0)
SHARES = st.none() | FRACTIONS
GATES = st.builds(
    GateRules,
    metric=st.just("map50_95"),
    min_score=SHARES,
    max_drop_vs_active=SHARES,
    latency_p95_ms=SHARES,
    max_latency_ratio=SHARES,
    memory_mb=st.none() | st.integers(1, 100),
)
SHADOWS = st.builds(ShadowRules, seconds=FRACTIONS, min_agreement=SHARES)
CANARIES = st.builds(
    CanaryRules,
    seconds=FRACTIONS,
    min_fps_ratio=FRACTIONS,
    max_latency_ratio=FRACTIONS,
    max_error_rate=FRACTIONS,
    max_detection_drift=SHARES,
    max_memory_growth_mb=st.none() | st.integers(1, 100),
)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    packed = make_bundle(tmp_path_factory.mktemp("bundle") / "b")
    return parse_manifest(packed.manifest)


def assignment(**rules_):
    return Assignment(
        device="d1",
        slot="main",
        counter=1,
        campaign="c1",
        target="models/f/1/manifest.json",
        sha256="0" * 64,
        release_counter=1,
        grant=Grant(kem="p256", key_id="0" * 16, sealed="AAAA"),
        not_before=0,
        deadline=1,
        **rules_,
    )


@given(data=st.data())
def test_an_assignment_can_only_make_rules_stricter(manifest, data):
    signed = manifest.model_copy(
        update={
            "gate": data.draw(GATES),
            "shadow": data.draw(SHADOWS),
            "canary": data.draw(CANARIES),
        }
    )
    asked = assignment(
        gate=data.draw(st.none() | GATES),
        shadow=data.draw(st.none() | SHADOWS),
        canary=data.draw(st.none() | CANARIES),
    )
    found = rules(signed, asked)
    for part in ("gate", "shadow", "canary"):
        for name in type(getattr(found, part)).model_fields:
            if name == "metric":
                continue
            values = [getattr(getattr(s, part), name) for s in (signed, asked) if getattr(s, part)]
            given_ = [value for value in values if value is not None]
            strictest = (min if name in LEAST[part] else max)(given_, default=None)
            assert getattr(getattr(found, part), name) == strictest, (part, name)


def test_scores_of_another_metric_are_not_compared(manifest):
    signed = manifest.model_copy(update={"gate": GateRules(metric="map50_95", min_score=0.3)})
    found = rules(signed, assignment(gate=GateRules(metric="top1", min_score=0.9)))
    assert (found.gate.metric, found.gate.min_score) == ("map50_95", 0.3)


def test_without_an_assignment_the_manifests_rules_count(manifest):
    signed = manifest
    found = rules(signed, None)
    assert (found.gate, found.shadow, found.canary) == (signed.gate, signed.shadow, signed.canary)
