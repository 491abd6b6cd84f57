"""What is sent to AWS keeps to its limits: sizes and patterns that the service models name, which neither botocore nor
moto looks at."""

import re
from typing import Any

import pytest

from aws_kit import STAGE_ON, account
from clearway.infra.aws.client import client
from clearway.infra.aws.jobs import SERVICES, AwsJobs
from clearway.infra.jobs import JobSpec
from jobs_kit import wait_until
from shape_kit import misfits

API_OF = {
    "sagemaker": "sagemaker",
    "sagemaker_tuning": "batch",
    "emr_serverless": "emr-serverless",
    "emr_ec2": "emr",
    "emr_eks": "emr-containers",
    "batch": "batch",
}
SENT_ONCE = ("batch", "emr")
OF_EMR = {"for-use-with-amazon-emr-managed-policies": "true"}


def driver_limits(params: dict[str, Any]) -> list[int]:
    """Of drivers that end themselves."""
    overrides = params.get("configurationOverrides", {}).get("applicationConfiguration", ())
    found = [each["properties"] for each in overrides] + [
        each["Properties"] for each in params.get("Configurations", ())
    ]
    return [
        int(value)
        for properties in found
        for name, value in properties.items()
        if name.endswith("CLEARWAY_MAX_SECONDS")
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("service", "count"), [*((service, 1) for service in sorted(SERVICES)), ("sagemaker", 2), ("batch", 2)]
)
def test_every_request_of_a_job_fits_what_its_service_takes(aws, env, tmp_path, service, count):
    script = tmp_path / "stage.py"
    script.write_text("")
    cloud = account(env, stage=script, services={STAGE_ON[service]: service})
    cloud = cloud.model_copy(
        update={
            "name": "aws",  # as are its settings: a cluster's Spark
            "spark": cloud.spark.model_copy(update={"engine": "cluster"}),
            "aws": cloud.aws.model_copy(
                update={
                    "training_image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/clearway:1",
                    "training_count": count,
                    "training_is_spot": count == 1,
                    "training_keep_alive_s": 0 if count == 1 else 900,
                }
            ),
        }
    )
    seen: list[str] = []
    engines: set[str] = set()
    tags: dict[str, str] = {}
    limits: list[int] = []
    counts: set[int] = set()

    def note(params: dict[str, Any], model: Any, **_: Any) -> None:
        seen.append(model.name)
        engines.update(re.findall(r"SPARK__ENGINE'?(?:: |, 'value': )'(\w+)'", str(params)))
        asked = params.get("tags", params.get("Tags", {}))
        resources, nodes = params.get("ResourceConfig", {}), params.get("nodeOverrides", {})
        counts.update(each for each in (resources.get("InstanceCount"), nodes.get("numNodes")) if each)
        kept = resources.get("KeepAlivePeriodInSeconds", 0)
        assert kept == (900 if resources.get("InstanceCount") == 2 else 0)
        tags.update(asked if isinstance(asked, dict) else {tag["Key"]: tag["Value"] for tag in asked})
        limits.extend(
            found
            for found in (
                params.get("StoppingCondition", {}).get("MaxRuntimeInSeconds"),
                params.get("executionTimeoutMinutes", 0) * 60,
                params.get("timeout", {}).get("attemptDurationSeconds"),
                *driver_limits(params),
            )
            if found
        )
        seen.extend(misfits(model.input_shape, params, model.name))

    for name in (API_OF[service], "logs"):
        client(name).meta.events.register("provide-client-params", note)
    for name in SENT_ONCE:
        client(name, max_attempts=1).meta.events.register("provide-client-params", note)
    jobs = AwsJobs(cloud, command=("python", "-u", str(script)))
    inputs = '{"product": "flights", "release_id": "manual-1-abc"}'
    job = jobs.submit(
        JobSpec(stage=STAGE_ON[service], inputs_json=inputs, key="train-" + "k" * 90, team="Ops & Co", max_seconds=301)
    )
    wait_until(lambda: jobs.state(job) == "failed")
    jobs.read_log(job, 0)
    jobs.cancel(job)
    calls = {"CreateTrainingJob", "StartJobRun", "SubmitJob", "RunJobFlow"}
    assert set(seen) & calls
    assert [text for text in seen if " " in text] == []
    assert set(limits) == {360 if service == "emr_serverless" else 301}  # which counts whole minutes
    assert counts == ({count} if service == "sagemaker" or count == 2 else set())
    assert engines == {"cluster" if service.startswith("emr") else "sail"}
    assert tags == (OF_EMR if service == "emr_ec2" else {}) | {
        "clearway:team": "Ops - Co",
        "clearway:product": "flights",
        "clearway:environment": "aws",
        "clearway:release": "manual-1-abc",
        "clearway:stage": STAGE_ON[service],
        "clearway:job": "train-" + "k" * 90,
    }


def test_a_request_beyond_a_limit_is_noticed():
    import botocore.session

    model = botocore.session.get_session().get_service_model("emr-serverless").operation_model("StartJobRun")
    found = list(misfits(model.input_shape, {"clientToken": "no blanks", "tags": {"k": "v" * 300}}, "StartJobRun"))
    assert len(found) == 2
