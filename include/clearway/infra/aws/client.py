"""Clients of AWS, and what their errors mean here.

Account, region and endpoint come from where every AWS tool reads them: the instance's role, `AWS_PROFILE`,
`AWS_DEFAULT_REGION`, `AWS_ENDPOINT_URL`. Nothing of them is a setting of this project.
"""

import functools
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from clearway.contracts.errors import ConfigError, Unavailable

# A call is tried this often in all, waiting a random, doubling time in between (botocore's "standard" mode).
MAX_ATTEMPTS = 5
CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 60.0
MAX_CONNECTIONS = 32
# What a caller may do nothing about, and what may be better a moment later although botocore gave up on it.
REFUSED = "ValidationException"  # of SageMaker, whatever it did not like
_DENIED = {"AccessDenied", "AccessDeniedException"}
_UNKNOWN_CALLER = {
    "AuthFailure",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
_MISSING = {"NoSuchBucket", "ResourceNotFoundException"}
_BUSY = {
    "InternalError",
    "InternalServerError",
    "OperationAborted",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TransactionConflictException",
}


def client(service: str, *, max_attempts: int | None = None) -> Any:
    """The boto3 client of a service. One per process: its open connections do not survive a fork.

    `max_attempts`, the first one included: 1 for a call that may not be sent twice without looking.
    """
    return _client(service, max_attempts or MAX_ATTEMPTS, os.getpid())


@functools.lru_cache(maxsize=32)
def _client(service: str, max_attempts: int, pid: int) -> Any:  # noqa: ARG001 - a fork must not get its parent's
    import boto3
    from botocore.config import Config  # noqa: PLC0415

    logging.getLogger("botocore").setLevel(logging.WARNING)  # else every process says where its keys came from

    config = Config(
        retries={"mode": "standard", "total_max_attempts": max_attempts},
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        max_pool_connections=MAX_CONNECTIONS,
        user_agent_extra="clearway",
    )
    return boto3.session.Session().client(service, config=config)


def whole(call: Callable[..., dict[str, Any]], key: str, **asked: Any) -> Any:
    """`key` of the answer to a call that may be repeated; see `complete`."""
    return complete(call, key, **asked)[key]


def complete(call: Callable[..., dict[str, Any]], key: str, **asked: Any) -> dict[str, Any]:
    """The answer to a call that may be repeated: botocore takes a body that broke off for an empty one, without `key`.

    Raises: Unavailable if it never came whole.
    """
    for _ in range(MAX_ATTEMPTS):
        answer = call(**asked)
        if key in answer:
            return answer
    raise Unavailable(f"AWS answered {MAX_ATTEMPTS} times without {key!r}; try again")


def code_of(error: Exception) -> str:
    """AWS's own name of an error, "" for one that no service sent."""
    response = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def status_of(error: Exception) -> int:
    """HTTP status of a service's answer, 0 for an error that none sent."""
    response = getattr(error, "response", None) or {}
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_refusal(error: Exception, word: str = "") -> bool:
    """A call that SageMaker did not like, for a reason with this word in it, or one that broke off on its way."""
    return (code_of(error) == REFUSED and word in str(error)) or broke_off(error)


def broke_off(error: Exception) -> bool:
    """A call that did not arrive whole."""
    return status_of(error) == HTTPStatus.BAD_REQUEST and code_of(error) in {"", "Unknown", "400"}


@contextmanager
def excused(*codes: str) -> Iterator[None]:
    """Go on after a refusal of one of these codes, by which a service says what its caller knows how to take."""
    from botocore import exceptions as botocore  # noqa: PLC0415

    try:
        yield
    except botocore.ClientError as error:
        if code_of(error) not in codes:
            raise


@contextmanager
def explained(what: str, *, refused: str = "") -> Iterator[None]:
    """Turn errors of a call that botocore has given up on into ours; `what` names the thing it was about.

    Args:
        refused: what to do about any other refusal; without it, such an error stays botocore's.

    Raises: ConfigError for missing rights, a missing bucket or table, no credentials or region, and what is `refused`;
    Unavailable for everything that may pass.
    """
    from botocore import exceptions as botocore  # noqa: PLC0415

    try:
        yield
    except (
        botocore.NoCredentialsError,
        botocore.NoRegionError,
        botocore.PartialCredentialsError,
        botocore.ProfileNotFound,
        botocore.CredentialRetrievalError,
        botocore.TokenRetrievalError,
        botocore.SSOError,
    ) as error:
        raise ConfigError(f"{what}: {error}; give it a role, or AWS_PROFILE and AWS_DEFAULT_REGION") from error
    except botocore.ClientError as error:
        code = code_of(error)
        if code in _DENIED:
            raise ConfigError(f"{what}: AWS refuses ({error}); give the role of this process the right") from error
        if code in _UNKNOWN_CALLER:
            raise ConfigError(
                f"{what}: AWS does not know these credentials ({error}); log in, or set AWS_PROFILE"
            ) from error
        if code in _MISSING:
            raise ConfigError(f"{what}: there is none ({error}); make it, or correct include/conf") from error
        if code in _BUSY or status_of(error) >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise Unavailable(f"{what}: AWS gave up after {MAX_ATTEMPTS} attempts ({error}); try again") from error
        if refused:
            raise ConfigError(f"{what} is refused: {error}; {refused}") from error
        raise
    except (botocore.HTTPClientError, botocore.ResponseStreamingError) as error:
        raise Unavailable(f"{what}: AWS does not answer ({error}); check the network, then try again") from error
