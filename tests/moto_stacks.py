"""CloudFormation as far as this project's templates need it and moto does not have it.

Added: secrets, Spark applications, environments of MWAA, scheduling policies, alarms and bucket policies; versions and
privacy of a bucket, recovery of a table, environments of Batch with AWS's own role, shares of a queue, policies
attached to a role. A bucket's policy is kept and not enforced, since moto reads no conditions; policies of topics and
queues are left out, and AWS's own policies are attached to nothing. What a call may do is not modelled: everybody may
everything.
"""

import json
from typing import Any

from moto.batch.models import ComputeEnvironment, JobDefinition, JobQueue, batch_backends
from moto.cloudformation import parsing
from moto.cloudwatch.models import cloudwatch_backends
from moto.dynamodb.models import Table, dynamodb_backends
from moto.ec2.models.route_tables import RouteTable
from moto.ec2.models.vpcs import VPCEndPoint
from moto.ecr.models import Repository, ecr_backends
from moto.emrserverless.models import emrserverless_backends
from moto.iam.models import ManagedPolicy, Role, iam_backends
from moto.s3.models import FakeBucket, s3_backends
from moto.secretsmanager.models import secretsmanager_backends


class Added:
    """A resource made through another service's backend; a model of moto's by its shape."""

    TYPE = NAME = ""

    def __init__(self, physical_id: str, attributes: dict[str, str]) -> None:
        self.physical_resource_id, self._attributes = physical_id, attributes

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:
        return True

    def is_created(self) -> bool:
        return True

    def get_cfn_attribute(self, attribute: str) -> str:
        return self._attributes[attribute]

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **_: Any
    ) -> "Added":
        return cls(*cls.made(resource_name, cloudformation_json["Properties"], account_id, region_name))

    @classmethod
    def made(cls, name: str, asked: Any, account: str, region: str) -> tuple[str, dict[str, str]]:
        raise NotImplementedError

    @classmethod
    def update_from_cloudformation_json(cls, original_resource: Any, **_: Any) -> Any:
        return original_resource

    def delete(self, account_id: str, region_name: str) -> None:
        self.gone(self.physical_resource_id, account_id, region_name)

    @classmethod
    def gone(cls, physical_id: str, account: str, region: str) -> None:
        raise NotImplementedError


class Secret(Added):
    TYPE, NAME = "AWS::SecretsManager::Secret", "Name"

    @classmethod
    def made(cls, name: str, asked: Any, account: str, region: str) -> tuple[str, dict[str, str]]:
        assert not {"SecretString", "GenerateSecretString"} & set(asked), "only empty secrets are modelled"
        backend = secretsmanager_backends[account][region]
        text = backend.create_secret(name, None, None, asked.get("Description"), [], None, None, [], False)
        return json.loads(text)["ARN"], {}

    @classmethod
    def gone(cls, physical_id: str, account: str, region: str) -> None:
        secretsmanager_backends[account][region].delete_secret(physical_id, None, True)


class Application(Added):
    TYPE, NAME = "AWS::EMRServerless::Application", "Name"

    @classmethod
    def made(cls, name: str, asked: Any, account: str, region: str) -> tuple[str, dict[str, str]]:
        network, limits = asked["NetworkConfiguration"], asked["MaximumCapacity"]
        made = emrserverless_backends[account][region].create_application(
            name=name,
            release_label=asked["ReleaseLabel"],
            application_type=asked["Type"].upper(),
            client_token=name,
            initial_capacity=None,
            maximum_capacity={key.lower(): value for key, value in limits.items()},
            tags={},
            auto_start_configuration={"enabled": asked["AutoStartConfiguration"]["Enabled"]},
            auto_stop_configuration={"enabled": asked["AutoStopConfiguration"]["Enabled"]},
            network_configuration={key[0].lower() + key[1:]: value for key, value in network.items()},
        )
        return made.id, {"Arn": made.arn, "ApplicationId": made.id}

    @classmethod
    def gone(cls, physical_id: str, account: str, region: str) -> None:
        emrserverless_backends[account][region].delete_application(physical_id)


