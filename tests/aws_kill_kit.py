"""Submitters of AWS jobs that die, in processes of their own, and how their stories end."""

import json
import os
import random
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from clearway.infra.aws.jobs import AwsJobs
from clearway.infra.environment import Environment
from clearway.infra.jobs import JobSpec, JobState
from jobs_kit import finish, spec_of, starts, wait_until

POINTS = ("aws_jobs.before_order", "aws_jobs.before_note")
SUBMITTER = """
import json, sys
from clearway.infra.aws.jobs import AwsJobs
from clearway.infra.clock import SystemClock
from clearway.infra.environment import Environment
from clearway.infra.jobs import JobSpec
from clearway.infra.jobs.wait import wait_for
asked = json.load(sys.stdin)
jobs = AwsJobs(Environment.model_validate(asked["env"]), command=tuple(asked["command"]))
print("begins", flush=True)
job = jobs.submit(JobSpec(**asked["spec"]))
wait_for(jobs, job, clock=SystemClock(), poll_s=0.05, max_seconds=60, on_log=lambda line: None)
"""


def dies(env: Environment, spec: JobSpec, command: tuple[str, ...], *, point: str = "", after_s: float = 60.0) -> bool:
    """Submit and wait in a process that is killed at a fault point or after a while; False if it was done before."""
    asked = {"env": env.model_dump(mode="json"), "spec": asdict(spec), "command": command}
    variables = {**os.environ, **({"CLEARWAY_FAULT": f"{point}=kill"} if point else {})}
    child = subprocess.Popen(
        [sys.executable, "-c", SUBMITTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=variables,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    with child.stdin, child.stdout:
        child.stdin.write(json.dumps(asked))
        child.stdin.close()
        child.stdout.readline()  # what is asked about begins here, not with the imports
        with suppress(subprocess.TimeoutExpired):
            child.wait(after_s)
        child.kill()
    return child.wait() == -signal.SIGKILL


def story(env: Environment, script: Path, folder: Path, *, stage: str, seed: int) -> tuple[int, int]:
    """Submitters of one job die one to three times at random moments, then one lives: (deaths, starts of the job).

    Raises: AssertionError if the job does not end with its result, or goes on afterwards.
    """
    rng = random.Random(seed)  # noqa: S311 - moments, not secrets
    command = ("python", "-u", str(script))
    folder.mkdir()
    spec = spec_of(folder, key=f"{stage}-{seed}", stage=stage)
    deaths = sum(dies(env, spec, command, after_s=rng.uniform(0, 0.6)) for _ in range(rng.randint(1, 3)))
    jobs = AwsJobs(env, command=command)
    job = jobs.submit(spec)
    (folder / "go").touch()
    assert json.loads(finish(jobs, job))["threads"]
    wait_until(lambda: jobs.state(job) is JobState.SUCCEEDED)
    assert jobs.submit(spec) == job
    return deaths, len(starts(folder))
