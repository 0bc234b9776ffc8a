"""A device becomes one of a fleet, with the controller's own authority on the other side."""

import json
import stat
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import fleet.vault
from agent.bundle.documents import MAX_ENROLMENT_BYTES, Enrolment
from agent.bundle.filekeys import TLS_FILE, load_keys, load_tls
from agent.bundle.identity import fingerprint, read_identity
from agent.bundle.trustmessage import parse
from agent.cli import app
from agent.config import KeyConfig
from agent.configfile import load
from agent.enrol import identify, install, read_root, settings_text
from agent.errors import AgentError, BundleError, ConfigError, KeyStoreError, ManifestError
from agent.tls import client_context
from fleet.authority import Authority
from fleet.vault import Vault
from tests.fakes.tufrepository import TufRepository, key

WORDS = "correct horse battery"
NAME = "line-7"


def root_of(name=""):
    return parse(TufRepository(name=name).publish())["1.root.json"].decode()


ROOT, OTHER_ROOT = root_of(), root_of("other ")


class Controller:
    """The other side."""

    def __init__(self, folder):
        self.authority = Authority(folder / "authority", Vault(folder / "keys"))
        self.authority.create("demo", WORDS)

    def answer(self, identity, root=ROOT, **changes):
        request = read_identity(identity)
        certificate = self.authority.device(request.device, request.csr, WORDS)
        enrolment = Enrolment(
            device=request.device,
            certificate=certificate.pem,
            authority=self.authority.certificate,
            root=root,
            host="broker.example",
            port=8883,
            prefix="vigia/v1",
        )
        return enrolment.model_copy(update=changes).encode()


@pytest.fixture
def controller(tmp_path, monkeypatch):
    monkeypatch.setattr(fleet.vault, "derive", lambda words, salt: (words.encode() + salt)[:32])
    return Controller(tmp_path / "fleet")


@pytest.fixture
def state(tmp_path):
    return tmp_path / "state"


@pytest.fixture
def identity(state):
    return identify(KeyConfig(), state, NAME, "orin-nano")


def test_a_device_shows_the_keys_that_lie_in_its_state_folder(state, identity):
    shown = read_identity(identity)
    assert (shown.device, shown.hw_class) == (NAME, "orin-nano")
    assert shown.sign_key == load_keys(state).sign_public_pem
    assert {path.name for path in state.iterdir()} == {"kem.key", "sign.key", "tls.key"}


def test_shown_again_it_is_the_same_device(state, identity):
    again = identify(KeyConfig(), state, NAME, "orin-nano", "mlkem768-x25519")
    assert fingerprint(read_identity(again)) == fingerprint(read_identity(identity))


def test_what_the_controller_answers_lies_beside_the_keys(controller, state, identity):
    answer = controller.answer(identity)
    enrolment = install(answer, state, NAME)
    assert enrolment.device == NAME
    assert read_root(None, state) == ROOT.encode()
    for name in ("root.json", "ca.pem", "tls.pem"):
        assert stat.S_IMODE((state / name).stat().st_mode) == 0o600
    assert (state / "ca.pem").read_text() == controller.authority.certificate
    # Nothing but the six files is left.
    assert len(list(state.iterdir())) == 6


def test_the_lines_for_the_configuration_can_be_used_as_they_are(
    controller, state, identity, tmp_path
):
    lines = settings_text(install(controller.answer(identity), state), state)
    path = tmp_path / "agent.yaml"
    path.write_text(lines + "\ncameras: {a: {source: 'synthetic://64x64@30'}}\n")
    config = load(path)
    assert (config.device.id, config.mqtt.host, config.mqtt.port) == (NAME, "broker.example", 8883)
    assert config.updates.state_dir == state
    # OpenSSL takes the certificate with the key.
    client_context(config.mqtt.tls)


def test_in_the_default_place_the_lines_name_no_folder(controller, identity, state, monkeypatch):
    monkeypatch.setenv("STATE_DIRECTORY", str(state))
    enrolment = install(controller.answer(identity), state)
    assert yaml.safe_load(settings_text(enrolment, state))["updates"] == {}


@pytest.mark.parametrize("name", ["a: b", 'quo"te', "#x", "grüße"])
def test_any_folder_is_written_so_that_it_is_read_back(controller, identity, state, tmp_path, name):
    enrolment = install(controller.answer(identity), state)
    text = settings_text(enrolment, tmp_path / name)
    assert yaml.safe_load(text)["updates"]["state_dir"] == str(tmp_path / name)


def untouched(state):
    return not any((state / name).exists() for name in ("root.json", "ca.pem", "tls.pem"))


