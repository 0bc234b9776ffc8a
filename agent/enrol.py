"""How a device becomes one of a fleet: its keys, what it shows, and what it gets back.

1. `identify` makes the keys that are missing and says who the device is; a person compares the
   fingerprint with what the controller shows.
2. `install` takes the controller's answer. It is what all trust in updates rests on later, so it
   must come from the controller by a way that the person trusts.

In the state folder then lie, beside the keys (`agent.bundle.filekeys`):

    root.json    first root of trust
    ca.pem       certificate authority of the broker
    tls.pem      this device's certificate
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from agent.bundle import trustset
from agent.bundle.documents import MAX_ENROLMENT_BYTES, Enrolment
from agent.bundle.filekeys import TLS_FILE, load_tls, make_tls
from agent.bundle.firstroot import ROOT_FILE, read_root
from agent.bundle.identity import make_identity
from agent.bundle.keys import make_keys
from agent.bundle.strict import decode
from agent.errors import BundleError, KeyStoreError, ManifestError
from agent.statefolder import default_state_dir
from engines.durable import replace_file

if TYPE_CHECKING:
    from pathlib import Path

    from agent.bundle.documents import Kem
    from agent.config import KeyConfig

AUTHORITY_FILE = "ca.pem"
CERTIFICATE_FILE = "tls.pem"


def identify(
    config: KeyConfig, state_dir: Path, device: str, hw_class: str, kem: Kem = "p256"
) -> bytes:
    """Make the keys that are missing, and say who this device is.

    Args:
        config: where the keys are kept.
        state_dir: the state folder.
        device: device id.
        hw_class: hardware class.
        kem: kind of the key for grants, if it is made now.

    Returns:
        The identity in its envelope; see `agent.bundle.identity`.

    Raises:
        KeyStoreError: a key cannot be made or used.
    """
    keys = make_keys(config, state_dir, kem)
    tls = make_tls(state_dir)
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device)]))
        .sign(tls, hashes.SHA256())
    )
    return make_identity(device, keys, request.public_bytes(Encoding.PEM).decode(), hw_class)


def install(
    data: bytes, state_dir: Path, device: str | None = None, *, new_fleet: bool = False
) -> Enrolment:
    """Take the controller's answer.

    Args:
        data: the answer, a JSON document `vigia.enrolment/1`.
        state_dir: the state folder, with the keys that were made for it.
        device: device id; None: whatever the answer says.
        new_fleet: allow a root of trust that is not the one this device has.

    Raises:
        ManifestError: it is no such answer.
        SignatureError: its root of trust does not sign itself.
        BundleError: it is for another device, or does not fit its keys.
        KeyStoreError: the TLS key is missing, or the folder cannot be written to.
    """
    enrolment = decode(Enrolment, data, "enrolment", MAX_ENROLMENT_BYTES)
    if device not in {None, enrolment.device}:
        raise BundleError(f"the enrolment is for {enrolment.device}, this device is {device}")
    _check_certificate(enrolment, state_dir)
    root = enrolment.root.encode()
    trustset.read_root(root)
    _check_root(enrolment, state_dir / ROOT_FILE, new_fleet)
    for name, content in (
        (AUTHORITY_FILE, enrolment.authority.encode()),
        (CERTIFICATE_FILE, enrolment.certificate.encode()),
        (ROOT_FILE, root),
    ):
        _replace(state_dir / name, content)
    return enrolment


def settings_text(enrolment: Enrolment, state_dir: Path) -> str:
    """The lines of the configuration that go with an enrolment, YAML."""
    folder = state_dir.absolute()
    where = [] if folder == default_state_dir().absolute() else [f"  state_dir: {_yaml(folder)}"]
    return "\n".join(
        [
            "device:",
            f"  id: {_yaml(enrolment.device)}",
            "mqtt:",
            f"  host: {_yaml(enrolment.host)}",
            f"  port: {enrolment.port}",
            f"  prefix: {_yaml(enrolment.prefix)}",
            "  tls:",
            f"    ca_file: {_yaml(folder / AUTHORITY_FILE)}",
            f"    cert_file: {_yaml(folder / CERTIFICATE_FILE)}",
            f"    key_file: {_yaml(folder / TLS_FILE)}",
            *(["updates:", *where] if where else ["updates: {}"]),
        ]
    )


def _yaml(value: object) -> str:
    """JSON's texts are YAML's too, whatever is in them."""
    return json.dumps(str(value), ensure_ascii=False)


def _check_certificate(enrolment: Enrolment, state_dir: Path) -> None:
    try:
        certificate = x509.load_pem_x509_certificate(enrolment.certificate.encode())
        authority = x509.load_pem_x509_certificate(enrolment.authority.encode())
        names = [part.value for part in certificate.subject]
        public = certificate.public_key()
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        raise ManifestError(
            "enrolment: the certificate is damaged, or not of the authority beside it"
        ) from None
    if names != [enrolment.device]:
        raise BundleError(f"enrolment: the certificate is not for {enrolment.device}")
    if public != load_tls(state_dir).public_key():
        raise BundleError(
            f"the certificate is for another key than {state_dir / TLS_FILE}: the keys were made "
            "anew, or the identity was another device's; enrol this device again"
        )


def _check_root(enrolment: Enrolment, path: Path, new_fleet: bool) -> None:
    if new_fleet or not path.exists():
        return
    root, held = enrolment.root.encode(), read_root(path, path.parent)
    if root == held:
        return
    later = [text.encode() for text in (*enrolment.earlier, enrolment.root)]
    follows, why = b"", ""
    try:
        follows = trustset.follow_roots(held, later)
    except BundleError as error:
        why = f" ({error})"
    if follows != root:
        raise BundleError(
            f"this device trusts {path}, and the enrolment's root of trust does not follow from it"
            f"{why}; if the answer is an old one, have a new one made with `vigia fleet enroll "
            "--again`; if it is of another fleet, `--new-fleet` has the device forget its own"
        )


def _replace(path: Path, content: bytes) -> None:
    try:
        replace_file(path, content)
    except OSError as error:
        raise KeyStoreError(f"{path} cannot be written: {error.strerror or error}") from error
