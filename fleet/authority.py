"""The fleet's certificate authority: who may connect to the broker.

Certificates are X.509 (RFC 5280) with ECDSA P-256 and SHA-256. A client's common name is the user
that the broker takes it for, so names are given here and nowhere else: of a request only the key is
taken, once the requester has shown that they hold it.
"""

from __future__ import annotations

import datetime as dt
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from engines.durable import read_bounded
from fleet.brokerfiles import CONTROLLER_USER, VIEWER_PREFIX, is_reserved
from fleet.certificates import (
    MAX_COMMON_NAME,
    general_name,
    issued_by,
    key_usage,
    private_pem,
    requested_key,
    revoked_entry,
    subject,
)
from fleet.errors import FleetError
from fleet.metadatafolder import replace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from fleet.vault import Vault

KEY_NAME = "authority"
"""Of the authority's key in the vault."""

CERTIFICATE = "ca.pem"
MAX_CERTIFICATE_BYTES = 16 * 2**10

AUTHORITY_DAYS = 20 * 365
SERVER_DAYS = 825
"""As long as the strictest clients accept."""

CLIENT_DAYS = 825
"""Of the controller and viewers, who can come for a new one."""

DEVICE_DAYS = 10 * 365
"""Devices hang on poles and roofs: their certificates end with their service, and a stolen one is
revoked. None outlives the authority."""

BACKDATED = dt.timedelta(days=1)
"""Clocks of brokers and devices may be behind ours."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """What was issued.

    Attributes:
        pem: the certificate.
        serial: hexadecimal.
    """

    pem: str
    serial: str


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate with its key, which was made here.

    Attributes:
        certificate: what was issued.
        key: PEM, not encrypted: programs read it without anybody at hand.
    """

    certificate: Certificate
    key: bytes = field(repr=False)


