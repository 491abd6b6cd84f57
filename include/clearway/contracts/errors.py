"""Every error Clearway raises on purpose.

ClearwayError
├── ConfigError            what a person wrote is wrong: product.yaml, conf, command line        not retryable
├── DataError              the bytes are wrong, whoever wrote them                                not retryable
│   ├── BatchConflict      same batch id, other bytes
│   ├── BatchQuarantined   late, empty, truncated or schema-changed batch
│   ├── IntegrityError     bytes that no longer match the digest that names them
│   └── LeakError          a column or a value that was not known at prediction time
├── NotApproved            the bytes at hand were never approved, or were rejected                  not retryable
├── Unmeasurable           no number can be computed: empty, NaN, or one class only               not retryable
├── StaleWriter            another holder has a newer fencing epoch; this one must stop            not retryable
├── LeaseHeld              another release holds the lease now                                    retryable
├── CompareAndSwapFailed   the document changed between read and write                            retryable
├── JobFailed              a stage job ended without a result                                     retryable
├── Unavailable            endpoint, registry or store does not answer                            retryable
└── MissingExtra           an optional package is absent; the text names what to install          not retryable

Texts say in this order: what happened, the value, what was allowed, what to do next.
"""


class ClearwayError(Exception):
    """Base of the tree. `is_retryable` is read in one place only, the operator's outcome table."""

    is_retryable = False


class ConfigError(ClearwayError, ValueError):
    """A person's text is wrong."""


class DataError(ClearwayError):
    """Bytes are wrong."""


class BatchConflict(DataError):
    """A batch id came back with other bytes."""


class BatchQuarantined(DataError):
    """A batch may not be published; it was set aside with its reason."""


class IntegrityError(DataError):
    """Bytes do not match their digest."""


class LeakError(DataError):
    """A value was used before it could be known."""


class NotApproved(ClearwayError):
    """No approval on record covers exactly these bytes."""


class Unmeasurable(ClearwayError, ValueError):
    """A measure has no value on these numbers; a gate turns it into Verdict.ERROR, never into a number."""


class StaleWriter(ClearwayError):
    """The fencing epoch of this writer is no longer the newest."""


class LeaseHeld(ClearwayError):
    """Another holder owns the release lease."""

    is_retryable = True


class CompareAndSwapFailed(ClearwayError):
    """The stored version is not the one that was read."""

    is_retryable = True


class JobFailed(ClearwayError):
    """A stage job ended without a result."""

    is_retryable = True


class Unavailable(ClearwayError):
    """A service we need does not answer."""

    is_retryable = True


class MissingExtra(ClearwayError):
    """An optional package is not installed."""
