"""What every JobRunner owes its callers. A new one adds itself to RUNNERS and passes."""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from clearway.contracts.errors import DataError, JobFailed
from clearway.infra.environment import Environment
from clearway.infra.jobs import JobRunner, JobState
from clearway.infra.jobs.local import LocalJobs, jobs_folder
from clearway.infra.jobs.processes import processes_of
from jobs_kit import STAGE, end_all, finish, folder_of, spec_of, starts, wait_until, warm_worker


@contextmanager
def local(env: Environment, script: Path) -> Iterator[JobRunner]:
    yield LocalJobs(env, command=(sys.executable, str(script)))


@contextmanager
def local_beside_a_warm_worker(env: Environment, script: Path) -> Iterator[JobRunner]:
    with warm_worker(env), local(env, script) as found:
        yield found
        records = [json.loads(file.read_text()) for file in jobs_folder(env).glob("*/0*/job.json")]
        assert {r["why_cold"] for r in records} <= {""}


RUNNERS: dict[str, Callable[[Environment, Path], AbstractContextManager[JobRunner]]] = {
    "local": local,
    "local-warm": local_beside_a_warm_worker,
}


@pytest.fixture(params=sorted(RUNNERS))
def runner(request: pytest.FixtureRequest, env: Environment, tmp_path: Path) -> Iterator[JobRunner]:
    script = tmp_path / "stage.py"
    script.write_text(STAGE)
    with RUNNERS[request.param](env, script) as found:
        yield found
        end_all(env.home)


@pytest.fixture
def go(tmp_path: Path) -> Path:
    return tmp_path / "go"


def test_a_job_gives_its_outputs_and_its_log(runner: JobRunner, go: Path, tmp_path: Path) -> None:
    go.touch()
    lines: list[str] = []
    outputs = json.loads(finish(runner, runner.submit(spec_of(tmp_path)), lines))
    assert outputs["threads"] == "2"
    assert lines == ["train begins"]


def test_the_same_key_is_the_same_job_while_it_runs_and_after(runner: JobRunner, go: Path, tmp_path: Path) -> None:
    first = runner.submit(spec_of(tmp_path))
    assert runner.submit(spec_of(tmp_path)) == first
    assert runner.state(first) is JobState.RUNNING
    go.touch()
    finish(runner, first)
    assert runner.submit(spec_of(tmp_path)) == first
    assert len(starts(tmp_path)) == 1


def test_another_key_is_another_job(runner: JobRunner, go: Path, tmp_path: Path) -> None:
    go.touch()
    ids = {runner.submit(spec_of(tmp_path, key=key)) for key in ("train-1", "train-2")}
    for job_id in ids:
        finish(runner, job_id)
    assert len(ids) == len(starts(tmp_path)) == 2


def test_a_failed_job_is_tried_again_under_its_key(runner: JobRunner, go: Path, tmp_path: Path) -> None:
    first = runner.submit(spec_of(tmp_path))
    wait_until(lambda: starts(tmp_path))
    os.kill(starts(tmp_path)[0], signal.SIGKILL)
    wait_until(lambda: runner.state(first) is JobState.FAILED)
    with pytest.raises(JobFailed):
        runner.result(first)
    second = runner.submit(spec_of(tmp_path))
    go.touch()
    assert second != first
    assert json.loads(finish(runner, second))


def test_a_refusal_comes_back_as_the_class_the_stage_raised(runner: JobRunner, go: Path, tmp_path: Path) -> None:
    go.touch()
    job_id = runner.submit(spec_of(tmp_path, refuse=True))
    with pytest.raises(DataError, match="bad rows"):
        finish(runner, job_id)
    assert runner.state(job_id) is JobState.FAILED


def test_the_result_of_a_running_job_is_refused(runner: JobRunner, tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match="still runs"):
        runner.result(runner.submit(spec_of(tmp_path)))


def test_a_log_is_read_on_from_where_one_stopped(runner: JobRunner, go: Path, tmp_path: Path) -> None:
    job_id = runner.submit(spec_of(tmp_path))
    wait_until(lambda: runner.read_log(job_id, 0)[0])
    text, offset = runner.read_log(job_id, 0)
    assert text == "train begins\n"
    assert runner.read_log(job_id, offset) == ("", offset)
    go.touch()
    finish(runner, job_id)


def test_cancel_ends_every_process_and_spares_finished_jobs(runner: JobRunner, go: Path, tmp_path: Path) -> None:
    job_id = runner.submit(spec_of(tmp_path, worker=True))
    wait_until(lambda: len(processes_of(folder_of(tmp_path, job_id))) == 2)
    runner.cancel(job_id)
    assert processes_of(folder_of(tmp_path, job_id)) == []
    assert runner.state(job_id) is JobState.FAILED
    go.touch()
    again = runner.submit(spec_of(tmp_path))
    result = finish(runner, again)
    runner.cancel(again)
    assert runner.result(again) == result


def test_a_job_nobody_started_has_failed(runner: JobRunner) -> None:
    assert runner.state("never-started.0001") is JobState.FAILED
    with pytest.raises(JobFailed):
        runner.result("never-started.0001")