def test_another_devices_answer_is_refused(controller, state, identity):
    with pytest.raises(BundleError, match="for line-7, this device is line-8"):
        install(controller.answer(identity), state, "line-8")
    with pytest.raises(BundleError, match="certificate is not for line-8"):
        install(controller.answer(identity, device="line-8"), state)
    assert untouched(state)


def test_an_answer_for_keys_that_are_gone_is_refused(controller, state, identity):
    answer = controller.answer(identity)
    (state / TLS_FILE).unlink()
    with pytest.raises(KeyStoreError, match="missing"):
        install(answer, state)
    identify(KeyConfig(), state, NAME, "orin-nano")
    with pytest.raises(BundleError, match="made anew"):
        install(answer, state)
    assert untouched(state)


def test_a_certificate_of_another_authority_is_refused(controller, state, identity, tmp_path):
    other = Controller(tmp_path / "other")
    with pytest.raises(ManifestError, match="not of the authority"):
        install(controller.answer(identity, authority=other.authority.certificate), state)
    assert untouched(state)


@pytest.mark.parametrize("field", ["certificate", "authority", "root"])
@pytest.mark.parametrize("value", ["", "no such thing", "{}", "-----BEGIN CERTIFICATE-----\n"])
def test_a_damaged_answer_is_refused_whole(controller, state, identity, field, value):
    with pytest.raises(BundleError):
        install(controller.answer(identity, **{field: value}), state)
    assert untouched(state)


def test_a_root_of_trust_that_does_not_sign_itself_is_refused(controller, state, identity):
    forged = ROOT.replace('"version":1,', '"version":2,')
    assert forged != ROOT
    with pytest.raises(BundleError):
        install(controller.answer(identity, forged), state)
    assert untouched(state)


def test_a_device_does_not_change_its_fleet_unasked(controller, state, identity):
    install(controller.answer(identity), state)
    # A new certificate of the same fleet is welcome.
    install(controller.answer(identity), state)
    with pytest.raises(BundleError, match="--new-fleet"):
        install(controller.answer(identity, OTHER_ROOT), state)
    assert read_root(None, state) == ROOT.encode()
    install(controller.answer(identity, OTHER_ROOT), state, new_fleet=True)
    assert read_root(None, state) == OTHER_ROOT.encode()


@pytest.fixture
def rotated():
    """Three roots of one fleet, each with other keys than the one before."""
    repository = TufRepository()
    for number in (1, 2):
        repository.set_keys("root", [key(f"root{number}{n}") for n in range(3)])
        repository.add_root()
    return [root.decode() for root in repository.roots]


def test_a_device_follows_its_fleets_roots(controller, state, identity, rotated):
    first, second, third = rotated
    install(controller.answer(identity, first), state)
    install(controller.answer(identity, third, earlier=(first, second)), state)
    assert read_root(None, state) == third.encode()
    # The root before the newest need not be repeated to who has it.
    state.joinpath("root.json").write_text(second)
    install(controller.answer(identity, third), state)
    assert read_root(None, state) == third.encode()


def test_a_root_that_does_not_follow_is_not_taken(controller, state, identity, rotated):
    first, second, third = rotated
    install(controller.answer(identity, first), state)
    other = TufRepository(name="other ")
    other.add_root()
    for answer in (
        controller.answer(identity, third),
        controller.answer(identity, third, earlier=(first,)),
        controller.answer(identity, other.roots[1].decode(), earlier=(first, second)),
        controller.answer(identity, other.roots[1].decode(), earlier=(other.roots[0].decode(),)),
        controller.answer(identity, third, earlier=("{}",)),
    ):
        with pytest.raises(BundleError, match="does not follow from it"):
            install(answer, state)
        assert read_root(None, state) == first.encode()


def test_an_older_answer_does_not_take_a_device_back(controller, state, identity, rotated):
    first, second, third = rotated
    install(controller.answer(identity, third), state)
    for root, earlier in ((first, ()), (second, (first,)), (second, (first, third))):
        with pytest.raises(BundleError, match="enroll --again"):
            install(controller.answer(identity, root, earlier=earlier), state)
    assert read_root(None, state) == third.encode()


@given(st.binary(max_size=200))
def test_garbage_is_one_kind_of_error(data):
    with pytest.raises(BundleError):
        install(data, Path("/nowhere"))


def test_a_huge_answer_is_refused_before_it_is_read(state):
    with pytest.raises(ManifestError, match="more than"):
        install(b" " * (MAX_ENROLMENT_BYTES + 1), state)


