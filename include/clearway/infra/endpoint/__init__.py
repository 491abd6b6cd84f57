"""The live endpoint: load a version, set traffic, and verify what really answers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from clearway.contracts.errors import ConfigError
from clearway.contracts.observed import Mirrored, Observed
from clearway.infra.environment import Environment


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficState:
    """What an endpoint says of itself.

    Args:
        weights_pct: digest → weight in percent.
        loaded: digests that are loaded and ready.
        epoch: newest epoch seen.
        mirror: digest of the version that is given copies of requests; None for none.
        dead_man: digest of the version that takes over when the controller falls silent; None while none is armed.
        broken: digest → why the endpoint itself took the version out of service, in words. It has given the version's
            traffic to the stable one, and the version is not loaded any more; loading it again makes a fresh start.
        unaskable: loaded versions that nobody can ask directly now, because they are given copies of requests.
    """

    weights_pct: dict[str, float]
    loaded: tuple[str, ...]
    epoch: int
    mirror: str | None = None
    dead_man: str | None = None
    broken: dict[str, str] = field(default_factory=dict)
    unaskable: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadMan:
    """Give all traffic to `stable` when the writer of this epoch is not heard of for `after_s` seconds."""

    stable: str
    after_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """Give version `digest` copies of the requests that callers make, answers unheard; `columns` name the slices."""

    digest: str
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedRows:
    """Rows to score as the product's callers do, with what the prediction log keeps of them.

    Args:
        columns: names of the values of each row.
        rows: one sequence of values per row, None where missing.
        keys: join key per row.
        event_times: when the predicted thing is scheduled, ISO 8601 UTC, per row.
        batch_id: batch the rows belong to.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    keys: Sequence[str]
    event_times: Sequence[str]
    batch_id: str

    def body(self) -> dict[str, Any]:
        """As a request carries them."""
        return {
            "dataframe_split": {"columns": self.columns, "data": self.rows},
            "keys": self.keys,
            "event_times": self.event_times,
            "batch_id": self.batch_id,
        }


class Endpoint(Protocol):
    """A model server that several versions can share; every implementation passes the same conformance suite."""

    def load(self, *, uri: str, digest: str, epoch: int) -> None:
        """Load a package beside the others, verify its digest and warm it up; loading twice is a no-op.

        Where the endpoint has no place for it while copies of requests are given, they end.

        Raises: IntegrityError, StaleWriter (epoch older than the endpoint has seen), Unavailable.
        """
        ...

    def set_weights(
        self,
        weights_pct: dict[str, float],
        *,
        epoch: int,
        dead_man: DeadMan | None = None,
        mirror: Mirror | None = None,
    ) -> None:
        """Switch traffic atomically. Weights are finite, >= 0 and sum to 100; an empty table takes all traffic away.

        A version that gives no answer has its callers answered by the stable one: whom `dead_man` names if it takes
        traffic, else one that held all traffic before, else the one with the largest share.

        `dead_man` and `mirror` replace those before; without them none is armed, nothing is mirrored.
        Raises: StaleWriter, ConfigError (bad table, version not loaded, mirror to the stable version itself; nothing
            changed), Unavailable.
        """
        ...

    def observe(self, *, epoch: int) -> Observed:
        """What every version did for callers; a sign of life for the dead-man timer.

        Raises: StaleWriter, Unavailable.
        """
        ...

    def mirrored(self, *, first: int, epoch: int) -> Mirrored:
        """Rows that both versions were given, from number `first` of the newest log on, some thousands at most.

        Starts at the oldest row kept if `first` is gone; no rows if nothing was mirrored. A sign of life as `observe`.
        Raises: StaleWriter, Unavailable.
        """
        ...

    def state(self) -> TrafficState:
        """What is loaded and what takes traffic. Raises: Unavailable."""
        ...

    def predict(self, rows: list[dict[str, Any]], *, digest: str | None = None) -> tuple[list[float], str]:
        """Scores and the digest of the model that answered; never logged.

        `digest` asks one loaded version directly; without it the live traffic table chooses, as for any caller.
        Raises: Unavailable (also when nothing takes traffic), ConfigError for rows the model refuses, or a version that
            is `unaskable`.
        """
        ...

    def examples(self, digest: str) -> list[dict[str, Any]]:
        """Rows that a loaded version certainly takes, for probes that need no storage. Raises: Unavailable."""
        ...

    def unload(self, digest: str, *, epoch: int) -> None:
        """Drop a version; one that is not loaded is a no-op. Raises: StaleWriter, ConfigError if it takes traffic."""
        ...

    def score_logged(self, batch: LoggedRows) -> tuple[list[float], str]:
        """Scores and the digest that answered; every row enters the prediction log. Raises as `predict`."""
        ...

    def flush_log(self) -> None:
        """Return once every prediction logged before this call can be read from storage. Raises: Unavailable."""
        ...


def check_strategies(env: Environment, chain: Sequence[str]) -> None:
    """Raises: ConfigError if this environment's endpoint cannot carry a rollout of these strategies."""
    if env.endpoint.kind != "sagemaker":
        return
    if "ab_test" in chain:
        raise ConfigError(
            "rollout strategy ab_test cannot run on a SageMaker endpoint, which takes no outcomes and keeps no caller "
            "with a version; allowed: blue_green, canary, watch, shadow before one of them, or endpoint.kind local"
        )
    if "shadow" in chain and (problem := shadow_problem(env)):
        raise ConfigError(f"rollout strategy shadow cannot run on this SageMaker endpoint: {problem}")


def shadow_problem(env: Environment) -> str:
    """Why this environment's SageMaker endpoint can give nobody copies of requests; "" where it can."""
    settings = env.sagemaker
    if not settings.capture_pct:
        return "sagemaker.capture_pct is 0, so nothing would be known of their answers; set it above 0"
    if settings.shifting:
        return (
            f"sagemaker.shifting is {settings.shifting!r}, for which variants must keep their names, and SageMaker "
            "allows one production variant beside a shadow; leave shifting and alarms empty, or shadow out"
        )
    return ""


def open_endpoint(env: Environment, *, product: str) -> Endpoint:
    """The endpoint of a product. Raises: ConfigError."""
    if env.endpoint.kind == "sagemaker":
        from clearway.infra.aws.endpoint import open_sagemaker  # noqa: PLC0415 - what one machine never needs

        return open_sagemaker(env, product=product)
    from clearway.infra.endpoint.local import LocalEndpoint  # noqa: PLC0415 - only jobs talk to an endpoint

    return LocalEndpoint(
        env.endpoint.url_of(product),
        product=product,
        token_file=env.admin_token_file,
        timeout_s=env.endpoint.timeout_s,
    )
