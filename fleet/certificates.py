"""The parts that certificates, requests and revocations are made of. Pure.

Profile: RFC 5280, ECDSA P-256.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import re

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from fleet.errors import FleetError

MAX_REQUEST_CHARACTERS = 8000
MAX_COMMON_NAME = 64
"""Upper bound of RFC 5280."""

HOST = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*\.?")


def requested_key(device: str, request: str) -> ec.EllipticCurvePublicKey:
    """The key of a certificate request (PKCS#10, PEM), of which nothing else is taken.

    Raises:
        FleetError: it is none, is for another name, is not signed with the key that it shows, or
            the key is not of P-256.
    """
    try:
        parsed = x509.load_pem_x509_csr(request[:MAX_REQUEST_CHARACTERS].encode())
        public, held = parsed.public_key(), parsed.is_signature_valid
    except (ValueError, UnsupportedAlgorithm):
        raise FleetError(f"device {device}: the certificate request is damaged") from None
    if parsed.subject != subject(device):
        raise FleetError(
            f"device {device}: the certificate request is for {parsed.subject.rfc4514_string()!r}"
        )
    if not held:
        raise FleetError(
            f"device {device}: whoever made the certificate request does not hold the key in it"
        )
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(
        public.curve, ec.SECP256R1
    ):
        raise FleetError(f"device {device}: the key of the certificate request is not of P-256")
    return public


def subject(common_name: str) -> x509.Name:
    """The name that a certificate is for: a common name alone.

    Raises:
        FleetError: it is empty or too long.
    """
    try:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    except ValueError:
        raise FleetError(
            f"{common_name!r} cannot stand in a certificate; take 1 to {MAX_COMMON_NAME} characters"
        ) from None


def key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    """The authority signs certificates and lists only, others only handshakes."""
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def issued_by(authority: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """Names the authority's key, in what it signs."""
    found = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(found.value)


def general_name(host: str) -> x509.GeneralName:
    """A host name or address, as a server's certificate lists it.

    Raises:
        FleetError: it is neither.
    """
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    if not HOST.fullmatch(host):
        raise FleetError(
            f"{host!r} is no host name; names in other scripts are written in their `xn--` form"
        )
    return x509.DNSName(host)


def revoked_entry(serial: str, at: int) -> x509.RevokedCertificate:
    """An entry of a list of revocations.

    Args:
        serial: hexadecimal.
        at: seconds since the epoch.

    Raises:
        FleetError: that is no serial number.
    """
    try:
        return (
            x509.RevokedCertificateBuilder()
            .serial_number(int(serial, 16))
            .revocation_date(dt.datetime.fromtimestamp(at, dt.timezone.utc))
            .build()
        )
    except ValueError:
        raise FleetError(f"{serial!r} is no serial number of a certificate") from None


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """PKCS#8, not encrypted."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
