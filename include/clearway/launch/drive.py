"""What the commands that drive a running stack share: connect, play weeks, give the account."""

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from time import monotonic, sleep
from types import FrameType
from typing import Any

from clearway.contracts.codec import to_jsonable
from clearway.contracts.errors import ConfigError, JobFailed, Unavailable
from clearway.contracts.rollout import ALL_TRAFFIC_PCT
from clearway.devices.fits import check_fits
from clearway.infra.endpoint import open_endpoint
from clearway.infra.environment import Environment
from clearway.infra.release_store import open_release_store
from clearway.launch.account import closing_of, makers_of, read_releases, times_of
from clearway.launch.airflow_api import AirflowApi
from clearway.launch.drill import Drilled, drill
from clearway.launch.example_request import try_example
from clearway.launch.plant import planted
from clearway.launch.replay import Loop, Played, batch_ids, is_enough
from clearway.launch.run_view import RunView
from clearway.launch.sabotage import Defect
from clearway.launch.served import measure_served
from clearway.launch.stack import check_serves, connected, running_stack
from clearway.launch.state import StackState
from clearway.launch.summary import summarise_stack
from clearway.product import LoadedProduct

# The DAG processor looks for files every few seconds; its first parse imports Airflow once more.
DAGS_TIMEOUT_S = 90.0


class Driver:
    """One command's hold on a running stack; use as a context manager."""

    def __init__(self, env: Environment, product: LoadedProduct, state: StackState, view: RunView) -> None:
        self.env, self.product, self.state, self.view = connected(env, state), product, state, view
        self.api = AirflowApi(state.airflow_url)
        self.loop = Loop(self.api, product.name, on_tasks=view.tasks)

    def __enter__(self) -> "Driver":
        check_serves(self.state, self.product.name)
        check_fits(self.product.spec.resources, self.env.devices.classes)
        self._wait_for_dags()
        return self

    def __exit__(self, *_: object) -> None:
        self.view.close()
        self.api.close()

    def _wait_for_dags(self) -> None:
        deadline = monotonic() + DAGS_TIMEOUT_S
        missing = {f"{self.product.name}_{verb}" for verb in ("ingest", "release", "monitor")}
        while missing := {d for d in missing if not self.api.has_dag(d)}:
            if monotonic() > deadline:
                errors = "\n".join(self.api.import_errors()) or "no import errors are reported"
                raise ConfigError(f"Airflow does not know {sorted(missing)} after {DAGS_TIMEOUT_S:.0f} s; {errors}")
            sleep(0.3)

    def weeks_after_first(self, count: int) -> list[str]:
        """Batch ids after the first release's data."""
        spec = self.product.spec
        return list(islice(batch_ids(spec.batch, first_end=spec.release.first_end), count))

    def first_release(self) -> bool:
        """The release on the first months; whether a model serves after it."""
        first_end = self.product.spec.release.first_end
        self.view.say(f"First release of {self.product.name}: everything known on {first_end:%d %B %Y}")
        name = f"first-{first_end:%Y-%m-%d}"
        self.loop.release(name, as_of=first_end, note="first release, by `python -m clearway run`")
        document, _ = open_release_store(self.env).read(self.product.name)
        return document.champion is not None

    def play(self, *, weeks: int | None, skip: int = 0) -> list[Played]:
        """Play batches until `is_enough`; the first `skip` after the first release's data are not played."""
        spec, played = self.product.spec, list[Played]()
        for batch_id in islice(batch_ids(spec.batch, first_end=spec.release.first_end), skip, None):
            if is_enough(played, weeks=weeks):
                break
            self._announce_fault(batch_id)
            self.view.say(f"{spec.batch.every.capitalize()} of {batch_id}")
            played.append(self.loop.batch(batch_id))
            self.view.say(_became(played[-1]))
        return played

    def _announce_fault(self, batch_id: str) -> None:
        fault = planted(self.env, self.product.name)
        if fault is not None and fault["from"] == batch_id:
            self.view.say(f"  !! PLANTED FAULT: {fault['fault']} in this batch and every later one !!")

    def check_serving(self) -> None:
        """The live endpoint gives all traffic to the champion on record. Raises: JobFailed otherwise."""
        champion = open_release_store(self.env).read(self.product.name)[0].champion
        weights = open_endpoint(self.env, product=self.product.name).state().weights_pct
        if champion is None or weights != {champion.digest: ALL_TRAFFIC_PCT}:
            raise JobFailed(
                f"live traffic is {weights}, but the champion on record is {champion.digest if champion else None}; "
                "something moved it outside a release, look into the model server's log"
            )

    def drill(self) -> list[Drilled]:
        """Plant a slow, a wrong and a crashing model, each to its end; none where rollouts compare nothing."""
        if not self.product.spec.rollout.num_judging:
            return []
        drilled = []
        for defect in Defect:
            self.view.say(f"  !! PLANTED MODEL: a {defect.value} copy of the champion is released !!")
            drilled.append(drill(self.env, self.product, defect, say=self.view.say))
            self.view.say(f"  {_ended(drilled[-1])}")
        return drilled

    def account(self, played: list[Played], *, total_s: float, drilled: Sequence[Drilled] = ()) -> dict[str, Any]:
        """Everything that happened, as JSON values."""
        document, _ = open_release_store(self.env).read(self.product.name)
        makers = makers_of(document)
        served = measure_served(self.env, self.product, releases=makers)
        releases = read_releases(self.api, self.product.name, document=document, served=served)
        state = running_stack(self.env) or self.state
        times = to_jsonable(times_of(releases, played, healthy_s=state.ready_after_s))
        fault = planted(self.env, self.product.name)
        result: dict[str, Any] = {
            "product": self.product.name,
            "kind": self.product.spec.model.kind,
            "releases": to_jsonable(releases),
            "weeks": to_jsonable(played),
            "drills": to_jsonable(tuple(drilled)),
            "times": {**times, "total_s": round(total_s, 1)},
            "closing": to_jsonable(closing_of(releases, played)),
            "planted": [fault] if fault else [],
            "stack": summarise_stack(state, is_new=False),
        }
        if document.champion is not None:
            result |= to_jsonable(try_example(self.env, self.product.name, document.champion))
        return result


def _became(played: Played) -> str:
    if not played.is_landed:
        return "  refused by ingest (see its log); nothing published changes"
    text = f"  landed, predicted, watched in {played.seconds:.1f} s"
    if played.retrain:
        return f"{text}; retraining decided: {'a new champion serves' if played.is_promoted else 'the champion stays'}"
    return text


def _ended(drilled: Drilled) -> str:
    if not drilled.is_safe:
        return f"IT STAYED: {drilled.reason}"
    return f"went back by itself in {drilled.seconds:.1f} s, {drilled.cost}: {drilled.reason}"


def needed_stack(env: Environment) -> StackState:
    """The running stack. Raises: Unavailable if there is none."""
    state = running_stack(env)
    if state is None:
        raise Unavailable("no stack is running; start one with `make run` or `python -m clearway up --detach`")
    return state


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM unwind like Ctrl-C, so that what was started is stopped."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
