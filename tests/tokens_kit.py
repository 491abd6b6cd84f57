"""JSON Web Tokens that must open nothing: some seventy, each wrong in one way, for any audience."""

import base64
import hashlib
import hmac
import itertools
import json
import time
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

SIGNER = ed25519.Ed25519PrivateKey.generate()
RSA_SIGNER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_SIGNER = ec.generate_private_key(ec.SECP256R1())
STRANGER = ed25519.Ed25519PrivateKey.generate()
CALLERS, ADMINS = "clearway-callers", "clearway-admin"
EDDSA = {"alg": "EdDSA", "typ": "JWT"}
_numbers = itertools.count()


def pem(private: Any) -> bytes:
    """The public key as the server reads it."""
    kinds = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return bytes(private.public_key().public_bytes(*kinds))


def claims(audience: str, **changes: Any) -> dict[str, Any]:
    """What a good token says; a change to `...` leaves the claim out."""
    now = time.time()
    good = {"sub": "ann", "iat": now, "exp": now + 600, "aud": audience, "iss": "clearway", "jti": f"n{next(_numbers)}"}
    return {name: value for name, value in (good | changes).items() if value is not ...}


def part(data: bytes | dict[str, Any]) -> str:
    """One of the three parts."""
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed(header: Any, payload: Any, *, signer: Any = SIGNER) -> str:
    """A token with any header and payload, and a right signature of this key."""
    message = f"{part(header)}.{part(payload)}"
    return f"{message}.{part(_signature(signer, message.encode()))}"


