"""What every JobRunner owes its callers. A new one adds itself to RUNNERS and passes."""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from aws_kit import STAGE_ON, account
from clearway.contracts.errors import DataError, JobFailed
from clearway.infra.aws.jobs import AwsJobs
from clearway.infra.environment import Environment
from clearway.infra.jobs import JobRunner, JobState
from clearway.infra.jobs.local import LocalJobs, jobs_folder
from jobs_kit import STAGE, end_all, finish, spec_of, starts, wait_until, warm_worker


@contextmanager
def local(env: Environment, script: Path) -> Iterator[JobRunner]:
    yield LocalJobs(env, command=(sys.executable, str(script)))


@contextmanager
def local_beside_a_warm_worker(env: Environment, script: Path) -> Iterator[JobRunner]:
    with warm_worker(env), local(env, script) as found:
        yield found
        records = [json.loads(file.read_text()) for file in jobs_folder(env).glob("*/0*/job.json")]
        assert {r["why_cold"] for r in records} <= {""}


def on_aws(service: str) -> Callable[[Environment, Path], AbstractContextManager[JobRunner]]:
    @contextmanager
    def opened(env: Environment, script: Path) -> Iterator[JobRunner]:
        yield AwsJobs(
            account(env, stage=script, services={STAGE_ON[service]: service}), command=("python", "-u", str(script))
        )

    return opened


RUNNERS: dict[str, Callable[[Environment, Path], AbstractContextManager[JobRunner]]] = {
    "local": local,
    "local-warm": local_beside_a_warm_worker,
    "sagemaker": on_aws("sagemaker"),
    "emr_serverless": on_aws("emr_serverless"),
    "emr_ec2": on_aws("emr_ec2"),
    "emr_eks": on_aws("emr_eks"),
    "batch": on_aws("batch"),
}
LOCAL = ("local", "local-warm")


@pytest.fixture(
    params=[name if name in LOCAL else pytest.param(name, marks=pytest.mark.slow) for name in sorted(RUNNERS)]
)
def runner(request: pytest.FixtureRequest, env: Environment, tmp_path: Path) -> Iterator[JobRunner]:
    if request.param not in LOCAL:
        request.getfixturevalue("aws")
    script = tmp_path / "stage.py"
    script.write_text(STAGE)
    with RUNNERS[request.param](env, script) as found:
        yield found
        for pid in starts(tmp_path):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        end_all(env.home)


@pytest.fixture
def stage(request: pytest.FixtureRequest, runner: JobRunner) -> str:
    """One that the runner can run."""
    return STAGE_ON.get(request.node.callspec.params["runner"], "train")


@pytest.fixture
def go(tmp_path: Path) -> Path:
    return tmp_path / "go"


def test_a_job_gives_its_outputs_and_its_log(runner: JobRunner, go: Path, tmp_path: Path, stage: str) -> None:
    go.touch()
    lines: list[str] = []
    outputs = json.loads(finish(runner, runner.submit(spec_of(tmp_path, stage=stage)), lines))
    assert outputs["threads"] == "2"
    assert lines == [f"{stage} begins"]


def test_the_same_key_is_the_same_job_while_it_runs_and_after(
    runner: JobRunner, go: Path, tmp_path: Path, stage: str
) -> None:
    first = runner.submit(spec_of(tmp_path, stage=stage))
    assert runner.submit(spec_of(tmp_path, stage=stage)) == first
    assert runner.state(first) is JobState.RUNNING
    go.touch()
    finish(runner, first)
    assert runner.submit(spec_of(tmp_path, stage=stage)) == first
    assert len(starts(tmp_path)) == 1


def test_another_key_is_another_job(runner: JobRunner, go: Path, tmp_path: Path, stage: str) -> None:
    go.touch()
    ids = {runner.submit(spec_of(tmp_path, stage=stage, key=key)) for key in ("train-1", "train-2")}
    for job_id in ids:
        finish(runner, job_id)
    assert len(ids) == len(starts(tmp_path)) == 2


