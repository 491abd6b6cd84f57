"""A submitter of a job on AWS dies: the next one finds the same job, and nobody pays for two."""

import pytest

from aws_kill_kit import POINTS, dies, story
from aws_kit import STAGE_ON, account
from clearway.infra.aws.jobs import SERVICES, AwsJobs
from jobs_kit import STAGE, finish, spec_of, starts

pytestmark = pytest.mark.slow


@pytest.fixture(params=sorted(SERVICES))
def cloud(request, aws, env, tmp_path):
    script = tmp_path / "stage.py"
    script.write_text(STAGE)
    stage = STAGE_ON[request.param]
    return account(env, stage=script, services={stage: request.param}), script, stage


@pytest.mark.parametrize("point", POINTS)
def test_a_submitter_killed_at_a_named_point_leaves_one_job(cloud, tmp_path, point):
    env, script, stage = cloud
    spec, command = spec_of(tmp_path, stage=stage), ("python", "-u", str(script))
    assert dies(env, spec, command, point=point)
    jobs = AwsJobs(env, command=command)
    job = jobs.submit(spec)
    assert job.endswith(".0001")
    (tmp_path / "go").touch()
    finish(jobs, job)
    assert len(starts(tmp_path)) == 1


@pytest.mark.parametrize("seed", [1, 2])
def test_submitters_killed_at_random_leave_one_job(cloud, tmp_path, seed):
    env, script, stage = cloud
    assert story(env, script, tmp_path / "story", stage=stage, seed=seed)[1] == 1