def _signature(signer: Any, message: bytes) -> bytes:
    if isinstance(signer, bytes):
        return hmac.new(signer, message, hashlib.sha256).digest()
    if isinstance(signer, rsa.RSAPrivateKey):
        return signer.sign(message, padding.PKCS1v15(), SHA256())
    if isinstance(signer, ec.EllipticCurvePrivateKey):
        r, s = decode_dss_signature(signer.sign(message, ec.ECDSA(SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")
    return bytes(signer.sign(message))


def bad_headers(audience: str) -> dict[str, bytes | None]:
    """Name → value of the Authorization header, None for no header at all."""
    tokens = _shapes(audience) | _algorithms(audience) | _keys(audience) | _claims(audience)
    if audience == ADMINS:
        tokens |= {
            f"jti {value!r}"[:20]: signed(EDDSA, claims(audience, jti=value))
            for value in ("", 7, None, ["a"], "x" * 201)
        }
        tokens["no jti"] = signed(EDDSA, claims(audience, jti=...))
    found: dict[str, bytes | None] = {name: b"Bearer " + token.encode() for name, token in tokens.items()}
    good = signed(EDDSA, claims(audience)).encode()
    return found | {
        "no header": None,
        "empty header": b"",
        "scheme only": b"Bearer",
        "scheme and space": b"Bearer ",
        "no scheme": good,
        "other scheme": b"Basic " + good,
        "tab": b"Bearer\t" + good,
        "two spaces": b"Bearer  " + good,
        "two tokens": b"Bearer " + good + b", Bearer " + good,
        "text after it": b"Bearer " + good + b" x",
        "nul after it": b"Bearer " + good + b"\x00",
        "bytes": b"Bearer \xff\xfe\xfd",
    }


def _shapes(audience: str) -> dict[str, str]:
    """What is no token of three parts, or whose parts are not what they must be."""
    good = signed(EDDSA, claims(audience))
    header, payload, signature = good.split(".")
    return {
        "noise": "a.b.c",
        "dots": "..",
        "one part": payload,
        "two parts": f"{header}.{payload}",
        "four parts": f"{good}.{signature}",
        "five parts, as encrypted ones have": f"{header}.{payload}.{signature}.{payload}.{signature}",
        "no signature": f"{header}.{payload}.",
        "cut signature": good[:-4],
        "another token's signature": f"{header}.{payload}.{signed(EDDSA, claims(audience)).rpartition('.')[2]}",
        "payload changed": f"{header}.{part(claims(audience, sub='root'))}.{signature}",
        "header changed": f"{part({'alg': 'EdDSA'})}.{payload}.{signature}",
        "header is a list": signed(b"[]", claims(audience)),
        "header is no JSON": signed(b"{", claims(audience)),
        "payload is a list": signed(EDDSA, b"[1]"),
        "payload is a text": signed(EDDSA, b'"ann"'),
        "payload is no JSON": signed(EDDSA, b"{"),
        "payload is no UTF-8": signed(EDDSA, b'{"sub": "\xff"}'),
        "payload is empty": signed(EDDSA, b""),
        "payload is deep": signed(EDDSA, b'{"a":' + b"[" * 1_000 + b"]" * 1_000 + b"}"),
        "huge": signed(EDDSA, claims(audience, pad="x" * 9_000)),
    }


def _algorithms(audience: str) -> dict[str, str]:
    """Headers that choose how they would like to be verified."""
    payload = part(claims(audience))
    found = {f"alg {name!r}": f"{part({'alg': name})}.{payload}." for name in ("none", "None", "NONE", "nOnE", "")}
    der = SIGNER.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    raw = SIGNER.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    for name, secret in {"PEM": pem(SIGNER), "DER": der, "raw": raw, "nothing": b""}.items():
        found[f"HS256 with {name} of the public key"] = signed({"alg": "HS256"}, claims(audience), signer=secret)
    return found | {
        "alg none, signed": signed({"alg": "none"}, claims(audience)),
        "no alg": signed({"typ": "JWT"}, claims(audience)),
        "alg number": signed({"alg": 1}, claims(audience)),
        "alg list": signed({"alg": ["EdDSA"]}, claims(audience)),
        "alg RS256 over an Ed25519 signature": signed({"alg": "RS256"}, claims(audience)),
        "crit unknown": signed(EDDSA | {"crit": ["x"], "x": 1}, claims(audience)),
        "crit empty": signed(EDDSA | {"crit": []}, claims(audience)),
        "b64 false": signed(EDDSA | {"crit": ["b64"], "b64": False}, claims(audience)),
    }


def _keys(audience: str) -> dict[str, str]:
    """Signed by somebody, and sometimes with directions where to find the key."""
    raw = STRANGER.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    own = {"kty": "OKP", "crv": "Ed25519", "x": part(raw)}
    directions: dict[str, dict[str, Any]] = {
        "stranger": {},
        "stranger's key in the header": {"jwk": own},
        "stranger's key at an address": {"jku": "http://127.0.0.1:9/keys.json"},
        "stranger's certificate at an address": {"x5u": "file:///etc/passwd"},
        "stranger's certificate": {"x5c": ["AAAA"]},
        "kid is a path": {"kid": "../../../../dev/null"},
        "kid is SQL": {"kid": "x' UNION SELECT 'key"},
        "kid is a number": {"kid": 0},
    }
    found = {name: signed(EDDSA | more, claims(audience), signer=STRANGER) for name, more in directions.items()}
    return found | {
        "RSA stranger": signed({"alg": "RS256"}, claims(audience), signer=RSA_SIGNER),
        "P-256 stranger": signed({"alg": "ES256"}, claims(audience), signer=EC_SIGNER),
    }


def _claims(audience: str) -> dict[str, str]:
    """Rightly signed, and saying what is not taken."""
    now, other = time.time(), ADMINS if audience == CALLERS else CALLERS
    changes: dict[str, dict[str, Any]] = {
        "expired": {"iat": now - 700, "exp": now - 60},
        "from the future": {"iat": now + 30_000, "exp": now + 30_300},
        "not yet": {"nbf": now + 30_000},
        "nbf text": {"nbf": "now"},
        "nbf true": {"nbf": True},
        "too long": {"exp": now + 4_000},
        "no lifetime": {"exp": now, "iat": now},
        "ends before it begins": {"iat": now + 5, "exp": now + 4},
        "exp 10^30": {"exp": 10**30},
        "exp text": {"exp": "9" * 10},
        "exp infinite": {"exp": float("inf")},
        "exp no number": {"exp": float("nan")},
        "exp null": {"exp": None},
        "exp list": {"exp": [now + 60]},
        "times true": {"iat": True, "exp": True},
        "iat negative": {"iat": -1e30},
        "sub empty": {"sub": ""},
        "sub number": {"sub": 7},
        "sub null": {"sub": None},
        "sub list": {"sub": ["ann"]},
        "sub long": {"sub": "x" * 201},
        "aud other": {"aud": other},
        "aud list": {"aud": [audience]},
        "aud both": {"aud": [audience, other]},
        "aud longer": {"aud": f"{audience}x"},
        "aud null": {"aud": None},
        "aud object": {"aud": {audience: 1}},
        "iss other": {"iss": "x"},
        "iss longer": {"iss": "clearway/"},
        "iss list": {"iss": ["clearway"]},
        "iss null": {"iss": None},
        **{f"no {name}": {name: ...} for name in ("exp", "iat", "sub", "aud", "iss")},
    }
    return {name: signed(EDDSA, claims(audience, **change)) for name, change in changes.items()}
