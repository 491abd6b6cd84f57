"""A cluster of EMR for one job: what it is asked to be, why it failed in its own words, what it cost, when it ends."""

import signal
import subprocess
import sys

import pytest

from aws_kit import account, variables
from clearway.infra.aws.emr_cluster import _reason
from clearway.infra.aws.jobs import AwsJobs
from clearway.infra.cost.ledger import Ledger
from clearway.infra.cost.prices import lines_of, most_per_hour, rate_of, read_prices
from clearway.infra.environment import project_root
from clearway.infra.jobs import JobSpec
from iam_kit import recorded
from jobs_kit import wait_until

CLUSTER = {"State": "TERMINATING", "StateChangeReason": {"Code": "STEP_FAILURE", "Message": "Shut down as step failed"}}


@pytest.fixture
def cloud(aws, env, tmp_path):
    script = tmp_path / "stage.py"
    script.write_text("print('done')")
    return account(env, stage=script, services={"preprocess": "emr_ec2"})


@pytest.mark.slow
def test_a_cluster_is_of_one_job_grows_on_spot_and_is_billed_by_machine(cloud, tmp_path):
    jobs = AwsJobs(cloud, command=("python", "-u", str(tmp_path / "stage.py")))
    with recorded() as calls:
        job = jobs.submit(JobSpec(stage="preprocess", inputs_json="{}", key="preprocess-1", max_seconds=900))
    (asked,) = (call.asked for call in calls if call.operation == "RunJobFlow")
    machines = asked["Instances"]
    assert (machines["KeepJobFlowAliveWhenNoSteps"], asked["Steps"][0]["ActionOnFailure"]) == (
        False,
        "TERMINATE_CLUSTER",
    )
    primary, core, task = machines["InstanceFleets"]
    assert [fleet["TargetOnDemandCapacity"] for fleet in (primary, core)] == [1, 1]
    assert "TargetOnDemandCapacity" not in task
    assert task["TargetSpotCapacity"] == 1
    assert task["LaunchSpecifications"]["SpotSpecification"]["TimeoutAction"] == "SWITCH_TO_ON_DEMAND"
    limits = asked["ManagedScalingPolicy"]["ComputeLimits"]
    assert (limits["MaximumOnDemandCapacityUnits"], limits["MaximumCapacityUnits"]) == (1, cloud.aws.emr_max_executors)
    spark, yarn = (each["Properties"] for each in asked["Configurations"])
    assert spark["spark.yarn.appMasterEnv.CLEARWAY_MAX_SECONDS"] == "900"
    assert spark["spark.yarn.appMasterEnv.AWS_DEFAULT_REGION"] == "us-east-1"
    assert spark["spark.sql.adaptive.enabled"] == spark["spark.dynamicAllocation.enabled"] == "true"
    assert yarn["yarn.node-labels.am.default-node-label-expression"] == "CORE"
    wait_until(lambda: jobs.usage(job))
    usage, prices = jobs.usage(job), read_prices(cloud)
    assert usage is not None
    lines = lines_of(usage.used, prices=prices, env=cloud)
    assert [line.what for line in lines] == ["m5.xlarge", "emr.m5.xlarge"]
    # Three machines for a minute at least, at 0.192 for each and 0.048 for EMR.
    assert [line.cost for line in lines] == pytest.approx([3 / 60 * 0.192, 3 / 60 * 0.048], rel=0.5)
    bill = Ledger(cloud, "rain")._write("r-1", usage)
    assert bill.billed_s == pytest.approx(lines[0].hours * 3600)


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ({}, "PENDING: no reason given"),
        ({"StateChangeReason": {"Message": "exit code 3"}}, "PENDING: exit code 3"),
        (
            {"FailureDetails": {"Reason": "Unknown Error.", "Message": "Application finished with FAILED"}},
            "PENDING: Unknown Error., Application finished with FAILED",
        ),
    ],
    ids=["never began", "changed", "failed"],
)
def test_a_failure_is_told_in_the_words_of_step_and_cluster(step, words):
    told = _reason("PENDING", step, CLUSTER)
    assert told == f"{words}; cluster TERMINATING: STEP_FAILURE, Shut down as step failed"


@pytest.mark.parametrize("service", ["emr_ec2", "emr_eks"])
def test_an_hour_at_most_has_a_price(env, service):
    settings = {"jobs": {"kind": "aws"}, "aws": {"services": {"preprocess": service}}}
    cloud = env.model_validate(env.model_dump() | settings)
    rate = rate_of(cloud, read_prices(cloud), "preprocess")
    expected = {
        "emr_ec2": 11 * (0.192 + 0.048),  # primary, core and nine task machines
        "emr_eks": 11 * (4 * 0.01012 + 16 * 0.00111125),  # a driver and ten executors
    }
    assert rate == pytest.approx(expected[service])
    assert len(most_per_hour(cloud, "preprocess")) == 2


@pytest.mark.slow
def test_a_driver_beyond_its_time_ends_itself():
    """The very file that EMR starts; held up, so that the alarm finds it at work."""
    script = project_root() / "include" / "aws" / "clearway_job.py"
    held_up = (
        f"import runpy, sys, time, clearway.__main__ as m; m.main = lambda: time.sleep(600); "
        f"runpy.run_path({str(script)!r}, run_name='__main__')"
    )
    env = variables("http://127.0.0.1:9") | {"CLEARWAY_MAX_SECONDS": "1", "PATH": "/usr/bin:/bin"}
    ended = subprocess.run([sys.executable, "-c", held_up], env=env, timeout=120, check=False)
    assert ended.returncode == -signal.SIGALRM
