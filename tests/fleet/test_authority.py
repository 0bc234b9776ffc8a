"""Certificates as the broker and its clients see them, with real handshakes of OpenSSL's."""

import datetime as dt
import ssl
import stat
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

import fleet.vault
from agent.errors import KeyStoreError
from fleet.authority import AUTHORITY_DAYS, DEVICE_DAYS, SERVER_DAYS, Authority
from fleet.errors import FleetError
from fleet.vault import Vault
from tests.fakes.certificaterequest import builder, common_name, new_key, pem, request

WORDS = "correct horse battery"
HOSTS = ("broker.example", "localhost", "127.0.0.1", "::1")
DAY_S = 86_400.0


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(fleet.vault, "derive", lambda words, salt: (words.encode() + salt)[:32])


@pytest.fixture
def make(tmp_path):
    """Makes authorities with keys of their own."""

    def make_one(name="demo", now=time.time):
        authority = Authority(tmp_path / name / "authority", Vault(tmp_path / name / "keys"), now)
        authority.create(name, WORDS)
        return authority

    return make_one


@pytest.fixture
def authority(make):
    return make()


def parsed(text):
    return x509.load_pem_x509_certificate(text.encode())


def extension(certificate, kind):
    return certificate.extensions.get_extension_for_class(kind)


def lifetime(certificate):
    return (certificate.not_valid_after_utc - certificate.not_valid_before_utc).days


class Place:
    """Writes certificates to files, since OpenSSL reads nothing else."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir(exist_ok=True)

    def file(self, name, content):
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def chain(self, context, certificate, key):
        context.load_cert_chain(self.file("cert.pem", certificate.pem), self.file("cert.key", key))


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path / "files")


def server_context(place, authority, crl=None):
    """As Mosquitto sets one up: clients must show a certificate, and none that is revoked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pair = authority.server(HOSTS, WORDS)
    place.chain(context, pair.certificate, pair.key)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(place.file("ca.pem", authority.certificate))
    if crl is not None:
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        context.load_verify_locations(place.file("crl.pem", crl))
    return context


