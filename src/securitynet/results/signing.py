"""Signs statements with Ed25519 in the envelope that in-toto uses (DSSE v1), and checks such signatures.

Keys are PEM files: a private key in PKCS#8 (``openssl genpkey -algorithm ed25519 -out key.pem``), a public key in
SubjectPublicKeyInfo (``openssl pkey -in key.pem -pubout -out key.pub``).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from securitynet.errors import ConfigurationError, MissingExtra
from securitynet.untrusted import read_bytes

MAX_KEY = 1 << 16
"""Largest size of a key's file in bytes."""

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PAYLOAD_TYPE = "application/vnd.in-toto+json"
ENVELOPE_FILE = "result.intoto.json"
REPRODUCTION_FILE = "result.reproduced.intoto.json"


class SignatureError(ConfigurationError):
    """A signature that does not hold, or an envelope that is none."""


def read_private_key(path: Path, password: str | None = None) -> Ed25519PrivateKey:
    """Read a private key.

    Args:
        path: A PEM file.
        password: Of an encrypted key.

    Raises:
        ConfigurationError: If the file is no Ed25519 key, or is encrypted and the password is not right.
    """
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ImportError as error:
        raise MissingExtra("cryptography", "evidence", "A signature") from error
    hint = "Make one with: openssl genpkey -algorithm ed25519 -out key.pem"
    try:
        key = serialization.load_pem_private_key(
            read_bytes(path, MAX_KEY), password=password.encode() if password is not None else None
        )
    except (ValueError, TypeError) as error:  # TypeError: encrypted, and no password was given
        raise ConfigurationError(f"{path.name} can't be read as a private key: {error}.", hint=hint) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(f"{path.name} is not an Ed25519 key.", hint=hint)
    return key


def read_public_key(path: Path) -> Ed25519PublicKey:
    """Read a public key from a PEM file.

    Raises:
        ConfigurationError: If the file is no public Ed25519 key.
    """
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError as error:
        raise MissingExtra("cryptography", "evidence", "Checking a signature") from error
    hint = "Make one with: openssl pkey -in key.pem -pubout -out key.pub"
    try:
        key = serialization.load_pem_public_key(read_bytes(path, MAX_KEY))
    except ValueError as error:
        raise ConfigurationError(f"{path.name} can't be read as a public key.", hint=hint) from error
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigurationError(f"{path.name} is not an Ed25519 key.", hint=hint)
    return key


def identify_key(key: Ed25519PublicKey) -> str:
    """The id of a public key: SHA-256 of its SubjectPublicKeyInfo."""
    from cryptography.hazmat.primitives import serialization

    content = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(content).hexdigest()


def sign_statement(statement: dict[str, Any], key: Ed25519PrivateKey) -> dict[str, Any]:
    """A signed envelope of a statement.

    Args:
        statement: JSON types.
        key: The private key.
    """
    payload = json.dumps(statement, sort_keys=True, ensure_ascii=False, allow_nan=False).encode("utf-8")
    signature = key.sign(encode_signed_bytes(payload))
    return {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode("ascii"),
        "signatures": [{"keyid": identify_key(key.public_key()), "sig": base64.b64encode(signature).decode("ascii")}],
    }


def open_envelope(envelope: Any, key: Ed25519PublicKey | None = None) -> tuple[dict[str, Any], bytes]:
    """The statement in an envelope, and its payload.

    Args:
        envelope: JSON types, from anybody.
        key: The public key that must have signed it; without one, no signature is checked.

    Raises:
        SignatureError: If it is no envelope of a statement, or the key has not signed it.
    """
    try:
        if envelope["payloadType"] != PAYLOAD_TYPE:
            raise SignatureError("The envelope does not hold an in-toto statement.")
        payload = base64.b64decode(envelope["payload"], validate=True)
        signatures = [base64.b64decode(one["sig"], validate=True) for one in envelope["signatures"]]
        statement = json.loads(payload)
        stated = statement["subject"], statement["predicateType"], statement["predicate"]
    except (KeyError, TypeError, ValueError, binascii.Error, RecursionError) as error:
        raise SignatureError("The file is not a signed statement.") from error
    if not isinstance(stated[2], dict):
        raise SignatureError("The file is not a signed statement.")
    if key is not None and not any(_holds(key, payload, signature) for signature in signatures):
        raise SignatureError(
            "The signature is not by this key, or the statement was changed after it was signed.",
            hint="Ask the signer for the public key, over a channel that you trust.",
        )
    return statement, payload


def find_signer(envelope: Any, keys: Mapping[str, Ed25519PublicKey]) -> str | None:
    """The name of the first key that signed an envelope; None if none of them did.

    Args:
        envelope: One that `open_envelope` could open.
        keys: Keys by name.
    """
    for name, key in keys.items():
        try:
            open_envelope(envelope, key)
        except SignatureError:
            continue
        return name
    return None


def encode_signed_bytes(payload: bytes, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """What is signed: DSSE's pre-authentication encoding of the type and the payload."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _holds(key: Ed25519PublicKey, payload: bytes, signature: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, encode_signed_bytes(payload))
    except InvalidSignature:
        return False
    return True
