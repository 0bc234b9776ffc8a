"""Keys and certificates of simulated devices: for one run, in a folder that is gone afterwards."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from agent.bundle.softkeys import KemKey, SoftKeys, private_pem
from agent.errors import StoreError
from engines.durable import write_new
from fleet.tables import Device

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from fleet.fleetfolder import Fleet

SLOT = "main"
SPECIFICATION = "crowd.json"
DEVICES = "devices.jsonl"
"""A line for each device: name, keys, and the file with certificate and TLS key."""


def make_crowd(
    fleet: Fleet, folder: Path, names: Sequence[str], tell: Callable[[int], None]
) -> list[Device]:
    """Make keys and certificates, which the crowd finds in files.

    Args:
        fleet: whose authority issues the certificates.
        folder: gets the files.
        names: of the devices.
        tell: takes how many are made.

    Returns:
        What the controller knows of the devices.

    Raises:
        KeyStoreError: the online keys do not open.
        StoreError: the disk refuses.
    """
    passphrase = fleet.keys.passphrase
    lines, rows = [], []
    for number, name in enumerate(names):
        kem, signing, tls = KemKey.generate("p256"), _private_key(), _private_key()
        issued = fleet.authority.device(name, _request(name, tls), passphrase)
        pair = folder / f"{number}.pem"
        _write(pair, issued.pem.encode() + private_pem(tls))
        lines.append(
            json.dumps(
                {
                    "name": name,
                    "kem": kem.pem().decode(),
                    "signing": private_pem(signing).decode(),
                    "tls": str(pair),
                }
            )
        )
        keys = SoftKeys(kem, signing)
        rows.append(
            Device(
                id=name,
                kem=keys.kem,
                kem_key=base64.b64encode(keys.kem_public).decode(),
                sign_key=keys.sign_public_pem,
                key_level="L0",
                hw_class="simulated",
                certificate=issued.pem,
                serial=issued.serial,
                fingerprint="",
                enrolled_at=int(fleet.now()),
            )
        )
        tell(number + 1)
    _write(folder / DEVICES, "\n".join(lines).encode())
    return rows


def write_specification(fleet: Fleet, folder: Path, *, window: int, timeout_s: float) -> None:
    """Write what the crowd has to know besides its keys.

    Raises:
        StoreError: the disk refuses.
    """
    mqtt = fleet.mqtt
    specification: dict[str, Any] = {
        "host": mqtt.host,
        "port": mqtt.effective_port,
        "prefix": fleet.settings.prefix,
        "ca": "" if mqtt.tls is None else str(mqtt.tls.ca_file),
        "slot": SLOT,
        "window": window,
        "timeout_s": timeout_s,
        "root": fleet.repository.anchor().decode(),
        "devices": str(folder / DEVICES),
    }
    _write(folder / SPECIFICATION, json.dumps(specification).encode())


def _private_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _request(name: str, key: ec.EllipticCurvePrivateKey) -> str:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return request.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def _write(path: Path, content: bytes) -> None:
    try:
        write_new(path, content)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}") from error