def client_context(place, trusted, certificate=None, key=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # What newer Pythons do by default: RFC 5280 to the letter.
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_verify_locations(place.file("trusted.pem", trusted.certificate))
    if certificate is not None:
        place.chain(context, certificate, key)
    return context


def shake(server, client, host="broker.example"):
    """A whole handshake in memory; gives the client's common name, as the server sees it."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(down, up, server_hostname=host),
        server.wrap_bio(up, down, server_side=True),
    ]
    waiting = list(sides)
    for _ in range(10):
        for side in list(waiting):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(side)
    # Under TLS 1.3 a client learns only by reading that it was refused.
    sides[1].write(b"welcome")
    assert sides[0].read(7) == b"welcome"
    (((_, name),),) = sides[1].getpeercert()["subject"]
    return name


def device_pair(authority, name="line-7", key=None):
    key = key or new_key()
    certificate = authority.device(name, request(name, key), WORDS)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return certificate, private


@pytest.mark.parametrize("host", HOSTS)
def test_devices_and_broker_take_each_other(place, authority, host):
    server = server_context(place, authority, authority.revocations({}, WORDS))
    client = client_context(place, authority, *device_pair(authority))
    assert shake(server, client, host) == "line-7"


def test_controller_and_viewers_are_who_their_certificates_say(place, authority):
    server = server_context(place, authority, authority.revocations({}, WORDS))
    for pair, name in (
        (authority.controller(WORDS), "fleet-controller"),
        (authority.viewer("ann", WORDS), "viewer-ann"),
    ):
        client = client_context(place, authority, pair.certificate, pair.key)
        assert shake(server, client) == name


def test_a_broker_of_another_name_is_refused(place, authority):
    client = client_context(place, authority, *device_pair(authority))
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake(server_context(place, authority), client, "other.example")


def test_strangers_are_refused_on_both_sides(place, authority, make):
    other = make("other")
    server = server_context(place, authority)
    of_another_fleet = client_context(place, other, *device_pair(authority))
    with pytest.raises(ssl.SSLCertVerificationError, match=r"local issuer|self-signed"):
        shake(server, of_another_fleet)
    stranger = client_context(place, authority, *device_pair(other))
    with pytest.raises(ssl.SSLCertVerificationError, match=r"local issuer|self-signed"):
        shake(server, stranger)


def test_a_client_without_a_certificate_is_refused(place, authority):
    with pytest.raises(ssl.SSLError, match="did not return a certificate"):
        shake(server_context(place, authority), client_context(place, authority))


def test_a_device_cannot_pass_for_the_broker(place, authority):
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    place.chain(server, *device_pair(authority, "broker"))
    client = client_context(place, authority)
    client.check_hostname = False
    with pytest.raises(ssl.SSLError, match="unsuitable certificate purpose"):
        shake(server, client)


def test_the_broker_cannot_pass_for_a_client(place, authority):
    pair = authority.server(HOSTS, WORDS)
    client = client_context(place, authority, pair.certificate, pair.key)
    with pytest.raises(ssl.SSLError, match="unsuitable certificate purpose"):
        shake(server_context(place, authority), client)


def test_a_device_cannot_issue_certificates(place, authority):
    key = new_key()
    device = parsed(device_pair(authority, key=key)[0].pem)
    forged = (
        x509.CertificateBuilder()
        .subject_name(common_name("fleet-controller"))
        .issuer_name(device.subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(device.not_valid_before_utc)
        .not_valid_after(device.not_valid_after_utc)
        .sign(key, hashes.SHA256())
    )
    client = client_context(place, authority)
    chain = (forged, device)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    text = b"".join(c.public_bytes(serialization.Encoding.PEM) for c in chain)
    client.load_cert_chain(place.file("chain.pem", text), place.file("chain.key", private))
    with pytest.raises(ssl.SSLError, match="invalid CA certificate"):
        shake(server_context(place, authority), client)


def test_a_revoked_device_is_refused_and_others_are_not(place, authority):
    stolen, stolen_key = device_pair(authority)
    kept, kept_key = device_pair(authority, "line-8")
    crl = authority.revocations({stolen.serial: int(time.time())}, WORDS)
    assert (
        shake(
            server_context(place, authority, crl), client_context(place, authority, kept, kept_key)
        )
        == "line-8"
    )
    client = client_context(place, authority, stolen, stolen_key)
    with pytest.raises(ssl.SSLError, match="certificate revoked"):
        shake(server_context(place, authority, crl), client)


def test_the_list_of_revocations_is_signed_numbered_and_outlives_every_certificate(make):
    clock = [1_800_000_000.0]
    authority = make(now=lambda: clock[0])
    first = x509.load_pem_x509_crl(authority.revocations({}, WORDS).encode())
    clock[0] += 1
    text = authority.revocations({"ff": 1_700_000_000, "0a": 1_750_000_000}, WORDS)
    second = x509.load_pem_x509_crl(text.encode())
    issuer = parsed(authority.certificate)
    assert second.is_signature_valid(issuer.public_key())
    assert second.next_update_utc == issuer.not_valid_after_utc
    assert second.last_update_utc < dt.datetime.fromtimestamp(clock[0], dt.timezone.utc)
    assert {entry.serial_number for entry in second} == {0xFF, 0x0A}
    assert (
        extension(second, x509.CRLNumber).value.crl_number
        > extension(first, x509.CRLNumber).value.crl_number
    )


@pytest.mark.parametrize("serial", ["", "xyz", "-1", "0", "f" * 60])
def test_what_is_no_serial_number_is_told(authority, serial):
    with pytest.raises(FleetError, match="serial number"):
        authority.revocations({serial: 1}, WORDS)


def test_each_certificate_can_do_one_thing(authority):
    issuer = parsed(authority.certificate)
    assert extension(issuer, x509.BasicConstraints).value == x509.BasicConstraints(True, 0)
    usage = extension(issuer, x509.KeyUsage).value
    assert (usage.key_cert_sign, usage.crl_sign, usage.digital_signature) == (True, True, False)
    for pem_text, purpose in (
        (authority.server(HOSTS, WORDS).certificate.pem, ExtendedKeyUsageOID.SERVER_AUTH),
        (authority.controller(WORDS).certificate.pem, ExtendedKeyUsageOID.CLIENT_AUTH),
        (device_pair(authority)[0].pem, ExtendedKeyUsageOID.CLIENT_AUTH),
    ):
        certificate = parsed(pem_text)
        certificate.verify_directly_issued_by(issuer)
        usage = extension(certificate, x509.KeyUsage)
        assert usage.critical
        assert (usage.value.digital_signature, usage.value.key_cert_sign) == (True, False)
        assert list(extension(certificate, x509.ExtendedKeyUsage).value) == [purpose]
        assert not extension(certificate, x509.BasicConstraints).value.ca
        assert isinstance(certificate.public_key().curve, ec.SECP256R1)


def test_serial_numbers_are_told_as_they_stand_in_the_certificate(authority):
    certificate, _ = device_pair(authority)
    assert int(certificate.serial, 16) == parsed(certificate.pem).serial_number


def test_how_long_certificates_live(make):
    clock = [1_800_000_000.0]
    authority = make(now=lambda: clock[0])
    issuer = parsed(authority.certificate)
    assert lifetime(issuer) == AUTHORITY_DAYS + 1
    assert lifetime(parsed(authority.server(HOSTS, WORDS).certificate.pem)) == SERVER_DAYS + 1
    assert lifetime(parsed(device_pair(authority)[0].pem)) == DEVICE_DAYS + 1
    # None outlives the authority.
    clock[0] += (AUTHORITY_DAYS - 100) * DAY_S
    assert parsed(device_pair(authority)[0].pem).not_valid_after_utc == issuer.not_valid_after_utc
    clock[0] += 200 * DAY_S
    with pytest.raises(FleetError, match="has ended"):
        authority.server(HOSTS, WORDS)


@pytest.mark.parametrize(
    "names", [("line-8",), ("fleet-controller",), ("line-7", "fleet-controller"), ("LINE-7",), ()]
)
def test_a_request_for_another_name_is_refused(authority, names):
    text = pem(builder(common_name(*names)), new_key())
    with pytest.raises(FleetError, match="the certificate request is for"):
        authority.device("line-7", text, WORDS)


def test_a_request_with_more_than_the_name_is_refused(authority):
    subject = x509.Name(
        [*common_name("line-7"), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "admins")]
    )
    with pytest.raises(FleetError, match="the certificate request is for"):
        authority.device("line-7", pem(builder(subject), new_key()), WORDS)


def test_what_a_request_asks_for_beyond_its_key_is_not_given(authority):
    greedy = (
        builder(common_name("line-7"))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("broker.example")]), False)
    )
    certificate = parsed(authority.device("line-7", pem(greedy, new_key()), WORDS).pem)
    assert not extension(certificate, x509.BasicConstraints).value.ca
    with pytest.raises(x509.ExtensionNotFound):
        extension(certificate, x509.SubjectAlternativeName)


def test_who_does_not_hold_the_key_gets_no_certificate(authority):
    """The signature of a request for one key, put under the request for another."""
    mine, theirs = (x509.load_pem_x509_csr(request("line-7", new_key()).encode()) for _ in range(2))
    der = theirs.public_bytes(serialization.Encoding.DER)
    forged = None
    for _ in range(50):
        mine = x509.load_pem_x509_csr(request("line-7", new_key()).encode())
        if len(mine.signature) == len(theirs.signature):
            forged = der.replace(theirs.signature, mine.signature)
            break
    assert forged is not None
    assert forged != der
    text = x509.load_der_x509_csr(forged).public_bytes(serialization.Encoding.PEM).decode()
    with pytest.raises(FleetError, match="does not hold the key"):
        authority.device("line-7", text, WORDS)


@pytest.mark.parametrize(
    "key", [new_key(ec.SECP384R1()), rsa.generate_private_key(65_537, 2048)], ids=["p384", "rsa"]
)
def test_keys_of_other_kinds_are_refused(authority, key):
    with pytest.raises(FleetError, match="not of P-256"):
        authority.device("line-7", request("line-7", key), WORDS)


@pytest.mark.parametrize("name", ["fleet-controller", "viewer-ann", "trust", "bundles"])
def test_no_device_gets_a_name_that_is_the_controllers(authority, name):
    with pytest.raises(FleetError, match="no device may be called"):
        authority.device(name, request(name), WORDS)


@given(text=st.text(max_size=200))
def test_garbage_for_a_request_is_one_kind_of_error(text):
    with pytest.raises(FleetError, match="damaged"):
        Authority(None, None).device("line-7", text, WORDS)


def test_a_huge_request_is_one_kind_of_error(authority):
    with pytest.raises(FleetError, match="damaged"):
        authority.device("line-7", "x" * 10**7, WORDS)
    with pytest.raises(FleetError, match="damaged"):
        authority.device("line-7", "\n" * 10**4 + request("line-7"), WORDS)


@pytest.mark.parametrize(
    "hosts", [(), ("",), ("a b",), ("http://x",), ("*.example",), ("bröker",), ("x" * 64,)]
)
def test_hosts_that_cannot_be_are_refused(authority, hosts):
    with pytest.raises(FleetError, match="host"):
        authority.server(hosts, WORDS)


def test_a_long_host_name_has_room(place, authority):
    host = ".".join(["x" * 60] * 4)
    certificate = parsed(authority.server([host], WORDS).certificate.pem)
    names = extension(certificate, x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [host]


def test_a_viewers_name_that_is_too_long_is_told(authority):
    with pytest.raises(FleetError, match="cannot stand in a certificate"):
        authority.viewer("x" * 64, WORDS)


def test_nothing_is_issued_without_the_passphrase(authority):
    for issue in (
        lambda words: authority.server(HOSTS, words),
        authority.controller,
        lambda words: authority.device("line-7", request("line-7"), words),
        lambda words: authority.revocations({}, words),
    ):
        with pytest.raises(KeyStoreError, match="does not open") as caught:
            issue("wrong words")
        assert "wrong words" not in str(caught.value)


def test_there_is_one_authority_in_a_fleet(authority, tmp_path):
    with pytest.raises(KeyStoreError, match="already"):
        authority.create("demo", WORDS)
    folder = tmp_path / "demo" / "authority"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "ca.pem").stat().st_mode) == 0o600


@pytest.mark.parametrize("content", [None, b"", b"no certificate", b"x" * 10**5])
def test_a_lost_certificate_of_the_authority_is_told(authority, tmp_path, content):
    path = tmp_path / "demo" / "authority" / "ca.pem"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FleetError, match="authority's certificate"):
        authority.server(HOSTS, WORDS)