def test_a_device_that_is_not_enrolled_says_so(tmp_path):
    with pytest.raises(BundleError, match=r"not enrolled.*vigia enroll"):
        read_root(None, tmp_path)
    with pytest.raises(BundleError, match="cannot be read"):
        read_root(tmp_path, tmp_path)
    (tmp_path / "big.json").write_bytes(b"x" * 2**17)
    with pytest.raises(BundleError, match="larger than"):
        read_root(tmp_path / "big.json", tmp_path)


def test_a_root_of_trust_may_lie_elsewhere(tmp_path):
    (tmp_path / "own.json").write_bytes(b"{}")
    assert read_root(tmp_path / "own.json", tmp_path / "state") == b"{}"


def run(*arguments):
    return CliRunner().invoke(app, ["enroll", *map(str, arguments)])


def test_the_command_shows_identity_and_fingerprint(state, tmp_path):
    out = tmp_path / "identity.json"
    done = run("--state", state, "--device", NAME, "--out", out)
    assert done.exit_code == 0, done.output
    mark = fingerprint(read_identity(out.read_bytes()))
    assert mark in done.stderr
    assert "vigia fleet enroll DIR identity.json" in done.stderr
    assert done.stdout == ""


def test_without_a_file_the_identity_goes_to_standard_output_alone(state):
    done = run("--state", state, "--device", NAME)
    assert read_identity(done.stdout.encode().strip()).device == NAME
    assert "fingerprint" in done.stderr


def test_the_command_for_programs(state):
    shown = json.loads(run("--state", state, "--device", NAME, "--json").stdout)
    identity = read_identity(json.dumps(shown["identity"]).encode())
    assert shown["fingerprint"] == fingerprint(identity)
    assert (shown["device"], shown["key_level"], shown["kem"]) == (NAME, "L0", "p256")


def test_the_key_for_models_can_withstand_quantum_computers(state):
    run("--state", state, "--device", NAME, "--kem", "mlkem768-x25519")
    assert load_keys(state).kem == "mlkem768-x25519"


def test_name_place_and_class_come_from_the_configuration(tmp_path):
    path = tmp_path / "agent.yaml"
    path.write_text(
        "device: {id: line-9}\nmqtt: {host: h}\nupdates: {state_dir: here, hw_class: agx}\n"
        "cameras: {a: {source: 'synthetic://64x64@30'}}\n"
    )
    shown = json.loads(run("-c", path, "--json").stdout)
    assert (shown["device"], shown["hw_class"]) == ("line-9", "agx")
    assert load_tls(tmp_path / "here")


@pytest.mark.parametrize("name", ["a/b", "", "+", "x" * 65, "a\n"])
def test_a_name_that_is_no_topic_level_is_refused(state, name):
    done = run("--state", state, "--device", name)
    assert isinstance(done.exception, ConfigError)
    assert not state.exists()


def test_a_missing_configuration_that_was_named_is_a_mistake(tmp_path):
    done = run("-c", tmp_path / "none.yaml")
    assert isinstance(done.exception, ConfigError)


@pytest.mark.parametrize("before", [True, False])
def test_the_answer_is_installed(controller, state, identity, tmp_path, before):
    file = tmp_path / "answer.json"
    file.write_bytes(controller.answer(identity))
    options = ("--state", state, "--device", NAME)
    done = run(*options, "install", file) if before else run("install", file, *options)
    assert done.exit_code == 0, done.output
    assert yaml.safe_load(done.stdout)["mqtt"]["tls"]["cert_file"] == str(state / "tls.pem")
    assert "line-7 is enrolled" in done.stderr
    shown = json.loads(run("install", file, "--state", state, "--json").stdout)
    assert yaml.safe_load(shown["settings"])["device"]["id"] == NAME


@pytest.mark.parametrize("by", ["option", "file"])
def test_the_answer_must_be_for_the_device_that_is_named(controller, state, identity, tmp_path, by):
    file, config = tmp_path / "answer.json", tmp_path / "agent.yaml"
    file.write_bytes(controller.answer(identity))
    config.write_text(
        "device: {id: line-8}\nmqtt: {host: h}\ncameras: {a: {source: 'synthetic://64x64@30'}}\n"
    )
    named = ("--device", "line-8") if by == "option" else ("-c", config)
    done = run("install", file, "--state", state, *named)
    assert "this device is line-8" in str(done.exception)
    assert untouched(state)


@pytest.mark.parametrize("content", [None, b"x" * (MAX_ENROLMENT_BYTES + 1), b"no json"])
def test_a_file_that_is_no_answer_is_told(state, tmp_path, content):
    file = tmp_path / "answer.json"
    if content is not None:
        file.write_bytes(content)
    done = run("install", file, "--state", state)
    assert isinstance(done.exception, AgentError)
