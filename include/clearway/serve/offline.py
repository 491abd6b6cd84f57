"""Score a landed batch beside the endpoint: by a job that starts its image with the released model, and ends.

    <store>/<product>/scored/<name>/    one batch by one model, in one image
        0001/input/00000.json …         requests; a further attempt only after a job failed or was stopped
        0001/started.json               once SageMaker has taken the order
        0001/output/00000.json.out …    answers
        scores.parquet, scored.json     what came of it

The name follows from what is scored and by what, so whoever asks again is handed the same job, or its result. The
prediction log is left alone: nobody was answered.
"""

import dataclasses
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from clearway.contracts.codec import from_jsonable, to_jsonable
from clearway.contracts.errors import ConfigError, IntegrityError, JobFailed
from clearway.contracts.manifest import canonical_json, sha256_of
from clearway.infra.aws.container import OFFLINE_VARIABLE, model_variables, variables_of
from clearway.infra.aws.services import HOME, Order, Seen, Service
from clearway.infra.aws.tags import tags_of
from clearway.infra.aws.transform import ANSWER, INPUT, OUTPUT
from clearway.infra.cost.prices import lines_of, read_prices, total
from clearway.infra.faults import fault
from clearway.infra.layout import Layout
from clearway.infra.release_store import open_release_store
from clearway.infra.storage import join, open_storage, read_if_there
from clearway.serve.sending import TableRows

if TYPE_CHECKING:
    import pyarrow as pa

    from clearway.infra.clock import Clock
    from clearway.infra.environment import Environment
    from clearway.product import LoadedProduct

log = logging.getLogger("clearway.serve")

STARTED, RESULT, SCORES = "started.json", "scored.json", "scores.parquet"
STOPPED = "ran out of its time"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """`digest`: of the model; `hours`: of machines, billed; `cost`: None where the price table lacks one."""

    product: str
    batch_id: str
    digest: str
    uri: str
    num_rows: int
    job: str
    hours: float
    cost: float | None


