"""A study whose trials a tuning job does, on AWS as tests/moto_training.py models it: trials are real processes."""

import json
import os
import signal
import uuid
from dataclasses import replace

import pytest
from optuna.trial import TrialState

from aws_kit import account
from clearway.contracts.codec import to_jsonable
from clearway.contracts.errors import ConfigError, JobFailed
from clearway.infra.aws import tuning
from clearway.infra.aws.client import client
from clearway.infra.aws.services import Order
from clearway.infra.aws.tuning import SageMakerTuning, Search, TuningJobs, TuningSeen, ended_well, stem_of
from clearway.infra.cost.prices import most_per_hour
from clearway.infra.environment import Services, project_root
from clearway.product_tune import Range
from clearway.tune import trial
from clearway.tune.page import render
from clearway.tune.record import run_record
from clearway.tune.sagemaker import search_there, seconds_there
from forked_kit import run_code
from jobs_kit import wait_until
from shape_kit import misfits
from tune_kit import SPACE, Study, make_study

pytestmark = pytest.mark.slow
CHILD = """
import json, logging, sys
from pathlib import Path
from clearway.contracts.codec import from_jsonable
from clearway.infra.environment import Environment
from clearway.product import LoadedProduct
from clearway.tune.sagemaker import search_there
from clearway.tune.spec import Inputs
logging.basicConfig(level=logging.INFO)
message = json.load(sys.stdin)
product, env = LoadedProduct.model_validate(message["product"]), Environment.model_validate(message["env"])
inputs, folder = from_jsonable(Inputs, message["inputs"]), Path(message["folder"])
search_there(inputs, product=product, env=env, folder=folder, shared=message["shared"])
"""


@pytest.fixture
def there(aws, env, flights):
    """A study, in an account of its own; and where it lies."""
    return study_there(env, flights)


def study_there(env, flights, **tune) -> tuple[Study, str]:
    study = make_study(env, flights, **({"num_trials": 3, "sampler": "random"} | tune))
    cloud = account(study.env, stage=project_root() / "include" / "aws" / "clearway_job.py", services={})
    aws = {"tuning_parallel": 2, "tuning_job": f"clearway-tune-{uuid.uuid4().hex[:12]}"}
    jobs = cloud.jobs.model_copy(update={"poll_s": 0.1, "num_threads": 1})
    # The data set lies on this machine; all that a trial reads is in S3.
    near = {"storage": study.env.storage, "release_store": study.env.release_store, "jobs": jobs}
    cloud = cloud.model_copy(update=near | {"aws": cloud.aws.model_copy(update=aws)})
    bucket = cloud.aws.emr_code.split("/")[2]
    return replace(study, env=cloud), f"s3://{bucket}/store/flights/releases/r1/tune/one"


def searched(study: Study, shared: str):
    return search_there(study.inputs, product=study.product, env=study.env, folder=study.folder, shared=shared)


def in_a_child(study: Study, shared: str, **variables: str):
    message = {
        "env": study.env.model_dump(mode="json"),
        "product": study.product.model_dump(mode="json", by_alias=True),
        "inputs": to_jsonable(study.inputs),
        "folder": str(study.folder),
        "shared": shared,
    }
    return run_code(CHILD, json.dumps(message), variables=os.environ | variables)


def jobs_of(study: Study) -> list[str]:
    return TuningJobs(study.env.aws, stem=study.env.aws.tuning_job).names()


