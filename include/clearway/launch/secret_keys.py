"""Secrets of the local stack: made once, kept readable by this user only."""

import base64
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

# Airflow warns below 64 bytes: SHA-512 signatures want a key as long as their digest.
JWT_BYTES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretKeys:
    """`jwt` signs API tokens, `api` web sessions, `fernet` encrypts stored connections (32 bytes, URL-safe base64)."""

    jwt: str
    api: str
    fernet: str


def load_secret_keys(folder: Path) -> SecretKeys:
    """The stack's secrets, made on first use."""
    return SecretKeys(
        jwt=_once(folder / "airflow-jwt.key", secrets.token_urlsafe(JWT_BYTES)),
        api=_once(folder / "airflow-api.key", secrets.token_urlsafe(JWT_BYTES)),
        fernet=_once(folder / "airflow-fernet.key", base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()),
    )


def _once(path: Path, fresh: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text(encoding="utf-8").strip()
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(fresh)
    return fresh