class SchedulingPolicy(Added):
    TYPE, NAME = "AWS::Batch::SchedulingPolicy", "Name"

    @classmethod
    def made(cls, name: str, asked: Any, account: str, region: str) -> tuple[str, dict[str, str]]:
        policy = {key[0].lower() + key[1:]: value for key, value in asked["FairsharePolicy"].items()}
        return batch_backends[account][region].create_scheduling_policy(name, policy, {}).arn, {}

    @classmethod
    def gone(cls, physical_id: str, account: str, region: str) -> None:
        batch_backends[account][region].delete_scheduling_policy(physical_id)


class Airflow(Added):
    """An environment of MWAA that comes up at once, of whatever version."""

    TYPE, NAME = "AWS::MWAA::Environment", "Name"

    @classmethod
    def made(cls, name: str, asked: Any, account: str, region: str) -> tuple[str, dict[str, str]]:
        assert len(asked["NetworkConfiguration"]["SubnetIds"]) == 2, "MWAA wants two"
        return asked["Name"], {"WebserverUrl": f"{account}.{region}.airflow.amazonaws.com"}

    @classmethod
    def gone(cls, physical_id: str, account: str, region: str) -> None:
        """Nothing of it is kept."""


class Alarm(Added):
    TYPE, NAME = "AWS::CloudWatch::Alarm", "AlarmName"

    @classmethod
    def made(cls, name: str, asked: Any, account: str, region: str) -> tuple[str, dict[str, str]]:
        backend = cloudwatch_backends[account][region]
        made = backend.put_metric_alarm(
            name=name,
            namespace=asked["Namespace"],
            metric_name=asked["MetricName"],
            comparison_operator=asked["ComparisonOperator"],
            evaluation_periods=asked["EvaluationPeriods"],
            period=asked["Period"],
            threshold=asked["Threshold"],
            statistic=asked["Statistic"],
            description=asked["AlarmDescription"],
            dimensions=asked.get("Dimensions", []),
            alarm_actions=asked["AlarmActions"],
            treat_missing_data=asked["TreatMissingData"],
        )
        return name, {"Arn": made.alarm_arn}

    @classmethod
    def gone(cls, physical_id: str, account: str, region: str) -> None:
        cloudwatch_backends[account][region].delete_alarms([physical_id])


class BucketPolicy(Added):
    TYPE = "AWS::S3::BucketPolicy"
    NAME = "PolicyName"

    @classmethod
    def made(cls, name: str, asked: Any, account: str, region: str) -> tuple[str, dict[str, str]]:
        return f"{asked['Bucket']}-policy", {}

    @classmethod
    def gone(cls, physical_id: str, account: str, region: str) -> None:
        return


def _after(model: Any, then: Any) -> None:
    """Have `then(made, properties, account, region)` finish what moto makes of a template's resource."""
    create = model.create_from_cloudformation_json.__func__

    def created(cls: Any, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **more: Any):
        made = create(cls, resource_name, cloudformation_json, account_id, region_name, **more)
        then(made, cloudformation_json["Properties"], account_id, region_name)
        return made

    model.create_from_cloudformation_json = classmethod(created)


def _bucket(made: Any, asked: Any, account: str, _: str) -> None:
    backend = s3_backends[account]["aws"]
    if "VersioningConfiguration" in asked:
        backend.put_bucket_versioning(made.name, asked["VersioningConfiguration"]["Status"])
    if "PublicAccessBlockConfiguration" in asked:
        blocks = asked["PublicAccessBlockConfiguration"].items()
        backend.put_public_access_block(made.name, {key: str(value).lower() for key, value in blocks})


def _table(made: Any, asked: Any, account: str, region: str) -> None:
    if "PointInTimeRecoverySpecification" in asked:
        backend = dynamodb_backends[account][region]
        backend.update_continuous_backups(made.name, asked["PointInTimeRecoverySpecification"])


def _queue(made: Any, asked: Any, *_: str) -> None:
    made.schedule_policy = asked.get("SchedulingPolicyArn")


def _role(made: Any, asked: Any, account: str, _: str) -> None:
    for policy in asked.get("Policies", ()):  # moto keeps Python's notation of them
        made.put_policy(policy["PolicyName"], json.dumps(policy["PolicyDocument"]))
    for arn in (each for each in asked.get("ManagedPolicyArns", ()) if ":aws:policy/" not in each):
        iam_backends[account]["aws"].attach_role_policy(arn, made.name)