def test_a_tuning_jobs_trials_make_the_record_of_every_study(there):
    study, shared = there
    asked = []
    client("sagemaker").meta.events.register(
        "provide-client-params", lambda params, model, **_: asked.append((model, params))
    )
    found = searched(study, shared)
    for model, params in asked:
        assert list(misfits(model.input_shape, params, model.name)) == []
    entries = found.trials
    assert sorted(entries) == [0, 1, 2]
    assert {e.state for e in entries.values()} == {TrialState.COMPLETE}, [e.user_attrs for e in entries.values()]
    assert entries[0].params == found.brief.as_written
    best = min(entries, key=lambda index: entries[index].values[0])
    assert found.chosen.index == best
    assert found.params == ({} if best == 0 else {n: float(v) for n, v in sorted(entries[best].params.items())})
    (name,) = jobs_of(study)
    order = next(params for model, params in asked if model.name == "CreateHyperParameterTuningJob")
    assert order["HyperParameterTuningJobConfig"]["ResourceLimits"] == {
        "MaxNumberOfTrainingJobs": 2,
        "MaxParallelTrainingJobs": 2,
        "MaxRuntimeInSeconds": 3300,
    }
    assert order["TrainingJobDefinition"]["EnableManagedSpotTraining"]
    assert {tag["Key"]: tag["Value"] for tag in order["Tags"]}["clearway:stage"] == "tune"
    # The same values, tried where Optuna's workers try them, have the same loss.
    told = {name: repr(value) for name, value in entries[1].params.items()} | {"study": shared}
    assert trial.trial(told).loss == pytest.approx(entries[1].values[0], rel=1e-6)
    page = render(found, release_id="r1").decode()
    assert "SageMaker, Random" in page
    record = run_record(found, page=page, product="flights", release_id="r1", job="j")
    assert record.params["searcher"] == f"SageMaker, Random ({study.env.aws.tuning_job})"
    assert len([metric for metric in record.metrics if metric.name == "log_loss"]) == 3
    again = searched(study, shared)
    assert (again.params, jobs_of(study)) == (found.params, [name])


@pytest.mark.parametrize("point", [pytest.param("tune.before_order", marks=pytest.mark.long), "tune.after_order"])
def test_whoever_comes_after_a_crash_goes_on_with_the_same_job(there, point):
    study, shared = there
    died = in_a_child(study, shared, CLEARWAY_FAULT=f"{point}=kill")
    assert died.returncode == -signal.SIGKILL, died.stderr[-2000:]
    assert len(jobs_of(study)) == (point == "tune.after_order")
    elsewhere = replace(study, folder=study.folder.with_name("elsewhere"))  # the next machine has none of its files
    elsewhere.folder.mkdir()
    found = searched(elsewhere, shared)
    assert len(found.trials) == 3
    assert len(jobs_of(study)) == 1
    summaries = client("sagemaker").list_training_jobs()["TrainingJobSummaries"]
    mine = [one for one in summaries if one["TrainingJobName"].startswith(study.env.aws.tuning_job)]
    assert len(mine) == 2


@pytest.mark.long
def test_a_grid_is_tried_as_a_whole(aws, env, flights):
    space = {"num_bins": Range(low=2, high=16, num_points=2), "lr": SPACE["lr"].model_copy(update={"num_points": 2})}
    study, shared = study_there(env, flights, num_trials=10, sampler="grid", space=space)
    found = searched(study, shared)
    assert len(found.trials) == 5
    points = sorted((found.trials[index].params["num_bins"], found.trials[index].params["lr"]) for index in range(1, 5))
    assert [bins for bins, _ in points] == [2, 2, 16, 16]
    assert [lr for _, lr in points] == pytest.approx([1e-3, 0.1, 1e-3, 0.1])


def test_who_stops_the_job_of_a_study_stops_its_tuning_job(there, tmp_path):
    study, shared = there
    service = SageMakerTuning(study.env.aws)
    script = tmp_path / "stage.py"
    script.write_text("import time\nprint('waits', flush=True)\ntime.sleep(600)\n")
    order = Order(
        name=f"clearway-{uuid.uuid4().hex[:20]}",
        command=("python", str(script)),
        variables={},
        folder=f"{shared}/jobs/tune-{uuid.uuid4().hex}/0001",
        stage="tune",
        max_seconds=600,
    )
    job = service.start(order)
    jobs = TuningJobs(study.env.aws, stem=stem_of(order.folder))
    slow = Search(
        strategy="Random",
        ranges={"IntegerParameterRanges": [], "ContinuousParameterRanges": [], "CategoricalParameterRanges": []},
        max_trials=3,
        max_seconds=600,
        seed=1,
        study="ftp://nowhere",
        variables={},
        tags={},
    )
    wait_until(lambda: service.look(job).begin_s)
    name = jobs.start(slow)
    service.stop(job)
    wait_until(lambda: not service.look(job).is_running)
    wait_until(lambda: not jobs.look(name).is_running)
    assert jobs.look(name).status == "Stopped"
    with pytest.raises(JobFailed, match="is Stopped"):
        ended_well(name, jobs.look(name))
    assert {used.what for used in service.look(job).used} == {"batch.vcpu", "batch.gb", study.env.aws.training_instance}
    trials = next(used for used in service.look(job).used if used.what == study.env.aws.training_instance)
    assert 0 < trials.hours < trials.full_hours  # on spot
    service.stop(job)
    # The next attempt does not go on with what a person stopped.
    assert jobs.start(slow) == f"{stem_of(order.folder)}-2"
    assert stem_of(order.folder) == stem_of(order.folder.replace("0001", "0002"))
    jobs.stop(jobs.names()[-1])


