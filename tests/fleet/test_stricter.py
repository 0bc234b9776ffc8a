import json

import pytest

from agent.bundle.documents import Assignment
from agent.bundle.dsse import unverified
from agent.bundle.manifest import CanaryRules, GateRules, ShadowRules, parse_manifest
from agent.update.offer import rules
from agent.wire.topics import Topics
from fleet.errors import FleetError
from fleet.manifestrules import read_stricter
from fleet.stricter import Stricter, completed
from tests.fakes.smallfleet import PREFIX, SmallFleet
from tests.vectors.bundles import make_bundle

GATE = GateRules(metric="map50_95", min_score=0.4, max_drop_vs_active=0.05)
CANARY = CanaryRules(seconds=5, max_error_rate=0.2)


@pytest.fixture
def manifest(tmp_path):
    packed = make_bundle(tmp_path / "bundle", gate=GATE, canary=CANARY)
    return parse_manifest(packed.manifest)


def asked(tmp_path, **sections):
    path = tmp_path / "stricter.json"
    path.write_text(json.dumps(sections))
    return read_stricter(path)


def test_without_a_file_the_bundles_rules_count_alone(manifest):
    assert completed(read_stricter(None), manifest) == Stricter()


def test_what_the_operator_did_not_name_stays_as_the_bundle_has_it(tmp_path, manifest):
    whole = completed(
        asked(tmp_path, gate={"min_score": 0.6}, canary={"seconds": 60}, shadow={"seconds": 90}),
        manifest,
    )
    assert whole.gate == GATE.model_copy(update={"min_score": 0.6})
    assert whole.canary == CANARY.model_copy(update={"seconds": 60})
    assert whole.shadow == ShadowRules(seconds=90)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"gate": {"min_score": 0.3}}, r"gate\.min_score 0\.3 .* demands 0\.4"),
        ({"gate": {"metric": "top1"}}, r"gate\.metric top1 .* demands map50_95"),
        ({"canary": {"seconds": 1}}, r"canary\.seconds 1\.0 .* demands 5\.0"),
        ({"shadow": {"seconds": 0}}, r"shadow\.seconds"),
    ],
)
def test_what_would_not_count_is_told(tmp_path, manifest, sections, message):
    with pytest.raises(FleetError, match=message):
        completed(asked(tmp_path, **sections), manifest)


@pytest.mark.parametrize("sections", [{"compat": {}}, {"gate": {"min_score": 2}}, {"gate": []}])
def test_only_rules_of_proofs_are_taken(tmp_path, sections):
    with pytest.raises(FleetError, match=r"stricter\.json"):
        asked(tmp_path, **sections)


def test_they_are_kept_with_the_campaign_and_stand_in_every_assignment(tmp_path):
    fleet = SmallFleet(tmp_path)
    fleet.publish()
    given = Stricter(canary=CanaryRules(seconds=3600))
    fleet.offer = type(fleet.offer)(
        *(getattr(fleet.offer, name) for name in ("campaign", "slot", "digest", "family")),
        *("1", 1, given),
    )
    fleet.create()
    assert fleet.campaigns.load("c")[1].stricter == given
    fleet.rollout().advance(0)
    for device in fleet.keys:
        envelope = fleet.air.retained[Topics(PREFIX, device).assignment]
        found = unverified(envelope, Assignment)
        assert (found.gate, found.shadow, found.canary) == (None, None, given.canary)
        assert rules(fleet.files.manifest, found).canary.seconds == 3600
    fleet.database.close()
