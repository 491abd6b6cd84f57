"""Transform jobs of SageMaker: what lies in a folder of the store, answered by the image that an endpoint runs.

SageMaker starts the image as it does for an endpoint, sends it each file of `<folder>/input` as one request, and writes
each answer to `<folder>/output/<file>.out`. A job's name is taken for ever, as a training's is.
"""

from collections.abc import Mapping
from typing import Any

from clearway.contracts.errors import ConfigError
from clearway.contracts.manifest import canonical_json, sha256_of
from clearway.infra.aws.client import client, complete, excused, explained, is_refusal
from clearway.infra.aws.services import (
    UNKNOWN_TO_SAGEMAKER,
    Order,
    Seen,
    check_settings,
    instant_s,
    key_values,
    network_of,
)
from clearway.infra.environment import Environment
from clearway.infra.jobs.usage import S_PER_HOUR, Used

INPUT, OUTPUT, ANSWER = "input", "output", ".out"
CORRECT = "correct the CLEARWAY__SAGEMAKER__… that it names"
MAX_FILE_MB = 2  # the model server takes requests of 1 MiB
_MAX_RETRIES = 3  # of one request, the most that SageMaker takes


class SageMakerTransform:
    """A Service whose orders name no command: the image decides what it runs. `variables` are the container's.

    SageMaker knows no limit of time for it: whoever waits stops a job that takes longer than its order says.
    """

    GROUP = "/aws/sagemaker/TransformJobs"

    def __init__(self, env: Environment) -> None:
        self._settings, self._network = env.sagemaker, network_of(env.aws)

    def start(self, order: Order) -> str:
        settings = self._settings
        check_settings(settings, "image", "role", section="sagemaker")
        asked: dict[str, Any] = {
            "TransformJobName": order.name,
            "ModelName": self._model_of(order),
            "MaxConcurrentTransforms": settings.requests_at_once,
            "MaxPayloadInMB": MAX_FILE_MB,
            "ModelClientConfig": {"InvocationsMaxRetries": _MAX_RETRIES},
            "TransformInput": {
                "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"{order.folder}/{INPUT}/"}},
                "ContentType": "application/json",
                "SplitType": "None",
            },
            "TransformOutput": {"S3OutputPath": f"{order.folder}/{OUTPUT}", "Accept": "application/json"},
            "TransformResources": {"InstanceType": settings.instance, "InstanceCount": settings.instance_count},
            "Tags": key_values(order.tags, "Key", "Value"),
        }
        with explained(f"transform job {order.name}", refused=CORRECT), excused("ResourceInUse"):
            client("sagemaker").create_transform_job(**asked)
        return order.name

    def look(self, job_id: str) -> Seen:
        found: dict[str, Any] | None = None
        with explained(f"transform job {job_id}"), excused(*UNKNOWN_TO_SAGEMAKER):
            describe = client("sagemaker").describe_transform_job
            found = complete(describe, "TransformJobStatus", TransformJobName=job_id)
        if found is None:
            return Seen(is_running=False, reason="SageMaker knows no such transform job")
        status = found["TransformJobStatus"]
        return Seen(
            is_running=status in {"InProgress", "Stopping"},
            has_succeeded=status == "Completed",
            reason="" if status == "Completed" else f"{status}: {found.get('FailureReason') or 'no reason given'}",
            begin_s=instant_s(found.get("TransformStartTime")),
            end_s=instant_s(found.get("TransformEndTime")),
            used=_used(found),
        )

    def stop(self, job_id: str) -> None:
        from botocore import exceptions as botocore  # noqa: PLC0415

        if not self.look(job_id).is_running:
            return
        with explained(f"transform job {job_id}"):
            try:
                client("sagemaker").stop_transform_job(TransformJobName=job_id)
            except botocore.ClientError as error:  # it ended, or was stopped already, a moment ago
                if not is_refusal(error):
                    raise

    def log_of(self, job_id: str) -> tuple[str, str] | None:
        return self.GROUP, f"{job_id}/"

    def _model_of(self, order: Order) -> str:
        """A model of the image with these variables; its name follows from them, so one that is taken is the same."""
        from botocore import exceptions as botocore  # noqa: PLC0415

        container = {"Image": self._settings.image, "Environment": dict(order.variables)}
        asked = {"PrimaryContainer": container, "ExecutionRoleArn": self._settings.role, **self._network}
        name = f"clearway-transform-{sha256_of(canonical_json(asked))[:40]}"
        tags = key_values(order.tags, "Key", "Value")
        with explained(f"model {name}", refused=CORRECT):
            try:
                client("sagemaker").create_model(ModelName=name, **asked, Tags=tags)
            except botocore.ClientError as error:
                if not is_refusal(error, "exist"):
                    raise
                found = complete(client("sagemaker").describe_model, "ModelArn", ModelName=name)
                if found.get("PrimaryContainer", {}).get("Environment") != container["Environment"]:
                    raise ConfigError(f"model {name} exists and is not ours; delete or rename it") from error
        return name


def _used(found: Mapping[str, Any]) -> tuple[Used, ...] | None:
    """Of machines that never came: nothing. SageMaker says no billed seconds here, so the job's own count."""
    if "TransformStartTime" not in found:
        return ()
    if "TransformEndTime" not in found:
        return None
    asked = found["TransformResources"]
    seconds = instant_s(found["TransformEndTime"]) - instant_s(found["TransformStartTime"])
    hours = seconds * asked["InstanceCount"] / S_PER_HOUR
    return (Used(what=asked["InstanceType"], hours=hours, full_hours=hours),)
