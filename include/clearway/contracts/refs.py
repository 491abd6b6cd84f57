"""References: what tasks hand on instead of data. Each is an address plus the digest of what lies there."""

import re
from dataclasses import dataclass

SCHEMA_VERSION = 1
# XCom rows are read by every UI page of a run; a reference must stay far below a kilobyte.
MAX_REFERENCE_BYTES = 1024
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ref:
    """Address and content of one immutable thing.

    Args:
        uri: where it lies, `file:///…` or `s3://…`.
        digest: SHA-256 of its manifest, lowercase hex, 64 characters.
        schema_version: version of the thing's own layout.
    """

    uri: str
    digest: str
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if not _DIGEST.fullmatch(self.digest):
            raise ValueError(
                f"digest {self.digest!r} is not 64 lowercase hex characters; pass the SHA-256 of the manifest"
            )
        if "://" not in self.uri:
            raise ValueError(f"uri {self.uri!r} has no scheme; use file:///… or s3://…")


@dataclass(frozen=True, slots=True, kw_only=True)
class RawRef(Ref):
    """A window of landed batches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetRef(Ref):
    """Features joined with the labels known at one moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRef(Ref):
    """A model package: weights, preprocessing state, schema, signed manifest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class YardsticksRef(Ref):
    """What every candidate for one dataset is held against."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutStatus(Ref):
    """What serves after a deployment; `digest` is the model that answered, `uri` its package."""

    previous_digest: str | None = None
    weight_pct: float = 100.0
    epoch: int = 0
