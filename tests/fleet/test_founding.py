import subprocess

import pytest
from cryptography import x509

from agent.bundle.trust import Trust
from agent.errors import KeyStoreError, StoreError
from fleet.errors import FleetError
from fleet.founding import ONLINE_KEYS, Plan, found
from fleet.layout import FLEET_FILE, Layout, Settings
from fleet.passphrases import Passphrases
from fleet.roles import Permission
from fleet.signing import add_signature
from fleet.vault import Vault
from tests.fakes.fleetfolder import PASSPHRASE, found_fleet, open_fleet


def files(folder):
    return {str(p.relative_to(folder)): p for p in sorted(folder.rglob("*")) if p.is_file()}


def test_everything_is_there_and_only_for_its_owner(fleet_template):
    found = files(fleet_template)
    wanted = {
        "fleet.json",
        "fleet.db",
        *(f"keys/offline/root-{n}.key" for n in (1, 2, 3)),
        *(f"keys/offline/release-{n}.key" for n in (1, 2)),
        *(f"keys/online/{name}.key" for name in (*ONLINE_KEYS, "authority", "wrapping")),
        "keys/operators/ann.key",
        *(f"broker/{name}" for name in ("mosquitto.conf", "acl", "crl.pem", "ca.pem")),
        *(f"broker/server.{kind}" for kind in ("pem", "key")),
        *(f"controller/controller.{kind}" for kind in ("pem", "key")),
        "repository/metadata/1.root.json",
        "audit/log.jsonl",
    }
    assert wanted <= set(found)
    assert {p.stat().st_mode & 0o777 for p in found.values()} == {0o600}
    folders = [p for p in fleet_template.rglob("*") if p.is_dir()]
    assert {p.stat().st_mode & 0o777 for p in [fleet_template, *folders]} == {0o700}


def test_no_private_key_but_those_of_tls_lies_there_unencrypted(fleet_template):
    plain = {
        name
        for name, path in files(fleet_template).items()
        if b"PRIVATE KEY" in path.read_bytes() or PASSPHRASE.encode() in path.read_bytes()
    }
    assert plain == {"broker/server.key", "controller/controller.key"}


def test_a_device_trusts_the_first_metadata(fleet):
    class Store:
        def load(self):
            return {}

        def save(self, files):
            self.files = files

        def time_floor(self):
            return 0.0

        def raise_time_floor(self, _t):
            pass

    trust = Trust(fleet.repository.anchor(), Store(), fleet.now)
    trust.refresh(fleet.repository.message())
    (director,) = fleet.directors()
    keys, threshold = trust.director_keys()
    assert [key.keyid for key in keys] == [director.public_key.keyid]
    assert threshold == 1
    ann = fleet.act(Permission.ASSIGN)
    assert [key.keyid for key in trust.operator_keys()[0]] == [ann.signer.public_key.keyid]


def test_thresholds_are_as_wanted_and_all_keys_are_different(fleet):
    root = fleet.repository.published().root
    assert (len(root.roles["root"].keyids), root.roles["root"].threshold) == (3, 2)
    assert (len(root.roles["targets"].keyids), root.roles["targets"].threshold) == (2, 2)
    every = [fleet.keys.offline, fleet.keys.vault, fleet.keys.operators]
    ids = [vault.public_key(name).keyid for vault in every for name in vault.names()]
    assert len(set(ids)) == len(ids) == 5 + 6 + 1


def test_a_key_taken_away_is_missed_only_when_it_must_sign(fleet):
    away = fleet.layout.offline_keys / "root-3.key"
    away.unlink()
    assert not fleet.publish_metadata()
    (request,) = fleet.repository.rotate_root()
    with pytest.raises(KeyStoreError, match="missing"):
        fleet.keys.offline.signer("root-3", PASSPHRASE)
    for name in ("root-1", "root-2"):
        fleet.repository.attach(add_signature(request, fleet.keys.offline.signer(name, PASSPHRASE)))
    assert fleet.repository.complete() == ["root"]


def test_the_audit_log_begins_with_the_fleet_and_verifies(fleet):
    keys, audit_key = fleet.audit_keys()
    assert fleet.audit.verify(keys, audit_key).count == 1
    (entry,) = fleet.audit.entries()
    assert (entry.operator, entry.action) == ("ann", "fleet.init")
    assert entry.details["root"] == "2 of 3"