class Offline:
    """One batch of one product. Raises of every call: ConfigError, Unavailable."""

    def __init__(
        self, batch_id: str, *, product: "LoadedProduct", env: "Environment", service: Service, clock: "Clock"
    ) -> None:
        self._batch_id, self._product, self._env = batch_id, product, env
        self._service, self._clock = service, clock
        self._storage, self._layout = open_storage(env.store_root), Layout(env.store_root, product.name)
        if not env.store_root.startswith("s3://"):
            raise ConfigError(
                f"the store is {env.store_root}; SageMaker reads from S3 alone, so set CLEARWAY_ENV=aws and "
                "CLEARWAY__STORAGE__ROOT, or score the batch through the endpoint (stage serve)"
            )
        if product.spec.features.text is not None:
            raise ConfigError(
                f"product {product.name!r} has a {product.spec.model.kind} model; batches are scored for tabular ones"
            )
        champion = open_release_store(env).read(product.name)[0].champion
        if champion is None:
            raise ConfigError(f"product {product.name!r} has no released model; release one, then run it again")
        self._digest, self._sending = champion.digest, TableRows(product.spec.features.columns)
        container = {**variables_of(env, home=HOME), OFFLINE_VARIABLE: "true"}
        self._variables = container | model_variables(champion.uri, champion.digest)
        self._features = self._published()
        made_of = [self._features[1], self._sending.columns, self._variables, env.sagemaker.image]
        self._stem = sha256_of(canonical_json(made_of))[:20]
        self._folder = self._layout.scored(self._stem)

    def score(self) -> Scored:
        """The result, made now or earlier.

        Raises: JobFailed with SageMaker's reason, after which asking again orders another job; IntegrityError for
        answers that are not of this model, or not one per row.
        """
        if (known := read_if_there(self._storage, join(self._folder, RESULT))) is not None:
            return from_jsonable(Scored, json.loads(known))
        table = self._rows()
        folder, job = self._ordered(table)
        seen = self._waited(job)
        if not seen.has_succeeded:
            raise JobFailed(f"job {job} scored nothing: {seen.reason}; look at its log, then ask again: another begins")
        return self._gathered(table, folder, job, seen)

    def stop(self) -> str:
        """Stop the job, if one runs; its name, or ""."""
        number = self._last()
        if not number or not self._service.look(job := self._name(number)).is_running:
            return ""
        self._service.stop(job)
        return job

    def _ordered(self, table: "pa.Table") -> tuple[str, str]:
        """Folder and id of the job that runs or has ended well, or of one that begins now."""
        number = self._last()
        if number:
            seen = self._service.look(self._name(number))
            if seen.is_running or seen.has_succeeded:
                return self._attempt(number), self._name(number)
        number += 1
        folder = self._attempt(number)
        for name, body in self._requests(table):
            self._storage.create(join(folder, INPUT, name), body)
        fault("offline.before_order")
        team, product = self._product.spec.owners[0], self._product.name
        order = Order(
            name=self._name(number),
            command=(),
            variables=self._variables,
            folder=folder,
            stage="serve",
            max_seconds=int(self._env.jobs.max_seconds),
            tags=tags_of(self._env, team=team, product=product, stage="serve", job=self._name(number)),
        )
        job = self._service.start(order)
        fault("offline.before_note")
        self._storage.write(join(folder, STARTED), json.dumps({"id": job}).encode())
        log.info("job %s scores %s rows", job, len(table))
        return folder, job

    def _waited(self, job: str) -> Seen:
        """Until it has ended; stopped once it has had its time."""
        limit_s, since_s, is_late = self._env.jobs.max_seconds, self._clock.now_s(), False
        while (seen := self._service.look(job)).is_running:
            if not is_late and self._clock.now_s() - (seen.begin_s or since_s) >= limit_s:
                self._service.stop(job)
                is_late = True
            self._clock.sleep(self._env.jobs.poll_s)
        return dataclasses.replace(seen, reason=f"{STOPPED}, {limit_s:g} s") if is_late else seen

    def _gathered(self, table: "pa.Table", folder: str, job: str, seen: Seen) -> Scored:
        import pyarrow as pa  # noqa: PLC0415

        from clearway.infra.datasets import KEY, TIME  # noqa: PLC0415 - pyarrow
        from clearway.infra.parquet import to_parquet  # noqa: PLC0415

        scores: list[float] = []
        for number, part in enumerate(self._sending.portions(table)):
            place = join(folder, OUTPUT, f"{number:05d}.json{ANSWER}")
            answer = json.loads(read_if_there(self._storage, place) or b"{}")
            found, digest = answer.get("predictions", ()), answer.get("model_digest", "nobody")
            if digest != self._digest or len(found) != len(part):
                raise IntegrityError(
                    f"{place} holds {len(found)} answers of {digest[:12]}, not {len(part)} of {self._digest[:12]}; "
                    f"delete {self._folder}, then ask again"
                )
            scores += found
        uri = join(self._folder, SCORES)
        made = pa.table({KEY: table[KEY], TIME: table[TIME], "score": pa.array(scores, pa.float64())})
        self._storage.write(uri, to_parquet(made))
        lines = lines_of(seen.used or (), prices=read_prices(self._env), env=self._env)
        scored = Scored(
            product=self._product.name,
            batch_id=self._batch_id,
            digest=self._digest,
            uri=uri,
            num_rows=len(table),
            job=job,
            hours=sum(line.hours for line in lines),
            cost=total([line.cost for line in lines]),
        )
        self._storage.write(join(self._folder, RESULT), canonical_json(to_jsonable(scored)))
        return scored

    def _published(self) -> tuple[str, str]:
        """Address and digest of the batch's features."""
        from clearway.infra.datasets import FEATURES_FILE  # noqa: PLC0415 - pyarrow
        from clearway.infra.snapshots import current  # noqa: PLC0415

        snapshot = current(self._storage, self._layout.features(self._batch_id))
        if snapshot is None:
            raise ConfigError(
                f"batch {self._batch_id!r} of product {self._product.name!r} has no features; give one that has landed "
                "and was preprocessed, as in 2013-05-06"
            )
        return snapshot.file_uri(FEATURES_FILE), snapshot.digest

    def _rows(self) -> "pa.Table":
        from clearway.infra.datasets import KEY, TIME  # noqa: PLC0415 - pyarrow
        from clearway.infra.parquet import read_parquet  # noqa: PLC0415

        table = read_parquet(self._features[0], columns=[KEY, TIME, *self._sending.columns])
        if len(table) == 0:
            raise ConfigError(f"batch {self._batch_id!r} has no rows to score")
        return table

    def _requests(self, table: "pa.Table") -> Iterator[tuple[str, bytes]]:
        columns = self._sending.columns
        for number, part in enumerate(self._sending.portions(table)):
            data = list(zip(*(part[name].to_pylist() for name in columns), strict=True))
            yield f"{number:05d}.json", msgspec.json.encode({"dataframe_split": {"columns": columns, "data": data}})

    def _last(self) -> int:
        """Number of the newest attempt whose order was taken; 0 for none."""
        found = (uri.removeprefix(self._folder).strip("/").split("/") for uri in self._storage.list(self._folder))
        return max((int(parts[0]) for parts in found if parts[-1] == STARTED), default=0)

    def _attempt(self, number: int) -> str:
        return join(self._folder, f"{number:04d}")

    def _name(self, number: int) -> str:
        return f"clearway-score-{self._stem}-{number}"
