"""What a job is called, and what it leaves in its folder, wherever that lies."""

import json
import re

from clearway.contracts import errors
from clearway.contracts.codec import from_jsonable
from clearway.contracts.errors import ClearwayError, ConfigError, JobFailed
from clearway.infra.jobs.usage import Measured

INPUTS, OUTPUTS, ERROR, MEASURED = "inputs.json", "outputs.json", "error.json", "measured.json"
_KEY = re.compile(r"^[a-z0-9][a-z0-9_-]{0,99}$")


def check_key(key: str) -> None:
    """Raises: ConfigError for a key that cannot name a folder."""
    if not _KEY.match(key):
        raise ConfigError(f"job key {key!r} is not allowed; use {_KEY.pattern}")


def attempt_name(number: int) -> str:
    """Folder of an attempt, counted from 1."""
    return f"{number:04d}"


def id_of(key: str, attempt: str) -> str:
    """What a job's caller keeps."""
    return f"{key}.{attempt}"


def key_and_attempt(job: str) -> tuple[str, str]:
    """What an id was made of. Raises: ConfigError."""
    key, _, attempt = job.rpartition(".")
    if not _KEY.match(key) or not attempt.isdigit():
        raise ConfigError(f"job id {job!r} is not one of ours; ids look like <key>.0001")
    return key, attempt


def recorded_error(data: bytes) -> ClearwayError:
    """The error that a stage wrote down, to be raised where its result is asked for."""
    raw = json.loads(data)
    found = getattr(errors, raw["error"], None)
    if isinstance(found, type) and issubclass(found, ClearwayError):
        return found(raw["text"])
    return JobFailed(f"{raw['error']}: {raw['text']}")


def recorded_measure(data: bytes | None) -> Measured | None:
    """What a stage measured of itself; None if it was ended before it could say."""
    return None if data is None else from_jsonable(Measured, json.loads(data))
