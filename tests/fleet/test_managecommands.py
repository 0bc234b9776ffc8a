"""The commands that make and manage a fleet, as people and scripts use them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agent.cli import app
from agent.config import KeyConfig
from agent.enrol import identify, install
from agent.errors import BundleError, KeyStoreError
from fleet.errors import AuditError, FleetError, NotPermittedError
from tests.fakes.fleetfolder import PASSPHRASE, NewDevice, open_fleet

ROOT = Path(__file__).parents[2]


def fleet_command(*arguments, answers=None):
    """Run `vigia fleet`; errors of ours come out as they are."""
    done = CliRunner().invoke(app, ["fleet", *map(str, arguments)], input=answers)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def told(*arguments, answers=None):
    """What a command says with --json."""
    done = fleet_command(*arguments, "--json", answers=answers)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture
def identity(tmp_path):
    return NewDevice(tmp_path / "line-1", "line-1").identity_file()


@pytest.fixture
def enrolled(fleet_folder, identity):
    told("enroll", fleet_folder, identity, "--yes", "--group", "hall")
    return fleet_folder


def test_init_makes_a_fleet_and_says_what_comes_next(tmp_path, fleet_folder):
    options = ("--broker-host", "broker.example", "--host", "10.0.0.1", "--operator", "eve")
    shown = told("init", tmp_path / "line", *options, "--root-keys", 1, "--root-threshold", 1)
    assert shown["operator"] == "eve"
    assert shown["offline_keys"] == ["release-1.key", "release-2.key", "root-1.key"]
    assert Path(shown["broker"]).is_file()
    with open_fleet(tmp_path / "line") as fleet:
        assert fleet.settings.broker_names == ("broker.example", "10.0.0.1")


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--prefix", "a//b"], "prefix"),
        (["--prefix", "a/#"], "prefix"),
        (["--name", "two words"], "name"),
        (["--root-threshold", "9"], "--root-threshold 9 of --root-keys 3"),
    ],
)
def test_init_names_what_cannot_be(tmp_path, fleet_folder, options, fault):
    with pytest.raises(FleetError, match=fault):
        fleet_command("init", tmp_path / "new", "--broker-host", "h", *options)
    assert not (tmp_path / "new").exists()


def test_a_device_goes_all_the_way_with_both_sides_own_commands(fleet_folder, tmp_path):
    state = tmp_path / "state"
    data = identify(KeyConfig(), state, "line-7", "orin-nano")
    file = tmp_path / "line-7.identity.json"
    file.write_bytes(data)
    shown = told("enroll", fleet_folder, file, "--group", "hall", "--yes")
    assert shown["groups"] == ["hall"]
    assert shown["out"] == str(tmp_path / "line-7.enrolment.json")
    answer = install((tmp_path / "line-7.enrolment.json").read_bytes(), state, "line-7")
    assert answer.device == "line-7"
    assert (state / "root.json").is_file()


def test_enroll_shows_the_fingerprint_and_does_nothing_if_it_is_another(fleet_folder, identity):
    done = fleet_command("enroll", fleet_folder, identity, answers="n\n")
    assert done.exit_code == 1
    assert "fingerprint " in done.stderr
    assert not identity.with_name("line-1.enrolment.json").exists()
    assert told("group", "list", fleet_folder) == {}
    assert fleet_command("enroll", fleet_folder, identity, answers="y\n").exit_code == 0


def test_an_altered_identity_is_refused(fleet_folder, identity):
    envelope = json.loads(identity.read_bytes())
    envelope["payload"] = envelope["payload"][:-8] + "AAAAAAAA"
    identity.write_text(json.dumps(envelope))
    with pytest.raises(BundleError):
        fleet_command("enroll", fleet_folder, identity, "--yes")


def test_a_file_that_is_no_identity_is_refused(fleet_folder, tmp_path):
    for content in (b"", b"garbage", b"{" * 100_000, b"x" * 200_000):
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises((FleetError, BundleError)):
            fleet_command("enroll", fleet_folder, tmp_path / "bad", "--yes")
    with pytest.raises(FleetError, match="cannot be read"):
        fleet_command("enroll", fleet_folder, tmp_path / "none", "--yes")


def test_groups_change_and_are_shown(enrolled):
    assert told("group", "create", enrolled, "yard", "line-1")["devices"] == ["line-1"]
    assert told("group", "take", enrolled, "yard", "line-1")["devices"] == []
    assert told("group", "add", enrolled, "yard", "line-1")["devices"] == ["line-1"]
    assert told("group", "list", enrolled) == {"hall": ["line-1"], "yard": ["line-1"]}
    told("group", "remove", enrolled, "yard")
    assert fleet_command("group", "list", enrolled).output == "hall: line-1\n"


def test_revoke_asks_first(enrolled):
    assert fleet_command("revoke", enrolled, "line-1", answers="n\n").exit_code == 1
    shown = told("revoke", enrolled, "line-1", "--why", "stolen", "--yes")
    assert shown["revoked"] == "line-1"
    assert "user line-1" in (enrolled / "broker" / "acl").read_text()


def test_operators_come_and_go_within_their_roles(enrolled, tmp_path):
    shown = told("operator", "add", enrolled, "bob", "--role", "operator")
    assert shown["requests"] == [str(enrolled / "repository" / "pending" / "targets.json")]
    with pytest.raises(FleetError, match="Say --as NAME"):
        fleet_command("group", "create", enrolled, "yard")
    told("group", "create", enrolled, "yard", "--as", "bob")
    for refused in (
        ("enroll", enrolled, tmp_path / "line-1" / "line-1.json", "--again", "--yes"),
        ("operator", "remove", enrolled, "ann", "--yes"),
        ("operator", "add", enrolled, "eve", "--role", "admin"),
        ("operator", "approvals", enrolled, "1"),
        ("rotate-keys", enrolled, "director"),
        ("renew", enrolled),
    ):
        with pytest.raises(NotPermittedError, match="bob is an operator and may not"):
            fleet_command(*refused, "--as", "bob")
    told("operator", "remove", enrolled, "bob", "--yes", "--as", "ann")
    rows = told("operator", "list", enrolled)["operators"]
    assert {row["name"]: row["removed_at"] is None for row in rows} == {"ann": True, "bob": False}


def test_a_viewer_gets_files_to_take_away(fleet_folder, tmp_path):
    shown = told(
        "operator", "add", fleet_folder, "vic", "--role", "viewer", "--out", tmp_path / "vic"
    )
    assert [Path(file).name for file in shown["files"]] == ["viewer.pem", "viewer.key", "ca.pem"]
    assert (tmp_path / "vic").stat().st_mode & 0o777 == 0o700
    assert shown["requests"] == []


def test_an_operators_key_can_be_made_on_a_machine_of_their_own(fleet_folder, tmp_path):
    made = told("make-key", tmp_path / "keys", "bob")
    shown = told(
        "operator", "add", fleet_folder, "bob", "--role", "releaser", "--public-key", made["public"]
    )
    assert shown["key_id"] == made["key_id"]
    assert not (fleet_folder / "keys" / "operators" / "bob.key").exists()


def test_a_passphrase_is_changed_and_the_fleet_opens_with_the_new_one(fleet_folder, tmp_path):
    files = sorted((fleet_folder / "keys" / "online").glob("*.key"))
    new = tmp_path / "new"
    new.write_text("five quite different words")
    new.chmod(0o600)
    shown = told("passphrase", *files, "--new-passphrase-file", new)
    assert shown["changed"] == [str(path) for path in files]
    assert told("passphrase", *files, "--new-passphrase-file", new)["changed"] == []
    with pytest.raises(KeyStoreError, match="does not open"):
        told("group", "create", fleet_folder, "hall")
    own = fleet_folder / "keys" / "operators" / "ann.key"
    told("passphrase", own, "--new-passphrase-file", new)
    told("group", "create", fleet_folder, "hall", "--passphrase-file", new)


def test_a_device_is_enrolled_again_after_a_root_key_was_replaced(fleet_folder, tmp_path):
    state, shown = tmp_path / "state", tmp_path / "identity.json"
    shown.write_bytes(identify(KeyConfig(), state, "line-2", "test"))
    answer = told("enroll", fleet_folder, shown, "--yes")["out"]
    install(Path(answer).read_bytes(), state)
    for old, keys in (("root-1", "234"), ("root-2", "345")):
        told("rotate-keys", fleet_folder, "root", "--replace", old)
        signing = [word for number in keys for word in ("--key", f"root-{number}")]
        assert told("sign", fleet_folder, *signing, "--yes")["complete"]
        with open_fleet(fleet_folder) as fleet:
            fleet.publish_metadata()
    answer = told("enroll", fleet_folder, shown, "--yes", "--again")["out"]
    assert json.loads(install(Path(answer).read_bytes(), state).root)["signed"]["version"] == 3


def test_who_leaves_names_the_keys_to_replace(fleet_folder):
    told("operator", "add", fleet_folder, "bob", "--role", "releaser", "--holds", "release-2")
    done = fleet_command("operator", "remove", fleet_folder, "bob", "--yes", "--as", "ann")
    assert "rotate-keys" in done.output
    assert "release --replace release-2" in done.output


def test_keys_rotate_and_say_what_is_to_be_signed(fleet_folder):
    for what in ("director", "online", "server", "controller"):
        assert told("rotate-keys", fleet_folder, what)["made"]
    shown = told("rotate-keys", fleet_folder, "release", "--replace", "release-1")
    assert shown["made"] == ["release-3"]
    assert len(shown["requests"]) == 2
    done = fleet_command("renew", fleet_folder)
    assert f"vigia fleet sign {fleet_folder}" in done.output


@pytest.mark.parametrize(
    "arguments", [("release",), ("director", "--replace", "x"), ("server", "--new-key", "f")]
)
def test_options_that_do_not_belong_together_are_a_mistake(fleet_folder, arguments):
    assert fleet_command("rotate-keys", fleet_folder, *arguments).exit_code == 2


def test_the_audit_log_is_shown_and_proven(enrolled):
    shown = told("audit", "show", enrolled, "--last", 1)
    assert [entry["action"] for entry in shown["entries"]] == ["device.enroll"]
    assert told("audit", "verify", enrolled) == {"ok": True, "count": 2, "head": shown["head"]}
    told("group", "create", enrolled, "yard")
    assert told("audit", "verify", enrolled, "--noted", shown["head"])["count"] == 3
    log = enrolled / "audit" / "log.jsonl"
    log.write_bytes(log.read_bytes().replace(b"line-1", b"line-2"))
    with pytest.raises(AuditError, match="audit entry 2"):
        fleet_command("audit", "verify", enrolled)


@pytest.mark.parametrize("noted", ["x", "1", "1:", ":abc", "-1:abc"])
def test_a_head_that_is_none_is_a_mistake(fleet_folder, noted):
    assert fleet_command("audit", "verify", fleet_folder, "--noted", noted).exit_code == 2


def vigia(*arguments, **environ):
    return subprocess.run(
        [sys.executable, "-m", "agent", "fleet", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=50,
        cwd=ROOT,
        env={**{k: v for k, v in os.environ.items() if not k.startswith("VIGIA")}, **environ},
        stdin=subprocess.DEVNULL,
        check=False,
    )


def test_mistakes_and_missing_passphrases_are_one_line_and_exit_code_2(fleet_folder):
    done = vigia("group", "create", fleet_folder, "yard")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: passphrase of ann's own key: there is no terminal")
    assert done.stderr.count("\n") == 1
    wrong = vigia("group", "create", fleet_folder, "yard", VIGIA_FLEET_PASSPHRASE="wrong wrong")
    assert wrong.returncode == 2
    assert "does not open" in wrong.stderr
    assert "wrong wrong" not in wrong.stderr


def test_a_passphrase_file_works_and_must_be_private(fleet_folder, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text(PASSPHRASE + "\n")
    secret.chmod(0o600)
    options = ("--passphrase-file", secret, "--json")
    done = vigia("group", "create", fleet_folder, "yard", *options)
    assert json.loads(done.stdout) == {"group": "yard", "devices": []}
    secret.chmod(0o644)
    assert (
        "can be read by others" in vigia("group", "remove", fleet_folder, "yard", *options).stderr
    )
