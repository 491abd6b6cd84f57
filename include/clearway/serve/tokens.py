"""JSON Web Tokens of callers and of admin calls, verified with public keys on this disk and nothing else.

The algorithm follows from the kind of key, never from what a token says: Ed25519 is EdDSA, P-256 is ES256, RSA of 2,048
bits or more is RS256. Up to two keys count at once, so that a new one can be brought in before the old one goes.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.types import Options

from clearway.contracts.errors import ConfigError
from clearway.serve.refusal import Refusal

MAX_LIFETIME_S = 3_600.0
LEEWAY_S = 10.0
MAX_TOKEN_BYTES = 4_096
MAX_KEYS = 2
MAX_REPLAYS = 10_000  # admin tokens of one hour; beyond it admin calls wait for old ones to expire
MAX_REMEMBERED = 1_024  # verified tokens of callers; a signature costs as much as a whole answer
_MIN_RSA_BITS = 2_048
_MAX_SUBJECT = 200
_REQUIRED = ("exp", "iat", "sub", "aud", "iss")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What a verified token says: who, until when (Unix seconds), and its own number."""

    subject: str
    issued_s: float
    expires_s: float
    number: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A public key and the one algorithm it is used with."""

    public: Any
    algorithm: str


def read_keys(folder: Path) -> tuple[Key, ...]:
    """The `*.pem` public keys of a folder. Raises: ConfigError for none, more than two, or a kind that is not taken."""
    paths = sorted(folder.glob("*.pem"))
    if not 0 < len(paths) <= MAX_KEYS:
        raise ConfigError(f"{folder} has {len(paths)} files *.pem; allowed: 1 or {MAX_KEYS} public keys")
    return tuple(_key(path) for path in paths)


def _key(path: Path) -> Key:
    try:
        public = load_pem_public_key(path.read_bytes())
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path} is no public key in PEM; write one with `openssl pkey -pubout`") from error
    if isinstance(public, ed25519.Ed25519PublicKey):
        return Key(public=public, algorithm="EdDSA")
    if isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, ec.SECP256R1):
        return Key(public=public, algorithm="ES256")
    if isinstance(public, rsa.RSAPublicKey) and public.key_size >= _MIN_RSA_BITS:
        return Key(public=public, algorithm="RS256")
    raise ConfigError(f"{path} holds a key that is not taken; allowed: Ed25519, P-256, RSA of {_MIN_RSA_BITS} bits")


class Verifier:
    """Tokens for one audience.

    Args:
        is_single_use: a token counts once, by its `jti`. Those used are kept in memory, so a token from before this
            process started is refused too.
    """

    def __init__(
        self,
        *,
        keys: tuple[Key, ...],
        issuer: str,
        audience: str,
        is_single_use: bool,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._keys, self._issuer, self._audience = keys, issuer, audience
        self._is_single_use, self._now_s, self._started_s = is_single_use, now_s, int(now_s())
        self._used: dict[str, float] = {}
        self._remembered: OrderedDict[bytes, Claims] = OrderedDict()

    def verify(self, header: bytes) -> Claims:
        """The claims of an Authorization header. Raises: Refusal 401, or 503 with too many admin calls at once."""
        scheme, _, token = header.partition(b" ")
        if scheme.lower() != b"bearer" or not 0 < len(token) <= MAX_TOKEN_BYTES:
            raise _refused("a bearer token is needed")
        if self._is_single_use:
            claims = self._claims(token)
            self._use(claims)
            return claims
        known = self._remembered.get(token)
        if known is not None and known.expires_s + LEEWAY_S > self._now_s():
            return known
        claims = self._remembered[token] = self._claims(token)
        if len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)
        return claims

    def _claims(self, token: bytes) -> Claims:
        for key in self._keys:
            try:
                if "crit" in jwt.get_unverified_header(token):
                    raise _refused("its header asks for extensions (crit), and there are none")
                # Times are judged below, by one clock and with finite numbers only.
                checks = Options(require=list(_REQUIRED), verify_exp=False, verify_iat=False, verify_nbf=False)
                checks["strict_aud"] = True
                found = jwt.decode(
                    token,
                    key.public,
                    algorithms=[key.algorithm],
                    audience=self._audience,
                    issuer=self._issuer,
                    options=checks,
                )
                return self._judged(found)
            except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError, KeyError):
                continue
        raise _refused("it is not signed by a known key, or lacks a claim, or is for another audience or issuer")

    def _judged(self, found: dict[str, Any]) -> Claims:
        issued, expires, subject, number = found["iat"], found["exp"], found["sub"], found.get("jti", "")
        if type(issued) not in {int, float} or type(expires) not in {int, float}:
            raise _refused("iat and exp must be numbers")
        if not isinstance(subject, str) or not 0 < len(subject) <= _MAX_SUBJECT:
            raise _refused(f"sub must be a text of 1 to {_MAX_SUBJECT} characters")
        now = self._now_s()
        if not (issued - LEEWAY_S <= now < expires + LEEWAY_S):
            raise _refused("it is expired, or not valid yet")
        not_before = found.get("nbf", issued)
        if type(not_before) not in {int, float} or not not_before - LEEWAY_S <= now:
            raise _refused("it is not valid yet")
        if not 0 < expires - issued <= MAX_LIFETIME_S:
            raise _refused(f"it is valid for too long; allowed: {MAX_LIFETIME_S:g} s from iat to exp")
        if self._is_single_use and not (isinstance(number, str) and 0 < len(number) <= _MAX_SUBJECT):
            raise _refused(f"an admin token needs jti, a text of 1 to {_MAX_SUBJECT} characters")
        return Claims(subject=subject, issued_s=float(issued), expires_s=float(expires), number=str(number))

    def _use(self, claims: Claims) -> None:
        now = self._now_s()
        if claims.issued_s < self._started_s:
            raise _refused("it is older than this server process; make a new one")
        if claims.number in self._used:
            raise _refused("it was used before; every admin call needs its own")
        if len(self._used) >= MAX_REPLAYS:
            self._used = {number: until for number, until in self._used.items() if until > now}
            if len(self._used) >= MAX_REPLAYS:
                raise Refusal(503, "overloaded", f"{MAX_REPLAYS} admin calls within an hour; retry later")
        self._used[claims.number] = claims.expires_s + LEEWAY_S


def _refused(why: str) -> Refusal:
    return Refusal(401, "unauthorized", f"the token is not taken: {why}")