class Authority:
    """Issues and revokes certificates.

    Args:
        folder: where its certificate lies; made with mode 0700.
        vault: where its key lies.
        now: seconds since the epoch.
    """

    def __init__(self, folder: Path, vault: Vault, now: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._vault = vault
        self._now = now

    def create(self, name: str, passphrase: str) -> None:
        """Make the authority's key and certificate.

        Args:
            name: of the fleet.
            passphrase: opens the key.

        Raises:
            KeyStoreError: there is an authority in this vault already.
            FleetError: the disk refuses.
        """
        self._vault.create_key(KEY_NAME, passphrase, "p256")
        key = self._key(passphrase)
        own_name = subject(f"Vigia fleet {name}"[:MAX_COMMON_NAME])
        public = key.public_key()
        certificate = (
            self._builder(own_name, own_name, public, self._until(AUTHORITY_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(key_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .sign(key, hashes.SHA256())
        )
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise FleetError(f"{self._folder} cannot be made: {error.strerror}") from error
        replace(self._folder / CERTIFICATE, certificate.public_bytes(Encoding.PEM))

    @property
    def certificate(self) -> str:
        """The authority's own certificate, PEM.

        Raises:
            FleetError: it is missing or damaged.
        """
        return self._certificate().public_bytes(Encoding.PEM).decode()

    def server(self, hosts: Sequence[str], passphrase: str) -> Pair:
        """A certificate for the broker, with a new key.

        Args:
            hosts: names and addresses under which clients reach it.
            passphrase: of the authority's key.

        Raises:
            FleetError: no host is given, or one cannot stand in a certificate.
            KeyStoreError: the authority's key does not open.
        """
        if not hosts:
            raise FleetError("the broker needs a host name or address that clients call it by")
        names = x509.SubjectAlternativeName([general_name(host) for host in hosts])
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._issue(
            hosts[0][:MAX_COMMON_NAME], key.public_key(), SERVER_DAYS, passphrase, names
        )
        return Pair(certificate, private_pem(key))

    def controller(self, passphrase: str) -> Pair:
        """A certificate for the controller, with a new key; raises as `viewer`."""
        return self._client(CONTROLLER_USER, passphrase)

    def viewer(self, name: str, passphrase: str) -> Pair:
        """A certificate for an operator who reads, with a new key.

        Args:
            name: of the operator.
            passphrase: of the authority's key.

        Raises:
            FleetError: the name is too long.
            KeyStoreError: the authority's key does not open.
        """
        return self._client(f"{VIEWER_PREFIX}{name}", passphrase)

    def device(self, device: str, request: str, passphrase: str) -> Certificate:
        """A certificate for a device's own key.

        Args:
            device: device id.
            request: PEM of the certificate request (PKCS#10).
            passphrase: of the authority's key.

        Raises:
            FleetError: the request is none, is for another name, is not signed with the key that it
                shows, or the key is not of P-256; or no device may be called so.
            KeyStoreError: the authority's key does not open.
        """
        if is_reserved(device):
            raise FleetError(f"no device may be called {device}: the name is the controller's own")
        return self._issue(device, requested_key(device, request), DEVICE_DAYS, passphrase)

    def revocations(self, revoked: Mapping[str, int], passphrase: str) -> str:
        """The list of certificates that count no more, PEM.

        It is valid as long as the authority: brokers refuse everybody once it has ended.

        Args:
            revoked: serial number (hexadecimal) -> when, seconds since the epoch.
            passphrase: of the authority's key.

        Raises:
            FleetError: the authority's certificate is missing, or a serial number is none.
            KeyStoreError: the authority's key does not open.
        """
        certificate, key = self._certificate(), self._key(passphrase)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(certificate.subject)
            .last_update(self._moment() - BACKDATED)
            .next_update(certificate.not_valid_after_utc)
            .add_extension(x509.CRLNumber(int(self._now() * 1000)), critical=False)
            .add_extension(issued_by(certificate), critical=False)
        )
        for serial, at in sorted(revoked.items()):
            builder = builder.add_revoked_certificate(revoked_entry(serial, at))
        return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()

    def _client(self, common_name: str, passphrase: str) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        return Pair(
            self._issue(common_name, key.public_key(), CLIENT_DAYS, passphrase), private_pem(key)
        )

    def _issue(
        self,
        common_name: str,
        public: ec.EllipticCurvePublicKey,
        days: int,
        passphrase: str,
        names: x509.SubjectAlternativeName | None = None,
    ) -> Certificate:
        authority, key = self._certificate(), self._key(passphrase)
        purpose = (
            ExtendedKeyUsageOID.CLIENT_AUTH if names is None else ExtendedKeyUsageOID.SERVER_AUTH
        )
        until = min(self._until(days), authority.not_valid_after_utc)
        builder = (
            self._builder(subject(common_name), authority.subject, public, until)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(issued_by(authority), critical=False)
        )
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        certificate = builder.sign(key, hashes.SHA256())
        return Certificate(
            certificate.public_bytes(Encoding.PEM).decode(), f"{certificate.serial_number:x}"
        )

    def _builder(
        self,
        owner: x509.Name,
        issuer: x509.Name,
        public: ec.EllipticCurvePublicKey,
        until: dt.datetime,
    ) -> x509.CertificateBuilder:
        begin = self._moment() - BACKDATED
        if until <= begin:
            raise FleetError(
                "the fleet's authority has ended, or this machine's clock is wrong; a fleet whose "
                "authority has ended must be made anew"
            )
        return (
            x509.CertificateBuilder()
            .subject_name(owner)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(until)
        )

    def _moment(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(int(self._now()), dt.timezone.utc)

    def _until(self, days: int) -> dt.datetime:
        return self._moment() + dt.timedelta(days=days)

    def _key(self, passphrase: str) -> ec.EllipticCurvePrivateKey:
        return self._vault.p256_key(KEY_NAME, passphrase)

    def _certificate(self) -> x509.Certificate:
        path = self._folder / CERTIFICATE
        try:
            data = read_bounded(path, MAX_CERTIFICATE_BYTES)
            return x509.load_pem_x509_certificate(data or b"")
        except OSError as error:
            raise FleetError(
                f"the authority's certificate {path} cannot be read: {error.strerror or error}"
            ) from error
        except ValueError:
            raise FleetError(
                f"the authority's certificate {path} is damaged; put it back from a backup"
            ) from None