def test_a_failed_job_is_tried_again_under_its_key(runner: JobRunner, go: Path, tmp_path: Path, stage: str) -> None:
    first = runner.submit(spec_of(tmp_path, stage=stage))
    wait_until(lambda: starts(tmp_path))
    os.kill(starts(tmp_path)[0], signal.SIGKILL)
    wait_until(lambda: runner.state(first) is JobState.FAILED)
    with pytest.raises(JobFailed):
        runner.result(first)
    second = runner.submit(spec_of(tmp_path, stage=stage))
    go.touch()
    assert second != first
    assert json.loads(finish(runner, second))


def test_a_refusal_comes_back_as_the_class_the_stage_raised(
    runner: JobRunner, go: Path, tmp_path: Path, stage: str
) -> None:
    go.touch()
    job_id = runner.submit(spec_of(tmp_path, stage=stage, refuse=True))
    with pytest.raises(DataError, match="bad rows"):
        finish(runner, job_id)
    assert runner.state(job_id) is JobState.FAILED


def test_the_result_of_a_running_job_is_refused(runner: JobRunner, tmp_path: Path, stage: str) -> None:
    with pytest.raises(JobFailed, match="still runs"):
        runner.result(runner.submit(spec_of(tmp_path, stage=stage)))


def test_a_log_is_read_on_from_where_one_stopped(runner: JobRunner, go: Path, tmp_path: Path, stage: str) -> None:
    job_id = runner.submit(spec_of(tmp_path, stage=stage))
    wait_until(lambda: runner.read_log(job_id, 0)[0])
    text, offset = runner.read_log(job_id, 0)
    assert text == f"{stage} begins\n"
    assert runner.read_log(job_id, offset) == ("", offset)
    go.touch()
    finish(runner, job_id)


def test_cancel_ends_every_process_and_spares_finished_jobs(
    runner: JobRunner, go: Path, tmp_path: Path, stage: str
) -> None:
    job_id = runner.submit(spec_of(tmp_path, stage=stage, worker=True))
    wait_until(lambda: len(starts(tmp_path)) == 2)
    runner.cancel(job_id)
    wait_until(lambda: not any(map(psutil.pid_exists, starts(tmp_path))))
    wait_until(lambda: runner.state(job_id) is JobState.FAILED)
    go.touch()
    again = runner.submit(spec_of(tmp_path, stage=stage))
    result = finish(runner, again)
    runner.cancel(again)
    assert runner.result(again) == result


def test_an_attempt_says_what_it_used_once_it_has_ended(
    runner: JobRunner, go: Path, tmp_path: Path, stage: str
) -> None:
    job_id = runner.submit(spec_of(tmp_path, stage=stage))
    wait_until(lambda: starts(tmp_path))
    assert (runner.attempts("train-1"), runner.usage(job_id)) == ((job_id,), None)
    os.kill(starts(tmp_path)[0], signal.SIGKILL)
    wait_until(lambda: runner.usage(job_id))
    again = runner.submit(spec_of(tmp_path, stage=stage))
    go.touch()
    finish(runner, again)
    wait_until(lambda: runner.usage(again))
    assert runner.attempts("train-1") == (job_id, again)
    found = [runner.usage(one) for one in (job_id, again)]
    assert [usage is not None and usage.has_succeeded for usage in found] == [False, True]
    for usage in found:
        assert usage is not None
        assert 0 < usage.begin_s <= usage.end_s
        assert usage.used
        assert all(0 < one.hours <= one.full_hours for one in usage.used)


def test_a_job_nobody_started_has_failed(runner: JobRunner) -> None:
    assert (runner.attempts("never-started"), runner.usage("never-started.0001")) == ((), None)
    assert runner.state("never-started.0001") is JobState.FAILED
    with pytest.raises(JobFailed):
        runner.result("never-started.0001")