def test_the_certificates_are_the_authoritys_and_name_the_broker(fleet):
    layout = fleet.layout
    for certificate in (layout.broker / "server.pem", layout.controller / "controller.pem"):
        purpose = "sslserver" if "server" in certificate.name else "sslclient"
        lists = ("-CAfile", layout.broker / "ca.pem", "-CRLfile", layout.broker / "crl.pem")
        checks = ("-x509_strict", "-crl_check", "-purpose", purpose)
        command = ["openssl", "verify", *checks, *lists, certificate]
        subprocess.run(command, check=True, capture_output=True)
    server = x509.load_pem_x509_certificate((layout.broker / "server.pem").read_bytes())
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]


def test_a_wrong_passphrase_opens_nothing(fleet_folder):
    with open_fleet(fleet_folder, words="another passphrase") as fleet:
        with pytest.raises(KeyStoreError, match="does not open"):
            fleet.act(Permission.ASSIGN)
        with pytest.raises(KeyStoreError, match="does not open"):
            fleet.directors()


def test_another_key_under_an_operators_name_is_refused(fleet):
    path = fleet.layout.operator_keys / "ann.key"
    path.unlink()
    fleet.keys.operators.create_key("ann", PASSPHRASE)
    with pytest.raises(FleetError, match="not the one that ann was entered with"):
        fleet.act(Permission.ASSIGN)


def test_secrets_are_wrapped_without_and_opened_with_the_passphrase(fleet_folder):
    with open_fleet(fleet_folder, words="another passphrase") as fleet:
        wrapped = fleet.vault.wrap_secret(b"data key")
    with open_fleet(fleet_folder) as fleet:
        assert fleet.keys.unwrap(wrapped) == b"data key"


@pytest.mark.parametrize(
    ("changes", "error", "fault"),
    [
        ({"root_threshold": 4}, FleetError, "--root-threshold 4 of --root-keys 3 cannot be"),
        ({"release_threshold": 0}, FleetError, "--release-threshold 0"),
        ({"broker_names": ("two words",)}, FleetError, "no host name"),
        ({"operator": "controller"}, FleetError, "cannot be called"),
        ({"database": "nosuchdb:///x"}, StoreError, "cannot be used"),
    ],
)
def test_what_cannot_be_leaves_nothing_behind(tmp_path, fleet_template, changes, error, fault):
    with pytest.raises(error, match=fault):
        found_fleet(tmp_path / "fleet", **changes)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "fleet").mkdir()
    (tmp_path / "fleet" / "mine").write_text("x")
    with pytest.raises(FleetError, match="is there already"):
        found_fleet(tmp_path / "fleet")
    assert files(tmp_path) == {"fleet/mine": tmp_path / "fleet" / "mine"}


def test_a_folder_that_is_no_fleet_is_told(tmp_path):
    with pytest.raises(FleetError, match="is no fleet folder"):
        open_fleet(tmp_path)
    (tmp_path / FLEET_FILE).write_text("{}")
    with pytest.raises(FleetError, match=r"fleet\.json"):
        open_fleet(tmp_path)


def test_a_folder_that_was_moved_finds_its_database(fleet_folder, tmp_path):
    moved = fleet_folder.rename(tmp_path / "elsewhere")
    with open_fleet(moved) as fleet:
        assert fleet.act(Permission.ASSIGN).name == "ann"


def test_a_database_elsewhere_is_used_as_it_is(tmp_path):
    url = "postgresql+psycopg://fleet@db/fleet"
    settings = Settings(name="x", prefix="v", broker_host="b", broker_names=("b",), database=url)
    assert Layout(tmp_path).database_url(settings) == url


def test_each_kind_of_key_has_a_passphrase_of_its_own(tmp_path):
    asked = []

    def ask(text):
        asked.append(text)
        return f"secret of {asked[-2 if text == 'Once more: ' else -1]}"

    settings = Settings(name="x", prefix="v", broker_host="h", broker_names=("h",))
    plan = Plan(settings, 1, 1, 1, 1, "eve")
    found(tmp_path / "new", plan, Passphrases(environ={}, ask=ask), lambda _: None)
    own, again, online, _, offline, _ = asked
    assert (own, again) == ("New passphrase for eve's own key: ", "Once more: ")
    layout = Layout(tmp_path / "new")
    for folder, name, question in (
        (layout.operator_keys, "eve", own),
        (layout.online_keys, "director", online),
        (layout.offline_keys, "root-1", offline),
    ):
        Vault(folder).signer(name, f"secret of {question}")
