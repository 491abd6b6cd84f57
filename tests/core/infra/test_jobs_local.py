"""The job runner on this machine, with a small real child process in the place of a stage."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from clearway.contracts.errors import ConfigError, DataError, JobFailed
from clearway.infra.clock import SystemClock
from clearway.infra.environment import Environment
from clearway.infra.jobs import JobState
from clearway.infra.jobs.local import LocalJobs
from clearway.infra.jobs.processes import cloud_variables, environment_variables, processes_of
from clearway.infra.jobs.wait import wait_for
from jobs_kit import STAGE, end_all, finish, folder_of, spec_of, starts, wait_until


@pytest.fixture
def jobs(env: Environment, tmp_path: Path) -> Iterator[LocalJobs]:
    script = tmp_path / "stage.py"
    script.write_text(STAGE)
    runner = LocalJobs(env, command=(sys.executable, str(script)))
    yield runner
    end_all(env.home)


@pytest.fixture
def go(tmp_path: Path) -> Path:
    return tmp_path / "go"


def test_a_job_does_not_see_the_orchestrators_variables(
    jobs: LocalJobs, go: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go.touch()
    monkeypatch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "hush")
    assert json.loads(finish(jobs, jobs.submit(spec_of(tmp_path))))["airflow"] == []


def test_a_killed_job_has_failed_and_the_next_submit_starts_again(jobs: LocalJobs, go: Path, tmp_path: Path) -> None:
    first = jobs.submit(spec_of(tmp_path))
    wait_until(lambda: len(starts(tmp_path)) == 1)
    os.kill(starts(tmp_path)[0], signal.SIGKILL)
    wait_until(lambda: jobs.state(first) is JobState.FAILED)
    with pytest.raises(JobFailed, match=r"without a result(.|\n)*train begins"):
        jobs.result(first)
    second = jobs.submit(spec_of(tmp_path))
    go.touch()
    finish(jobs, second)
    assert second != first


def test_a_retry_ends_workers_that_a_killed_attempt_left_behind(jobs: LocalJobs, go: Path, tmp_path: Path) -> None:
    first = jobs.submit(spec_of(tmp_path, worker=True))
    wait_until(lambda: len(processes_of(folder_of(tmp_path, first))) == 2)
    os.kill(starts(tmp_path)[0], signal.SIGKILL)
    wait_until(lambda: jobs.state(first) is JobState.FAILED)
    assert len(processes_of(folder_of(tmp_path, first))) == 1
    go.touch()
    second = jobs.submit(spec_of(tmp_path))
    assert processes_of(folder_of(tmp_path, first)) == []
    finish(jobs, second)


def test_a_refusal_comes_back_as_the_class_the_stage_raised(jobs: LocalJobs, go: Path, tmp_path: Path) -> None:
    go.touch()
    job_id = jobs.submit(spec_of(tmp_path, refuse=True))
    with pytest.raises(DataError, match="bad rows"):
        finish(jobs, job_id)


def test_a_job_that_runs_too_long_is_stopped(jobs: LocalJobs, tmp_path: Path) -> None:
    job_id = jobs.submit(spec_of(tmp_path))
    with pytest.raises(JobFailed, match="ran longer than 0 s"):
        wait_for(jobs, job_id, clock=SystemClock(), poll_s=0.01, max_seconds=0, on_log=lambda _: None)
    assert jobs.state(job_id) is JobState.FAILED


SUBMIT_AND_DIE = """
import os, signal, sys
from clearway.infra.environment import Environment
from clearway.infra.jobs import JobSpec
from clearway.infra.jobs.local import LocalJobs
LocalJobs(Environment.load(), command=(sys.executable, sys.argv[1])).submit(
    JobSpec(stage="train", inputs_json=sys.argv[2], key="train-1"))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_job_outlives_its_submitter_and_another_process_finds_it(
    jobs: LocalJobs, env: Environment, go: Path, tmp_path: Path
) -> None:
    spec = spec_of(tmp_path)
    command = [sys.executable, "-c", SUBMIT_AND_DIE, str(tmp_path / "stage.py"), spec.inputs_json]
    ended = subprocess.run(command, env={**os.environ, **environment_variables(env)}, check=False, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    job_id = jobs.submit(spec)
    assert jobs.state(job_id) is JobState.RUNNING
    go.touch()
    finish(jobs, job_id)
    assert len(starts(tmp_path)) == 1


def test_a_reused_pid_is_not_taken_for_the_job(jobs: LocalJobs, go: Path, tmp_path: Path) -> None:
    first = jobs.submit(spec_of(tmp_path))
    wait_until(lambda: len(starts(tmp_path)) == 1)
    os.kill(starts(tmp_path)[0], signal.SIGKILL)
    wait_until(lambda: jobs.state(first) is JobState.FAILED)
    record = next((tmp_path / "home" / "jobs").glob("*/0001/job.json"))
    record.write_text(json.dumps({"pid": os.getpid(), "stage": "train", "attempt": 1}))
    assert jobs.state(first) is JobState.FAILED
    jobs.cancel(first)
    assert psutil.Process().is_running()
    go.touch()
    finish(jobs, jobs.submit(spec_of(tmp_path)))


@pytest.mark.parametrize("key", ["../x", "", "A", "a/b", "a.b"])
def test_keys_that_are_no_names_are_refused(jobs: LocalJobs, key: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not allowed"):
        jobs.submit(spec_of(tmp_path, key=key))


def test_variables_rebuild_the_same_environment(env: Environment) -> None:
    assert Environment.load(environment_variables(env)) == env


@pytest.mark.parametrize(
    "changed", [{}, {"JOBS__POLL_S": "7"}, {"APPROVE__MODE": "auto"}, {"METRICS__KIND": "local"}], ids=str
)
def test_a_machine_elsewhere_is_told_what_its_code_does_not_say(env: Environment, changed: dict[str, str]) -> None:
    """Also a default that include/conf of the environment sets to something else."""
    own = {"CLEARWAY__HOME": str(env.home), "CLEARWAY__PRODUCTS": str(env.products)}
    given = {"CLEARWAY_ENV": "aws", "CLEARWAY__STORAGE__ROOT": "s3://bucket/store", **own}
    asked = Environment.load(given | {f"CLEARWAY__{name}": value for name, value in changed.items()})
    told = cloud_variables(asked)
    assert Environment.load(told | own) == asked
    assert not own.keys() & told.keys()
    assert "CLEARWAY__SERVING__PORT" not in told
    assert len(told) < 30


def test_another_installations_job_of_the_same_key_is_left_alone(
    jobs: LocalJobs, env: Environment, go: Path, tmp_path: Path
) -> None:
    neighbour_env = env.model_copy(update={"home": tmp_path / "neighbour"})
    neighbour = LocalJobs(neighbour_env, command=(sys.executable, str(tmp_path / "stage.py")))
    ours, theirs = jobs.submit(spec_of(tmp_path)), neighbour.submit(spec_of(tmp_path))
    assert ours == theirs
    jobs.cancel(ours)
    assert jobs.state(ours) is JobState.FAILED
    assert neighbour.state(theirs) is JobState.RUNNING
    go.touch()
    finish(neighbour, theirs)
    end_all(neighbour_env.home)


def test_a_job_that_is_just_being_started_is_stopped_too(
    jobs: LocalJobs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Until a process has loaded its program the kernel shows none of its environment, by which it is found."""
    looks = iter([[], []])
    monkeypatch.setattr("clearway.infra.jobs.processes.processes_of", lambda folder: next(looks, processes_of(folder)))
    job_id = jobs.submit(spec_of(tmp_path))
    jobs.cancel(job_id, grace_s=0)
    assert jobs.state(job_id) is JobState.FAILED
