import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from agent.bundle.documents import IDENTITY
from agent.bundle.dsse import sign
from agent.errors import SignatureError
from fleet.database import Device, next_counter
from fleet.enrolling import enroll, revoke
from fleet.errors import FleetError
from fleet.groups import groups
from fleet.roles import Permission
from tests.fakes.fleetfolder import NewDevice, enroll_new


@pytest.fixture
def ann(fleet):
    return fleet.act(Permission.ENROLL)


@pytest.fixture
def line(tmp_path):
    return NewDevice(tmp_path / "line-1", "line-1")


def row(fleet, name="line-1"):
    with fleet.database.reading() as session:
        return session.get(Device, name)


def acl(fleet):
    return (fleet.layout.broker / "acl").read_text()


def revoked_serials(fleet):
    crl = x509.load_pem_x509_crl((fleet.layout.broker / "crl.pem").read_bytes())
    return {f"{entry.serial_number:x}" for entry in crl}


def test_a_device_gets_its_certificate_and_all_it_needs_to_begin(fleet, ann, line):
    answer = enroll(fleet, ann, line.identity, ["hall"]).answer
    certificate = x509.load_pem_x509_certificate(answer.certificate.encode())
    (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert name.value == "line-1"
    assert certificate.public_key() == line.tls.public_key()
    assert (answer.host, answer.port, answer.prefix) == ("localhost", 8883, "vigia/v1")
    assert answer.root.encode() == fleet.repository.anchor()
    assert answer.authority == fleet.authority.certificate


def test_it_is_entered_with_its_keys_and_groups(fleet, ann, line):
    done = enroll(fleet, ann, line.identity, ["hall", "yard"])
    assert done.new_groups == ("hall", "yard")
    found = row(fleet)
    assert found.sign_key == line.keys.sign_public_pem
    assert (found.counter, found.revoked_at, found.key_level) == (0, None, "L0")
    with fleet.database.reading() as session:
        assert groups(session) == {"hall": ["line-1"], "yard": ["line-1"]}
    *_, entry = fleet.audit.entries()
    assert (entry.action, entry.details["device"]) == ("device.enroll", "line-1")
    assert entry.details["fingerprint"] == found.fingerprint


def test_an_enrolled_device_is_not_replaced_unasked(fleet, ann, line, tmp_path):
    enroll(fleet, ann, line.identity)
    impostor = NewDevice(tmp_path / "impostor", "line-1")
    with pytest.raises(FleetError, match="enrolled already"):
        enroll(fleet, ann, impostor.identity)
    assert row(fleet).sign_key == line.keys.sign_public_pem


def test_enrolled_again_the_old_certificate_is_revoked_and_counters_go_on(
    fleet, ann, line, tmp_path
):
    enroll(fleet, ann, line.identity)
    with fleet.database.session() as session:
        next_counter(session, "line-1")
    old = row(fleet)
    renewed = NewDevice(tmp_path / "renewed", "line-1")
    enroll(fleet, ann, renewed.identity, again=True)
    new = row(fleet)
    assert new.sign_key == renewed.keys.sign_public_pem
    assert new.counter == 1
    assert revoked_serials(fleet) == {old.serial}
    assert new.serial != old.serial


def test_a_copied_disk_is_noticed(fleet, ann, line):
    enroll(fleet, ann, line.identity)
    line.name = "line-2"
    twin = line.identity.model_copy(update={"device": "line-2", "csr": line.request()})
    with pytest.raises(FleetError, match="'line-1' is enrolled with the keys of 'line-2'"):
        enroll(fleet, ann, twin)


@pytest.mark.parametrize("name", ["trust", "bundles", "fleet-controller", "viewer-ann"])
def test_a_device_cannot_take_a_name_of_the_controller(fleet, ann, tmp_path, name):
    with pytest.raises(FleetError, match="no device may be called"):
        enroll(fleet, ann, NewDevice(tmp_path / "device", name).identity)
    assert row(fleet, name) is None


def test_a_request_for_another_name_is_refused(fleet, ann, line):
    wrong = line.identity.model_copy(update={"csr": line.request("fleet-controller")})
    with pytest.raises(FleetError, match="is for 'CN=fleet-controller'"):
        enroll(fleet, ann, wrong)


def test_an_identity_signed_by_another_is_refused(line, tmp_path):
    other = NewDevice(tmp_path / "other", "other")
    line.identity_bytes = sign(IDENTITY, line.identity, [other.keys.signer()])
    with pytest.raises(SignatureError):
        _ = line.identity


def test_a_revoked_device_is_out_of_everything(fleet, ann, line):
    enroll(fleet, ann, line.identity, ["hall"])
    serial = row(fleet).serial
    revoke(fleet, ann, "line-1", "stolen")
    assert (row(fleet).revoked_at, row(fleet).revoked_why) == (
        pytest.approx(fleet.now(), abs=60),
        "stolen",
    )
    assert revoked_serials(fleet) == {serial}
    assert "user line-1\ntopic deny #\n" in acl(fleet)
    *_, entry = fleet.audit.entries()
    assert entry.details == {"device": "line-1", "serial": serial, "why": "stolen"}
    with pytest.raises(FleetError, match="revoked already"):
        revoke(fleet, ann, "line-1", "again")


def test_a_revoked_device_comes_back_with_new_keys_only(fleet, ann, line, tmp_path):
    enroll(fleet, ann, line.identity)
    revoke(fleet, ann, "line-1", "stolen")
    with pytest.raises(FleetError, match="revoked with these keys"):
        enroll(fleet, ann, line.identity, again=True)
    enroll(fleet, ann, NewDevice(tmp_path / "renewed", "line-1").identity, again=True)
    assert row(fleet).revoked_at is None
    assert "line-1" not in acl(fleet)
    assert len(revoked_serials(fleet)) == 1


def test_an_unknown_device_cannot_be_revoked(fleet, ann):
    with pytest.raises(FleetError, match="no device 'nobody'"):
        revoke(fleet, ann, "nobody", "")


def test_several_devices_live_side_by_side(fleet, tmp_path):
    for name in ("a", "b"):
        enroll_new(fleet, tmp_path, name, ["hall"])
    with fleet.database.reading() as session:
        assert groups(session) == {"hall": ["a", "b"]}
