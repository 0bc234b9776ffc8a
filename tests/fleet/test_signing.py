from __future__ import annotations

import contextlib
import json
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tuf.api.metadata import Targets

from agent.bundle.manifest import digest_of, parse_manifest
from agent.errors import AgentError, ManifestError
from fleet.errors import FleetError
from fleet.metadatatext import describe
from fleet.signing import (
    MAX_REQUEST_BYTES,
    MAX_SIGNATURE_BYTES,
    SigningRequest,
    add_signature,
    parse_request,
    read_request,
    read_signature,
    sign_request,
)
from tests.fakes.tufhouse import House, manifest
from tests.fakes.tufrepository import key, target

PATH = "models/line/1/manifest.json"


@pytest.fixture
def house(tmp_path):
    return House(tmp_path).found()


@pytest.fixture
def elsewhere(tmp_path):
    """Another machine, which has nothing but what is carried there."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


@pytest.fixture
def request_file(house):
    return house.repository.stage_target(manifest())


def altered(path, change):
    value = json.loads(path.read_bytes())
    change(value)
    path.write_text(json.dumps(value))


def test_a_request_is_signed_on_another_machine_and_the_signature_brought_back(
    house, elsewhere, request_file
):
    for signer in house.release:
        carried = shutil.copy(request_file, elsewhere / "request.json")
        back = add_signature(carried, signer)
        house.repository.attach(back)
    assert house.repository.missing() == []
    assert house.repository.complete() == ["targets"]


def test_a_request_shows_people_what_will_be_signed(house, request_file):
    shown = json.loads(request_file.read_bytes())["what"]
    parsed = parse_manifest(manifest())
    assert shown[0].startswith("targets version 2, made 2027-01-15 08:00 UTC, valid until 2028-")
    assert shown[1] == (
        f"+ bundle {PATH}: sha256 {digest_of(manifest())}, {len(manifest())} bytes, "
        '{"release_counter": 1}'
    )
    assert any(line.startswith("= director keys, ") for line in shown)
    assert parsed.release_counter == 1


def test_a_request_for_root_shows_which_keys_come_and_go(house):
    (request, _) = house.repository.revoke_release_key(
        house.release[0].public_key.keyid, key("new").public_key
    )
    shown = read_request(request).review(house.root[0].public_key)
    assert f"- release keys, {house.release[0].public_key.keyid}" in "\n".join(shown)
    assert f"+ release keys, {key('new').public_key.keyid}" in "\n".join(shown)
    assert "= threshold of release keys: 2 of 2" in shown


def test_what_stays_is_called_so_only_to_those_who_have_signed_it(house):
    """The controller was taken over: it puts a bundle into what it says is in force."""
    house.release_bundle()
    request = house.repository.renew_targets()
    theirs = read_request(request).review(house.release[0].public_key)
    assert any(line.startswith(f"= bundle {PATH}") for line in theirs)
    strangers = read_request(request).review(key("third").public_key)
    assert any(line.startswith(f"+ bundle {PATH}") for line in strangers)

    def pass_off(value):
        value["previous"]["signed"]["targets"]["models/evil/1/manifest.json"] = target().to_dict()
        value["signed"]["targets"]["models/evil/1/manifest.json"] = target().to_dict()

    forged = _consistent(request, pass_off)
    shown = forged.review(house.release[0].public_key)
    assert any(line.startswith("+ bundle models/evil") for line in shown)


def _consistent(path, change) -> SigningRequest:
    """What a controller that lies would write: its file shows what it has signed."""
    value = json.loads(path.read_bytes())
    change(value)
    made = SigningRequest(
        signed=Targets.from_dict(value["signed"]),
        previous=read_request(path).previous,
        asks=read_request(path).asks,
    )
    made.previous.signed.targets["models/evil/1/manifest.json"] = target()
    return parse_request(made.encode())


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value["what"].pop(1),
        lambda value: value.update(what=[]),
        lambda value: value.update(digest="0" * 64),
        lambda value: value.update(role="root"),
        lambda value: value["signed"].update(version=3),
        lambda value: value["signed"]["targets"][PATH].update(length=1),
        lambda value: value["signed"].update({"x-vigia-policy": {"approvals": 0}}),
        lambda value: value.pop("previous"),
    ],
)
def test_a_request_that_shows_one_thing_and_has_another_signed_is_not_signed(
    house, request_file, change
):
    altered(request_file, change)
    with pytest.raises(FleetError, match="does not show what it would have signed"):
        add_signature(request_file, house.release[0])


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value["signed"].pop("targets"),
        lambda value: value["signed"].update(_type="snapshot"),
        lambda value: value.update(asks=[{"who": "x", "threshold": 1, "keys": {"a": {}}}]),
        lambda value: value["signed"].update(version=0),
        lambda value: value.update(more=1),
        lambda value: value.update(schema="vigia.signing-request/2"),
    ],
)
def test_what_is_no_request_is_not_signed(house, request_file, change):
    altered(request_file, change)
    with pytest.raises((ManifestError, FleetError)):
        add_signature(request_file, house.release[0])


def test_a_key_that_is_not_asked_signs_nothing(house, request_file):
    for signer in (house.director, house.root[0], key("stranger")):
        with pytest.raises(FleetError, match=r"does not need the key .* needs 2 of the release"):
            add_signature(request_file, signer)
    impostor = key("stranger")
    impostor.public_key.keyid = house.release[0].public_key.keyid
    with pytest.raises(FleetError, match="does not need the key"):
        add_signature(request_file, impostor)
    assert len(list(request_file.parent.iterdir())) == 1


def test_a_signature_of_an_earlier_request_is_not_taken(house, elsewhere, request_file):
    carried = shutil.copy(request_file, elsewhere / "request.json")
    back = add_signature(carried, house.release[0])
    house.repository.set_policy(1)
    with pytest.raises(FleetError, match="signs something else"):
        house.repository.attach(back)


def test_a_forged_signature_is_not_taken(house, elsewhere, request_file):
    carried = shutil.copy(request_file, elsewhere / "request.json")
    back = add_signature(carried, house.release[0])
    other = house.release[1].public_key.keyid
    for change in ({"sig": "00" * 64}, {"key_id": other}, {"key_id": "0" * 64}):
        forged = elsewhere / "forged.json"
        forged.write_text(json.dumps(json.loads(back.read_bytes()) | change))
        with pytest.raises(FleetError, match="no valid signature"):
            house.repository.attach(forged)


def test_a_forged_signature_laid_into_the_folder_counts_for_nothing(house, request_file):
    back = add_signature(request_file, house.release[0])
    value = json.loads(back.read_bytes()) | {"key_id": house.release[1].public_key.keyid}
    back.with_name("targets.forged.sig.json").write_text(json.dumps(value))
    with pytest.raises(FleetError, match="needs 1 more"):
        house.repository.complete()


def test_signatures_that_count_for_nothing_are_not_published(house, request_file):
    house.sign([request_file])
    for number, who in enumerate((house.director, key("stranger"))):
        value = json.loads(add_signature(request_file, house.release[0]).read_bytes())
        value["key_id"] = who.public_key.keyid
        request_file.with_name(f"targets.{number}.sig.json").write_text(json.dumps(value))
    house.repository.complete()
    house.repository.publish_online(house.online)
    signatures = json.loads(house.repository.published().files["2.targets.json"])["signatures"]
    assert {each["keyid"] for each in signatures} == {s.public_key.keyid for s in house.release}


def test_an_old_signature_does_not_stand_before_a_new_one(house, request_file):
    old = add_signature(request_file, house.release[0]).read_bytes()
    request_file.with_name("targets.zzz.sig.json").write_bytes(old)
    house.repository.set_policy(1)
    house.sign([request_file])
    assert house.repository.complete() == ["targets"]


def test_no_secret_is_in_a_request_or_a_signature(house, request_file):
    back = add_signature(request_file, house.release[0])
    raw = house.release[0]._private_key.private_bytes_raw()
    for path in (request_file, back):
        assert raw.hex() not in path.read_text()
        assert "PRIVATE" not in path.read_text()


def test_files_that_are_missing_or_too_large_are_said_to_be_so(house, elsewhere):
    with pytest.raises(FleetError, match="cannot be read"):
        read_request(elsewhere / "missing.json")
    large = elsewhere / "large.json"
    large.write_bytes(b" " * (MAX_REQUEST_BYTES + 1))
    with pytest.raises(FleetError, match="larger than"):
        read_request(large)
    large.write_bytes(b" " * (MAX_SIGNATURE_BYTES + 1))
    with pytest.raises(FleetError, match="larger than"):
        house.repository.attach(large)


def test_a_signature_that_cannot_be_written_is_said_to_be_so(house, elsewhere, request_file):
    carried = shutil.copy(request_file, elsewhere / "request.json")
    (elsewhere / f"targets.{house.release[0].public_key.keyid[:16]}.sig.json").mkdir()
    with pytest.raises(FleetError, match="cannot be written"):
        add_signature(carried, house.release[0])
    assert sorted(path.suffix for path in elsewhere.iterdir()) == [".json", ".json"]


def test_text_that_moves_a_terminal_is_shown_harmless():
    hidden = "models/\x1b[2K\r/1/manifest.json"
    lines = describe(Targets(targets={hidden: target(path=hidden)}), None)
    assert all(line.isprintable() for line in lines)
    assert any("\\x1b[2K" in line for line in lines)


def test_fields_that_nobody_knows_are_shown():
    targets = Targets(unrecognized_fields={"x-new": {"a": 1}})
    assert '+ field x-new: {"a": 1}' in describe(targets, None)


def places(value, path=()):
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for name, inner in items:
        yield (*path, name)
        if isinstance(inner, (dict, list)):
            yield from places(inner, (*path, name))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """A request for root with all there is in it, and a signature."""
    house = House(tmp_path_factory.mktemp("house")).found()
    (path, _) = house.repository.revoke_release_key(
        house.release[0].public_key.keyid, key("new").public_key
    )
    signature = sign_request(read_request(path), house.root[0])
    return path.read_bytes(), signature.encode()


@settings(max_examples=200, deadline=None)
@given(st.data(), st.integers(0, 1))
def test_any_value_anywhere_gives_one_family_of_errors(texts, tmp_path_factory, data, which):
    value = json.loads(texts[which])
    way = data.draw(st.sampled_from(list(places(value))))
    inner = value
    for step in way[:-1]:
        inner = inner[step]
    inner[way[-1]] = data.draw(JSON)
    with contextlib.suppress(AgentError):
        if which:
            path = tmp_path_factory.getbasetemp() / "signature.json"
            path.write_text(json.dumps(value))
            assert read_signature(path).signature
        else:
            assert parse_request(json.dumps(value).encode()).digest == value["digest"]
