"""Ed25519 signatures of manifests with a key of this machine, or one that `install` brought.

`signing.key` is made on first use (mode 0600); every `*.pub` in the same folder is trusted, so a key can be rotated by
dropping the new public key beside the old one.
"""

import os
import uuid
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from clearway.contracts.errors import ConfigError, IntegrityError

PRIVATE = "signing.key"
PUBLIC = "signing.pub"
KEY_BYTES = 32
# Bound into every signature, so that a signature made for another purpose can never pass for one of these.
DOMAIN = b"clearway model package v1\n"


def sign(message: bytes, *, key_folder: Path) -> bytes:
    """64 raw bytes; the same message and key give the same bytes."""
    return _private_key(key_folder).sign(DOMAIN + message)


def verify(message: bytes, signature: bytes, *, key_folder: Path) -> None:
    """Raises: IntegrityError unless one of the trusted keys made `signature` for `message`."""
    trusted = sorted(key_folder.glob("*.pub"))
    for path in trusted:
        try:
            Ed25519PublicKey.from_public_bytes(path.read_bytes()).verify(signature, DOMAIN + message)
        except (InvalidSignature, ValueError):
            continue
        return
    raise IntegrityError(
        f"signature is by none of the {len(trusted)} trusted keys in {key_folder}; train the model again here, "
        "or add the .pub file of its maker"
    )


def install(key: bytes, *, key_folder: Path) -> None:
    """Sign here, and trust, with a key from elsewhere; one that is here already stays. Args: key: 32 raw bytes.

    Raises: ConfigError if it is no private key.
    """
    if len(key) != KEY_BYTES:
        raise ConfigError(f"signing key has {len(key)} bytes; allowed: {KEY_BYTES}, a private Ed25519 key, raw")
    key_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _create_once(key_folder / PRIVATE, key, mode=0o600)
    _private_key(key_folder)


def _private_key(folder: Path) -> Ed25519PrivateKey:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / PRIVATE
    if not path.exists():
        _create_once(path, Ed25519PrivateKey.generate().private_bytes_raw(), mode=0o600)
    key = Ed25519PrivateKey.from_private_bytes(path.read_bytes())
    if not (folder / PUBLIC).exists():
        _create_once(folder / PUBLIC, key.public_key().public_bytes_raw(), mode=0o644)
    return key


def _create_once(path: Path, data: bytes, *, mode: int) -> None:
    """Of several racing processes one wins; the others use its file."""
    temporary = path.with_name(f".tmp-{uuid.uuid4().hex}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
    except FileExistsError:
        return
    finally:
        temporary.unlink()
