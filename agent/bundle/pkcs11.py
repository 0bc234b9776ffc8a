"""A device's keys in a PKCS#11 token (TPM, OP-TEE, SoftHSM): level L2.

Private keys are made in the token and never leave it. It does two things: ECDH on P-256
(`CKM_ECDH1_DERIVE`), whose result goes through HPKE's key schedule here, and ECDSA. Tokens have
done the first wrongly in the past, so both are tried against the public keys when it is opened.

Objects are found by label: `vigia-kem` and `vigia-sign`.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import threading
from typing import TYPE_CHECKING

import pkcs11
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)
from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass
from pkcs11.util.ec import encode_ec_public_key, encode_named_curve_parameters
from securesystemslib.signer import SSlibKey

from agent.bundle.cipher import KEY_BYTES
from agent.bundle.dsse import KeySigner
from agent.bundle.grant import open_sealed, seal_grant
from agent.bundle.hpkebase import SECRET_BYTES, open_base
from agent.errors import BundleError, KeyStoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Literal

    from securesystemslib.signer import Signer

    from agent.bundle.documents import Grant, Kem

KEM_LABEL = "vigia-kem"
SIGN_LABEL = "vigia-sign"

CAPABILITIES = {
    KEM_LABEL: MechanismFlag.DERIVE,
    SIGN_LABEL: MechanismFlag.SIGN | MechanismFlag.VERIFY,
}
"""Each key can do one thing, so that neither can be used to attack the other."""


class TokenKeys:
    """See `agent.bundle.keys.DeviceKeys`.

    Args:
        session: logged in; used by one thread at a time.

    Raises:
        KeyStoreError: a key is missing, or the token computes wrongly.
    """

    level: Literal["L2"] = "L2"
    kem: Kem = "p256"

    def __init__(self, session: pkcs11.Session) -> None:
        self._lock = threading.Lock()
        with token_errors():
            kem_private, sign_private = (_private(session, label) for label in CAPABILITIES)
            kem = _public(session, KEM_LABEL)
            self._public = _public(session, SIGN_LABEL)
        assert isinstance(kem_private, pkcs11.DeriveMixin)
        assert isinstance(sign_private, pkcs11.SignMixin)
        self._kem, self._signing = kem_private, sign_private
        self._key = SSlibKey.from_crypto(self._public)
        self.kem_public = kem.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        self._prove()

    @property
    def sign_public_pem(self) -> str:
        """See `DeviceKeys`."""
        return str(self._key.keyval["public"])

    @property
    def key_id(self) -> str:
        """See `DeviceKeys`."""
        return self._key.keyid

    def open_grant(self, grant: Grant, info: bytes) -> bytes:
        """See `DeviceKeys`."""
        return open_sealed(
            grant,
            self.kem,
            self.kem_public,
            lambda sealed: open_base(sealed, self.kem_public, info, self._exchange),
        )

    def sign(self, data: bytes) -> bytes:
        """See `DeviceKeys`."""
        with self._lock, token_errors():
            raw = self._signing.sign(hashlib.sha256(data).digest(), mechanism=Mechanism.ECDSA)
        half = len(raw) // 2
        return encode_dss_signature(
            int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big")
        )

    def signer(self) -> Signer:
        """See `DeviceKeys`."""
        return KeySigner(self._key, self.sign)

    def _exchange(self, point: bytes) -> bytes:
        """The private key times a point; its x coordinate."""
        with self._lock, token_errors():
            secret = self._kem.derive_key(
                KeyType.GENERIC_SECRET,
                8 * SECRET_BYTES,
                mechanism_param=(pkcs11.KDF.NULL, None, point),
                template={Attribute.SENSITIVE: False, Attribute.EXTRACTABLE: True},
            )
            try:
                return bytes(secret[Attribute.VALUE])
            finally:
                secret.destroy()

    def _prove(self) -> None:
        """See whether the token does right by known answers.

        Raises:
            KeyStoreError: it does not.
        """
        answer, info = secrets.token_bytes(KEY_BYTES), b"vigia/known-answer/1"
        try:
            opened = self.open_grant(seal_grant(self.kem, self.kem_public, answer, info), info)
            self._public.verify(self.sign(answer), answer, ec.ECDSA(hashes.SHA256()))
        except (BundleError, InvalidSignature):
            opened = b""
        if opened != answer:
            raise KeyStoreError(
                "the PKCS#11 token computes wrongly, or its public and private keys do not belong "
                "together; update its firmware or library, or use `kind: file`"
            )


def open_token(module: Path, token: str, pin: str) -> TokenKeys:
    """Open the keys of an enrolled device.

    Args:
        module: the PKCS#11 library.
        token: label.
        pin: user PIN.

    Raises:
        KeyStoreError: the library or token cannot be used, or the keys are missing.
    """
    return TokenKeys(_session(module, token, pin, write=False))


def make_token_keys(module: Path, token: str, pin: str) -> TokenKeys:
    """Make the keys in a token; those that are there already stay. As `open_token`."""
    session = _session(module, token, pin, write=True)
    with token_errors():
        for label, capability in CAPABILITIES.items():
            if not _exists(session, label):
                _generate(session, label, capability)
    return TokenKeys(session)


@contextlib.contextmanager
def token_errors() -> Iterator[None]:
    """Turn what the library raises into our family.

    Raises:
        KeyStoreError: the token refused.
    """
    try:
        yield
    except pkcs11.PinIncorrect:
        raise KeyStoreError(
            "updates.keys.pin: the PKCS#11 token refuses the PIN; it locks after a few more tries"
        ) from None
    except pkcs11.PinLocked:
        raise KeyStoreError(
            "the PKCS#11 token is locked after too many wrong PINs; unlock it with its own tool"
        ) from None
    except pkcs11.NoSuchToken:
        raise KeyStoreError(
            "updates.keys.token: there is no PKCS#11 token of this label; make one with its own "
            "tool, e.g. `softhsm2-util --init-token`"
        ) from None
    except pkcs11.NoSuchKey:
        raise KeyStoreError(
            "the PKCS#11 token has no keys of this device; `vigia enroll` makes them"
        ) from None
    except pkcs11.PKCS11Error as error:
        # The errors' own texts are empty, or quote numbers only.
        raise KeyStoreError(f"the PKCS#11 token fails: {type(error).__name__}") from error


def _session(module: Path, token: str, pin: str, *, write: bool) -> pkcs11.Session:
    try:
        library = pkcs11.lib(str(module.resolve(strict=True)))
    except (OSError, pkcs11.PKCS11Error) as error:
        raise KeyStoreError(
            f"updates.keys.module: {module} is no PKCS#11 library that can be used: {error}"
        ) from error
    with token_errors():
        found = library.get_token(token_label=token)
        try:
            return found.open(rw=write, user_pin=pin)
        except pkcs11.UserAlreadyLoggedIn:
            # Another session of this process has; it counts for all of them.
            return found.open(rw=write)


def _exists(session: pkcs11.Session, label: str) -> bool:
    try:
        _private(session, label)
    except pkcs11.NoSuchKey:
        return False
    return True


def _generate(session: pkcs11.Session, label: str, capability: MechanismFlag) -> None:
    curve = session.create_domain_parameters(
        KeyType.EC,
        {Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")},
        local=True,
    )
    curve.generate_keypair(
        label=label,
        store=True,
        capabilities=capability,
        private_template={Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False},
    )


def _private(session: pkcs11.Session, label: str) -> pkcs11.PrivateKey:
    found = session.get_key(ObjectClass.PRIVATE_KEY, KeyType.EC, label=label)
    assert isinstance(found, pkcs11.PrivateKey)
    return found


def _public(session: pkcs11.Session, label: str) -> ec.EllipticCurvePublicKey:
    found = session.get_key(ObjectClass.PUBLIC_KEY, KeyType.EC, label=label)
    assert isinstance(found, pkcs11.PublicKey)
    try:
        public = load_der_public_key(encode_ec_public_key(found))
    except (ValueError, TypeError):
        public = None
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(
        public.curve, ec.SECP256R1
    ):
        raise KeyStoreError(f"the PKCS#11 token's key {label} is not one of P-256")
    return public
