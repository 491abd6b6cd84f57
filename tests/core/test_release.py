"""The loop as data: ids, keys, chains, approvals, claims; and a whole release over jobs that only replay answers."""

import dataclasses
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearway.contracts.codec import to_jsonable
from clearway.contracts.errors import ConfigError
from clearway.contracts.manifest import canonical_json, sha256_of
from clearway.contracts.refs import DatasetRef, ModelRef, RawRef, RolloutStatus, YardsticksRef
from clearway.contracts.verdict import Verdict
from clearway.deploy import spec as deploy
from clearway.evaluate import spec as evaluate
from clearway.infra.clock import FakeClock, parse_instant
from clearway.infra.environment import Approve, Environment
from clearway.infra.evaluations import evaluation_uri
from clearway.infra.jobs import JobSpec, JobState
from clearway.infra.layout import Layout
from clearway.infra.storage import open_storage
from clearway.ingest import spec as ingest
from clearway.preprocess import spec as preprocess
from clearway.product import LoadedProduct
from clearway.release import (
    RELEASE,
    Request,
    batch_request,
    claim_evidence,
    job_spec,
    release_id,
    release_request,
    run_release,
    standing_answer,
    stops,
)
from clearway.train import spec as train
from clearway.tune import spec as tune
from clearway.validate import spec as validate

AS_OF = parse_instant("2013-04-01")
DIGEST = "a" * 64
MODEL = ModelRef(uri="file:///model", digest="b" * 64)


class ReplayRunner:
    """A JobRunner whose jobs have ended already, with the Outputs it was given; it remembers what was asked."""

    def __init__(self, env: Environment, product: str, verdicts: dict[str, Verdict] | None = None) -> None:
        self.asked: list[JobSpec] = []
        self._env, self._product, self._verdicts = env, product, verdicts or {}
        self._results: dict[str, str] = {}

    def submit(self, spec: JobSpec) -> str:
        self.asked.append(spec)
        outputs = self._outputs(spec.stage, json.loads(spec.inputs_json)["release_id"])
        self._results[spec.key] = json.dumps(to_jsonable(outputs))
        return spec.key

    def state(self, job_id: str) -> JobState:
        return JobState.SUCCEEDED if job_id in self._results else JobState.FAILED

    def result(self, job_id: str) -> str:
        return self._results[job_id]

    def read_log(self, job_id: str, offset: int) -> tuple[str, int]:
        return "", offset

    def attempts(self, key: str) -> tuple[str, ...]:
        return (key,) if key in self._results else ()

    def usage(self, job_id: str) -> None:
        return None

    def cancel(self, job_id: str) -> None:
        del self._results[job_id]

    def _outputs(self, stage: str, run: str) -> Any:
        said = {"verdict": self._verdicts.get(stage, Verdict.PASS), "reason": "measured"}
        if stage == "evaluate":
            return evaluate.Outputs(
                **said, model=MODEL, report_uri="file:///page", **self._evaluation(run, said["verdict"])
            )
        data = DatasetRef(uri="file:///data", digest=DIGEST)
        made = {
            "ingest": lambda: ingest.Outputs(
                **said,
                raw=RawRef(uri="file:///raw", digest=DIGEST),
                end="2013-04-01T00:00:00Z",
                num_batches=13,
                num_new=13,
            ),
            "preprocess": lambda: preprocess.Outputs(
                **said, dataset=data, num_rows=9, num_labelled=8, num_batches_computed=13
            ),
            "validate": lambda: validate.Outputs(**said, receipt_uri="file:///receipt", report_uri="file:///page"),
            "tune": lambda: tune.Outputs(**said, num_trials=2, params={"lr": 0.002}),
            "yardsticks": lambda: evaluate.YardsticksOutputs(
                **said, yardsticks=YardsticksRef(uri="file:///yardsticks", digest=DIGEST)
            ),
            "train": lambda: train.Outputs(**said, model=MODEL, mlflow_run_id="1", duration_s=1.0),
            "deploy": lambda: deploy.Outputs(**said, status=RolloutStatus(uri=MODEL.uri, digest=MODEL.digest)),
        }
        return made[stage]()

    def _evaluation(self, run: str, verdict: Verdict) -> dict[str, str]:
        text = canonical_json({"model_digest": MODEL.digest, "dataset_digest": DIGEST, "verdict": verdict.value})
        uri = evaluation_uri(Layout(self._env.store_root, self._product), run)
        open_storage(self._env.store_root).write(uri, text)
        return {"evaluation_uri": uri, "evaluation_digest": sha256_of(text)}


def walk(env: Environment, product: LoadedProduct, verdicts: dict[str, Verdict] | None = None, **asked: Any) -> Any:
    runner = ReplayRunner(env, product.name, verdicts)
    request = release_request(product.spec, "r-1", as_of=AS_OF, **asked)
    ended = run_release(env, product, request, runner=runner, clock=FakeClock())
    return ended, [spec.stage for spec in runner.asked], runner


@pytest.fixture
def auto(env: Environment) -> Environment:
    return env.model_copy(update={"approve": Approve(mode="auto")})


def test_a_release_walks_every_stage_and_hands_references_on(auto: Environment, flights: LoadedProduct) -> None:
    ended, stages, runner = walk(auto, flights)
    assert ended.verdict is Verdict.PASS
    assert list(ended.done) == [step.name for step in RELEASE]
    assert stages == [step.name for step in RELEASE if step.name != "approve"]
    inputs = {spec.stage: json.loads(spec.inputs_json) for spec in runner.asked}
    assert inputs["train"]["params"] == {"lr": 0.002}
    assert inputs["train"]["receipt_uri"] == "file:///receipt"
    assert inputs["deploy"]["model"]["digest"] == MODEL.digest
    assert inputs["deploy"]["approval_uri"] == ended.done["approve"].approval_uri


