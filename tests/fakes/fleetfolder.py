"""A real fleet folder for tests, made once, and devices that enrol in it.

    template = found_fleet(tmp_path / "fleet")          # about two seconds
    with open_fleet(copy_fleet(template, place)) as fleet: ...

All keys have the passphrase `PASSPHRASE`. The derivation of keys from it is real but remembered
over the whole run (`remembered_derivations`), since each takes a third of a second, on purpose.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
import time
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import fleet.vault
from agent.bundle.filekeys import make_keys
from agent.bundle.identity import make_identity, read_identity
from fleet.brokerfolder import BrokerFolder
from fleet.enrolling import enroll
from fleet.fleetfolder import Fleet
from fleet.founding import Plan, found
from fleet.layout import Layout, Settings, settings_text
from fleet.passphrases import VARIABLE, Passphrases
from fleet.roles import Permission

PASSPHRASE = "correct horse battery"
OPERATOR = "ann"
PREFIX = "vigia/v1"


def passphrases(words=PASSPHRASE):
    """As from the environment."""
    return Passphrases(environ={VARIABLE: words})


@contextlib.contextmanager
def remembered_derivations():
    """Derive the key of a passphrase and salt once, however many vaults are opened."""
    real = fleet.vault.derive
    fleet.vault.derive = functools.lru_cache(maxsize=1000)(real)
    try:
        yield
    finally:
        fleet.vault.derive = real


def found_fleet(folder, now=time.time, **changes):
    """Make a fleet folder; changes are of `Plan` and `Settings`."""
    settings = {
        "name": "test",
        "prefix": PREFIX,
        "broker_host": "localhost",
        "broker_names": ("localhost", "127.0.0.1"),
    }
    plan = {
        "root_keys": 3,
        "root_threshold": 2,
        "release_keys": 2,
        "release_threshold": 2,
        "operator": OPERATOR,
    }
    for key, value in changes.items():
        (plan if key in plan else settings)[key] = value
    found(folder, Plan(Settings(**settings), **plan), passphrases(), lambda _: None, now)
    return folder


def copy_fleet(template, folder, port=None):
    """A fleet folder of the test's own; its broker files name the new place, and `port`."""
    shutil.copytree(template, folder)
    layout = Layout(folder)
    settings = layout.read_settings()
    if port is not None:
        settings = settings.model_copy(update={"broker_port": port})
        layout.settings.write_bytes(settings_text(settings))
    BrokerFolder(layout, settings).write_config(layout.broker.resolve())
    return folder


def open_fleet(folder, now=time.time, words=PASSPHRASE):
    """A fleet folder, open."""
    return Fleet(Path(folder), passphrases(words), now)


class NewDevice:
    """A device's own side: keys in `folder`, and what it shows to be enrolled."""

    def __init__(self, folder, name, hw_class="test"):
        folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.folder = folder
        self.keys = make_keys(folder, "p256")
        self.tls = ec.generate_private_key(ec.SECP256R1())
        self.identity_bytes = make_identity(name, self.keys, self.request(), hw_class)

    @property
    def identity(self):
        """As the controller reads it."""
        return read_identity(self.identity_bytes)

    def request(self, name=None):
        """The certificate request of the TLS key."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name or self.name)])
        request = x509.CertificateSigningRequestBuilder().subject_name(subject)
        signed = request.sign(self.tls, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM).decode()

    def identity_file(self):
        """The identity as a file that could be carried to the controller."""
        path = self.folder / f"{self.name}.json"
        path.write_bytes(self.identity_bytes)
        return path

    def tls_files(self, answer):
        """Certificate, key and authority as files for a client, from an enrolment's answer."""
        files = {
            "cert_file": answer.certificate.encode(),
            "key_file": self.tls.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
            "ca_file": answer.authority.encode(),
        }
        paths = {name: self.folder / f"{name}.pem" for name in files}
        for name, path in paths.items():
            path.write_bytes(files[name])
        return paths


def enroll_new(opened, folder, name, groups=()):
    """Make a device and enrol it; gives the device and its answer."""
    device = NewDevice(folder / name, name)
    actor = opened.act(Permission.ENROLL, OPERATOR)
    return device, enroll(opened, actor, device.identity, groups).answer