def test_an_hour_of_a_study_may_cost_a_container_and_all_machines_of_trials(there):
    study, _ = there
    aws = study.env.aws.model_copy(update={"services": Services(tune="sagemaker_tuning"), "tuning_parallel": 3})
    most = {used.what: used.hours for used in most_per_hour(study.env.model_copy(update={"aws": aws}), "tune")}
    assert most == {"batch.vcpu": 4.0, "batch.gb": 16.0, "ml.m7i.2xlarge": 3.0}


def test_a_trial_that_cannot_says_why(tmp_path):
    file = tmp_path / "input" / "config" / "hyperparameters.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"study": "ftp://nowhere/study", "lr": "0.1"}))
    assert trial.main(["--ml", str(tmp_path)]) == 2
    assert "ftp://nowhere" in (tmp_path / "output" / "failure").read_text()


def test_a_job_lasts_as_long_as_the_study_may(there):
    study, _ = there
    brief = study_brief(study)
    assert seconds_there(brief, max_seconds=3600) == 3300
    assert seconds_there(with_tune(brief, max_seconds=600), max_seconds=3600) == 600
    dear = replace(with_tune(brief, max_money=2.0), price_per_hour=4.0)
    assert seconds_there(dear, max_seconds=3600) == 1800
    assert seconds_there(brief, max_seconds=60) == 0


def study_brief(study: Study):
    from clearway.tune.study import prepared

    return prepared(study.inputs, product=study.product, env=study.env, folder=study.folder)


def with_tune(brief, **changes):
    spec = brief.product.spec
    tune = spec.tune.model_copy(update=changes)
    return replace(brief, product=brief.product.model_copy(update={"spec": spec.model_copy(update={"tune": tune})}))


def test_a_study_without_time_or_place_is_refused(there):
    study, shared = there
    with pytest.raises(ConfigError, match="is not in S3"):
        searched(study, "file:///tmp/study")
    hasty = study.env.model_copy(update={"jobs": study.env.jobs.model_copy(update={"max_seconds": 310})})
    with pytest.raises(ConfigError, match="may take 10 s; SageMaker takes 120 at least"):
        searched(replace(study, env=hasty), shared)
    nameless = study.env.model_copy(update={"aws": study.env.aws.model_copy(update={"tuning_job": ""})})
    with pytest.raises(ConfigError, match=r"aws\.tuning_job is empty"):
        searched(replace(study, env=nameless), shared)


def test_a_job_that_ran_out_of_time_has_ended_well_and_one_that_failed_has_not():
    def seen(status: str, **more: bool) -> TuningSeen:
        return TuningSeen(
            status=status, reason="trials fail", created_s=0.0, has_run_out=more.get("has_run_out", False)
        )

    assert not ended_well("t", seen("InProgress"))
    assert ended_well("t", seen("Completed"))
    assert ended_well("t", seen("Stopped", has_run_out=True))
    for ended in (seen("Failed"), seen("Stopped"), None):
        with pytest.raises(JobFailed, match="run the stage again"):
            ended_well("t", ended)


def test_a_number_is_found_in_its_line_again():
    import re

    for value in (0.1, 1e-17, 123456.789, 0.6931471805599453):
        assert [float(text) for text in re.findall(tuning.PATTERN, tuning.LINE.format(value=value))] == [value]
