"""What training leaves in MLflow: one run per release and one for its study, a registered version per model digest, an
alias.

MLflow is a record for people. Nothing is routed by it and nothing is loaded from it; when it is down the package exists
all the same, and the next attempt only writes the record. All calls are safe to repeat.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from clearway.contracts.errors import Unavailable
from clearway.infra.clock import Clock, SystemClock
from clearway.infra.environment import Environment

LOG = logging.getLogger("clearway.tracking")
T = TypeVar("T")
TAG_RELEASE, TAG_JOB, TAG_DIGEST = "clearway.release_id", "clearway.job", "clearway.digest"
CHAMPION = "champion"
ATTEMPTS, PAUSE_S, HTTP_TIMEOUT_S = 3, 1.0, 10
# Limits of one log-batch request of the MLflow REST API.
MAX_PARAMS, MAX_METRICS, MAX_VALUE_CHARS = 100, 1000, 6000


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One point of a curve."""

    name: str
    value: float
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One finished training or study.

    Args:
        product: name of the experiment.
        release_id: name of the run; with `job` it identifies the run, so a repeated call finds it.
        job: digest of all that decided the result.
        started_s, ended_s: Unix seconds; kept by the caller, so that repeating the call repeats the same points.
        pages: file name → HTML, kept with the run as artifacts.
    """

    product: str
    release_id: str
    job: str
    started_s: float
    ended_s: float
    params: dict[str, Any]
    metrics: tuple[Metric, ...]
    tags: dict[str, str] = field(default_factory=dict)
    pages: dict[str, str] = field(default_factory=dict)


class Tracking:
    """A client of one MLflow server or SQLite file. Every method raises Unavailable after a few quick attempts."""

    def __init__(self, client: Any, *, artifact_root: str | None, clock: Clock) -> None:
        self._client, self._artifact_root, self._clock = client, artifact_root, clock

    def log_run(self, record: RunRecord) -> str:
        """Write the record, or complete the one an earlier attempt began; returns the run id."""
        return self._patiently(lambda: self._log_run(record))

    def register(self, name: str, *, digest: str, run_id: str, tags: dict[str, str]) -> str:
        """The registered version of this digest, made if there is none; returns its number."""
        return self._patiently(lambda: self._register(name, digest, run_id, tags))

    def set_alias(self, name: str, *, version: str, alias: str = CHAMPION) -> None:
        """Point an alias at a version."""
        self._patiently(lambda: self._client.set_registered_model_alias(name, alias, version))

    def alias_digest(self, name: str, *, alias: str = CHAMPION) -> str | None:
        """Digest of the model the alias points at, None if there is no such alias."""
        return self._patiently(lambda: self._alias_digest(name, alias))

    def _log_run(self, record: RunRecord) -> str:
        from mlflow.entities import Metric as Point
        from mlflow.entities import Param

        experiment = self._experiment(record.product)
        run_id = self._find_or_create(experiment, record)
        stamp_ms = int(record.ended_s * 1000)
        points = [Point(m.name, m.value, stamp_ms, m.step) for m in record.metrics]
        params = [Param(key, str(value)[:MAX_VALUE_CHARS]) for key, value in sorted(record.params.items())]
        for start in range(0, len(params), MAX_PARAMS):
            self._client.log_batch(run_id, params=params[start : start + MAX_PARAMS])
        for start in range(0, len(points), MAX_METRICS):
            self._client.log_batch(run_id, metrics=points[start : start + MAX_METRICS])
        for name, text in record.pages.items():
            self._client.log_text(run_id, text, name)
        self._client.set_terminated(run_id, "FINISHED", stamp_ms)
        return run_id

    def _experiment(self, product: str) -> str:
        found = self._client.get_experiment_by_name(product)
        if found is not None:
            return str(found.experiment_id)
        location = f"{self._artifact_root}/{product}" if self._artifact_root else None
        return str(self._client.create_experiment(product, artifact_location=location))

    def _find_or_create(self, experiment: str, record: RunRecord) -> str:
        query = f"tags.`{TAG_RELEASE}` = '{record.release_id}' and tags.`{TAG_JOB}` = '{record.job}'"
        found = self._client.search_runs([experiment], query, max_results=1)
        if found:
            return str(found[0].info.run_id)
        tags = record.tags | {TAG_RELEASE: record.release_id, TAG_JOB: record.job}
        run = self._client.create_run(
            experiment, start_time=int(record.started_s * 1000), tags=tags, run_name=record.release_id
        )
        return str(run.info.run_id)

    def _register(self, name: str, digest: str, run_id: str, tags: dict[str, str]) -> str:
        if not self._client.search_registered_models(f"name = '{name}'"):
            self._client.create_registered_model(name)
        found = [v for v in self._client.search_model_versions(f"name = '{name}'") if v.tags.get(TAG_DIGEST) == digest]
        if found:
            return str(min(found, key=lambda v: int(v.version)).version)
        # A scheme of our own: the registry must not read, move or serve the files.
        made = self._client.create_model_version(
            name, source=f"clearway://{name}/{digest}", run_id=run_id, tags=tags | {TAG_DIGEST: digest}
        )
        return str(made.version)

    def _alias_digest(self, name: str, alias: str) -> str | None:
        models = self._client.search_registered_models(f"name = '{name}'")
        if not models or alias not in models[0].aliases:
            return None
        version = self._client.get_model_version_by_alias(name, alias)
        return version.tags.get(TAG_DIGEST)  # type: ignore[no-any-return]

    def _patiently(self, call: Callable[[], T]) -> T:
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415 - 0.3 s

        for attempt in range(1, ATTEMPTS + 1):
            try:
                return call()
            except (MlflowException, SQLAlchemyError) as error:  # the latter of a file without a server
                LOG.warning("MLflow attempt %d of %d: %s", attempt, ATTEMPTS, str(error)[:300])
                if attempt == ATTEMPTS:
                    raise Unavailable(
                        f"MLflow did not answer in {ATTEMPTS} attempts ({str(error)[:300]}); nothing else is lost, "
                        "run the stage again when it is up"
                    ) from error
                self._clock.sleep(PAUSE_S * attempt)
        raise AssertionError("unreachable")


def open_tracking(env: Environment, *, clock: Clock | None = None) -> Tracking:
    """The record keeper of this environment. Raises: Unavailable if the store cannot be opened."""
    from mlflow import MlflowClient
    from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES, MLFLOW_HTTP_REQUEST_TIMEOUT
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415

    # The library's own patience is minutes per call; ours is above.
    MLFLOW_HTTP_REQUEST_MAX_RETRIES.set(1)  # type: ignore[no-untyped-call]
    MLFLOW_HTTP_REQUEST_TIMEOUT.set(HTTP_TIMEOUT_S)  # type: ignore[no-untyped-call]
    artifact_root = None
    if not env.tracking_uri.startswith("http"):
        folder = env.home / "mlflow" / "artifacts"
        folder.mkdir(parents=True, exist_ok=True)
        artifact_root = folder.as_uri()
    try:
        client = MlflowClient(env.tracking_uri)
    except (MlflowException, SQLAlchemyError) as error:
        raise Unavailable(f"MLflow at {env.tracking_uri} cannot be opened: {error}; check tracking.uri") from error
    return Tracking(client, artifact_root=artifact_root, clock=clock or SystemClock())