def _environments_with_a_role() -> None:
    """Without a service role Batch takes its own, which moto does not have."""
    create = ComputeEnvironment.create_from_cloudformation_json.__func__

    def created(cls: Any, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **more: Any):
        iam, name = iam_backends[account_id]["aws"], "AWSServiceRoleForBatch"
        roles = {role.name: role for role in iam.get_roles()}
        role = roles.get(name) or iam.create_role(name, "{}", "/aws-service-role/", "", "", {}, 3600)
        cloudformation_json["Properties"].setdefault("ServiceRole", role.arn)
        return create(cls, resource_name, cloudformation_json, account_id, region_name, **more)

    ComputeEnvironment.create_from_cloudformation_json = classmethod(created)


def _roles_that_go_with_their_policies() -> None:
    delete = Role.delete_from_cloudformation_json.__func__

    def deleted(cls: Any, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str) -> None:
        iam_backends[account_id]["aws"].get_role(resource_name).managed_policies.clear()
        delete(cls, resource_name, cloudformation_json, account_id, region_name)

    def delete_policy(self: Any, account_id: str, _: str) -> None:
        iam_backends[account_id]["aws"].delete_policy(self.arn)

    Role.delete_from_cloudformation_json, ManagedPolicy.delete = classmethod(deleted), delete_policy


def _networks_that_go() -> None:
    """moto leaves route tables and endpoints behind, and then the network cannot go."""

    def delete_table(self: Any, *_: str) -> None:
        self._associations.clear()
        self.ec2_backend.delete_route_table(self.id)

    def delete_endpoint(self: Any, *_: str) -> None:
        self.ec2_backend.vpc_end_points.pop(self.id, None)

    RouteTable.delete, VPCEndPoint.delete = delete_table, delete_endpoint


def _repositories_that_go() -> None:
    """With the images in them, as `EmptyOnDelete` says; moto does not look at it."""

    def delete(self: Any, account_id: str, region_name: str) -> None:
        ecr_backends[account_id][region_name].delete_repository(self.name, registry_id=account_id, force=True)

    Repository.delete = delete


def _batch_that_goes() -> None:
    """moto leaves queues, environments and definitions behind, and then their names are taken."""

    def delete(self: Any, account_id: str, region_name: str) -> None:
        backend = batch_backends[account_id][region_name]
        for kept in (backend._job_queues, backend._compute_environments, backend._job_definitions):
            kept.pop(self.arn, None)

    JobQueue.delete = ComputeEnvironment.delete = JobDefinition.delete = delete


def _definitions_of_nodes() -> None:
    """moto's CloudFormation takes every job definition for one of a container."""
    make = JobDefinition.create_from_cloudformation_json.__func__

    def lowered(value: Any) -> Any:
        if isinstance(value, dict):
            return {key[0].lower() + key[1:]: lowered(one) for key, one in value.items()}
        return [lowered(one) for one in value] if isinstance(value, list) else value

    def create(cls: Any, name: str, template: Any, account_id: str, region_name: str, **options: Any) -> Any:
        asked = template["Properties"]
        if "NodeProperties" not in asked:
            return make(cls, name, template, account_id, region_name, **options)
        return batch_backends[account_id][region_name].register_job_definition(
            def_name=name,
            parameters={},
            _type="multinode",
            tags={},
            retry_strategy=lowered(asked["RetryStrategy"]),
            container_properties=None,
            node_properties=lowered(asked["NodeProperties"]),
            eks_properties=None,
            timeout={},
            platform_capabilities=None,
            propagate_tags=None,
        )

    JobDefinition.create_from_cloudformation_json = classmethod(create)


def add() -> None:
    """Have moto's CloudFormation know all of this."""
    for model in Added.__subclasses__():
        parsing.get_model_map()[model.TYPE] = model
        parsing.get_name_type_map()[model.TYPE] = model.NAME
    _after(FakeBucket, _bucket)
    _after(Table, _table)
    _after(JobQueue, _queue)
    _after(Role, _role)
    _environments_with_a_role()
    _roles_that_go_with_their_policies()
    _networks_that_go()
    _repositories_that_go()
    _definitions_of_nodes()
    _batch_that_goes()