@pytest.mark.parametrize(
    "stage", ["ingest", "preprocess", "validate", "tune", "train", "yardsticks", "evaluate", "deploy"]
)
def test_a_fail_ends_the_release_there(auto: Environment, flights: LoadedProduct, stage: str) -> None:
    ended, stages, _ = walk(auto, flights, {stage: Verdict.FAIL})
    assert ended.verdict is Verdict.FAIL
    assert ended.reason == f"{stage}: measured"
    assert stages[-1] == stage


def test_an_inconclusive_evaluation_is_refused_where_answers_are_automatic(
    auto: Environment, flights: LoadedProduct
) -> None:
    ended, stages, _ = walk(auto, flights, {"evaluate": Verdict.INCONCLUSIVE})
    assert (ended.verdict, stages[-1]) == (Verdict.FAIL, "evaluate")
    record = json.loads(open_storage(auto.store_root).read(ended.done["approve"].approval_uri))
    assert (record["answer"], record["answered_by"]) == ("reject", "local profile (auto)")
    assert "inconclusive" in record["note"]


def test_an_automatic_answer_says_who_gave_it(auto: Environment, flights: LoadedProduct) -> None:
    ended, _, _ = walk(auto, flights)
    record = json.loads(open_storage(auto.store_root).read(ended.done["approve"].approval_uri))
    assert record["answered_by"] == "local profile (auto)"


@pytest.mark.parametrize(
    ("tier", "evaluated", "mode", "asked", "answer"),
    [
        ("low", Verdict.PASS, "person", "default", "not_required"),
        ("low", Verdict.PASS, "person", "person", None),
        ("low", Verdict.INCONCLUSIVE, "person", "auto", None),
        ("low", Verdict.INCONCLUSIVE, "auto", "person", None),
        ("low", Verdict.INCONCLUSIVE, "auto", "default", "reject"),
        ("high", Verdict.INCONCLUSIVE, "auto", "auto", "reject"),
        ("medium", Verdict.PASS, "person", "default", None),
        ("medium", Verdict.PASS, "person", "auto", None),
        ("medium", Verdict.PASS, "auto", "default", "auto"),
        ("high", Verdict.PASS, "auto", "person", None),
    ],
)
def test_who_is_asked(
    flights: LoadedProduct, tier: str, evaluated: Verdict, mode: str, asked: str, answer: str | None
) -> None:
    product = flights.spec.model_copy(update={"risk_tier": tier})
    found = standing_answer(product, evaluated, mode=mode, asked=asked)
    assert (found.answer if found else None) == answer


@given(st.sampled_from([step.name for step in RELEASE]), st.sampled_from(Verdict))
def test_only_pass_advances_save_for_a_person_to_look_at(step: str, verdict: Verdict) -> None:
    goes_on = verdict is Verdict.PASS or (step == "evaluate" and verdict is Verdict.INCONCLUSIVE)
    assert stops(step, verdict) is not goes_on


@given(st.text(max_size=300), st.text(max_size=300))
def test_release_ids_are_short_safe_names_and_never_shared(first: str, second: str) -> None:
    name = release_id("flights_release", first)
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]{0,68}", name)
    assert (release_id("flights_release", second) == name) == (first == second)
    assert release_id("flights_monitor", first) != name


def test_the_same_inputs_are_the_same_job_and_a_new_epoch_another() -> None:
    def key(**changes: Any) -> str:
        epoch = changes.pop("epoch", 0)
        inputs = ingest.Inputs(product="flights", release_id="r-1", start="2012-12-31", end="2013-04-01")
        return job_spec("ingest", dataclasses.replace(inputs, **changes), epoch=epoch).key

    assert key() == key()
    assert len({key(), key(end="2013-04-08"), key(release_id="r-2"), key(epoch=1)}) == 4


def test_evidence_is_claimed_once(env: Environment, flights: LoadedProduct) -> None:
    def ask(run: str) -> Request:
        return release_request(flights.spec, run, as_of=AS_OF, evidence=("c" * 64, "d" * 64))

    assert claim_evidence(env, ask("first")) == "first"
    assert claim_evidence(env, ask("second")) == "first"
    assert claim_evidence(env, ask("first")) == "first"


def test_a_release_on_claimed_evidence_does_nothing(auto: Environment, flights: LoadedProduct) -> None:
    claim_evidence(auto, release_request(flights.spec, "other", as_of=AS_OF, evidence=("c" * 64,)))
    ended, stages, _ = walk(auto, flights, evidence=("c" * 64,))
    assert (ended.verdict, stages) == (Verdict.FAIL, [])
    assert "release other already acts" in ended.reason


def test_a_batch_brings_its_look_back(flights: LoadedProduct) -> None:
    request = batch_request(flights.spec, "r", start=parse_instant("2013-04-01"))
    assert (request.start, request.end, request.batch_id) == (
        "2013-04-01T00:00:00Z",
        "2013-04-08T00:00:00Z",
        "2013-04-01",
    )
    assert parse_instant(request.window_start) < parse_instant(request.start)


def test_requests_off_the_clock_are_refused(flights: LoadedProduct) -> None:
    with pytest.raises(ConfigError, match="does not start a week"):
        batch_request(flights.spec, "r", start=parse_instant("2013-04-02"))
    with pytest.raises(ConfigError, match="covers no whole week"):
        release_request(flights.spec, "r", as_of=parse_instant("2013-01-02"))
