"""Secrets of the account, read where they are needed and never put into a variable or a log."""

from clearway.infra.aws.client import client, explained


def binary_secret(name: str) -> bytes:
    """Raises: ConfigError if there is none, or this role may not read it; Unavailable."""
    with explained(f"secret {name}"):
        data: bytes = client("secretsmanager").get_secret_value(SecretId=name).get("SecretBinary", b"")
    return data
