"""Certificate requests, good and bad."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def new_key(curve: ec.EllipticCurve | None = None) -> ec.EllipticCurvePrivateKey:
    """A key of P-256, or of another curve."""
    return ec.generate_private_key(curve or ec.SECP256R1())


def common_name(*names: str) -> x509.Name:
    """A subject with these common names."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names])


def builder(subject: x509.Name) -> x509.CertificateSigningRequestBuilder:
    """A request that is not signed yet."""
    return x509.CertificateSigningRequestBuilder().subject_name(subject)


def pem(unsigned: x509.CertificateSigningRequestBuilder, key) -> str:
    """Sign a request."""
    signed = unsigned.sign(key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


def request(name: str, key: ec.EllipticCurvePrivateKey | None = None) -> str:
    """What a device of this name sends."""
    return pem(builder(common_name(name)), key or new_key())
