"""ECS on Fargate, as one CloudFormation template: a task, service and target group per version, one rule with shares.

A target group takes no service before a listener knows it, and must have healthy tasks before callers come. So each
version has a rule of its own that no caller meets, its service waits for that rule, and the rule with the shares waits
for the services.
"""

import math
from collections.abc import Mapping
from typing import Any

from clearway.contracts.errors import ConfigError
from clearway.deploy.targets.standing import (
    CALL_PATH,
    DRAIN_S,
    FLUSH_S,
    HEALTH_PATH,
    HOME,
    LOAD_S,
    NUM_FAILURES,
    PORT,
    PROBE_S,
    USER_ID,
    Served,
    Standing,
)
from clearway.infra.environment import PREFIX, Aws, Environment

NEEDS = ("role", "execution_role", "cluster", "vpc", "listener")
PARTS = 1_000
CONTAINER = "server"
LEAVE_S = DRAIN_S + 5  # requests under way when a task leaves its group
SCALE_IN_S, SCALE_OUT_S = 300, 60
_CPU_UNITS = 1024  # of a vCPU
_NUM_RULES = 40_000  # rules of versions lie anywhere among so many priorities

Document = dict[str, Any]


def template(standing: Standing, *, env: Environment) -> Document:
    """All of it. Raises: ConfigError without subnets and security groups."""
    aws = env.aws
    if not aws.subnets or not aws.security_groups:
        raise ConfigError(f"{PREFIX}AWS__SUBNETS or …SECURITY_GROUPS not set; tasks need a network, say in which")
    resources: Document = {}
    for version in standing.versions:
        resources |= _version(standing, version, aws=aws)
    resources["Shares"] = {
        "Type": "AWS::ElasticLoadBalancingV2::ListenerRule",
        "DependsOn": [f"Service{version.short}" for version in standing.versions],
        "Properties": _shares(standing),
    }
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": f"Model servers of product {standing.product}, written by clearway render",
        "Resources": resources,
    }


def task_definition(standing: Standing, version: Served, *, log_group: str) -> Document:
    """One container, without rights, on a machine of its own."""
    containers = standing.containers
    return {
        "Family": f"clearway-{standing.name_of(version)}",
        "RequiresCompatibilities": ["FARGATE"],
        "NetworkMode": "awsvpc",
        "Cpu": str(round(containers.cpu * _CPU_UNITS)),
        "Memory": str(containers.memory_mib),
        "EphemeralStorage": {"SizeInGiB": max(21, containers.disk_gib)},
        "RuntimePlatform": {"OperatingSystemFamily": "LINUX", "CpuArchitecture": "X86_64"},
        "ExecutionRoleArn": containers.execution_role,
        "TaskRoleArn": containers.role,
        "ContainerDefinitions": [_container(standing, version, log_group=log_group)],
        "Volumes": [{"Name": "home"}],
        "Tags": _tags(standing.tags),
    }


def service(standing: Standing, version: Served, *, aws: Aws) -> Document:
    """Its tasks behind its target group. How many there are is the autoscaler's."""
    balancer = {"ContainerName": CONTAINER, "ContainerPort": PORT, "TargetGroupArn": {"Ref": f"Group{version.short}"}}
    network = {
        "Subnets": aws.subnets.split(),
        "SecurityGroups": aws.security_groups.split(),
        "AssignPublicIp": "DISABLED",
    }
    return {
        "Cluster": standing.containers.cluster,
        "LaunchType": "FARGATE",
        "TaskDefinition": {"Ref": f"Task{version.short}"},
        "LoadBalancers": [balancer],
        "NetworkConfiguration": {"AwsvpcConfiguration": network},
        "DeploymentConfiguration": {
            "MinimumHealthyPercent": 100,
            "MaximumPercent": 200,
            "DeploymentCircuitBreaker": {"Enable": True, "Rollback": True},
        },
        "HealthCheckGracePeriodSeconds": LOAD_S,
        "EnableECSManagedTags": True,
        "PropagateTags": "SERVICE",
        "Tags": _tags(standing.tags),
    }


def target_group(standing: Standing) -> Document:
    """Where the balancer sends a version's callers."""
    return {
        "VpcId": standing.containers.vpc,
        "TargetType": "ip",
        "Protocol": "HTTP",
        "Port": PORT,
        "HealthCheckPath": HEALTH_PATH,
        "HealthCheckIntervalSeconds": PROBE_S,
        "HealthCheckTimeoutSeconds": 5,
        "HealthyThresholdCount": 2,
        "UnhealthyThresholdCount": 3,
        "Matcher": {"HttpCode": "200"},
        "TargetGroupAttributes": [{"Key": "deregistration_delay.timeout_seconds", "Value": str(LEAVE_S)}],
        "Tags": _tags(standing.tags),
    }


def _version(standing: Standing, version: Served, *, aws: Aws) -> Document:
    name, balancing = version.short, "AWS::ElasticLoadBalancingV2::"
    attached = {
        "ListenerArn": standing.containers.listener,
        "Priority": standing.containers.priority + 1 + int(name, 16) % _NUM_RULES,
        "Conditions": [_condition("path-pattern", "PathPatternConfig", f"/clearway/{name}")],
        "Actions": [{"Type": "forward", "TargetGroupArn": {"Ref": f"Group{name}"}}],
    }
    task = task_definition(standing, version, log_group=aws.log_group)
    served = service(standing, version, aws=aws)
    return {
        f"Task{name}": _resource("AWS::ECS::TaskDefinition", task),
        f"Group{name}": _resource(f"{balancing}TargetGroup", target_group(standing)),
        f"Attached{name}": _resource(f"{balancing}ListenerRule", attached),
        f"Service{name}": {**_resource("AWS::ECS::Service", served), "DependsOn": [f"Attached{name}"]},
        **_scaling(standing, version),
    }


def _container(standing: Standing, version: Served, *, log_group: str) -> Document:
    given = standing.variables | standing.model_variables(version)
    ask = f"import urllib.request as u; u.urlopen('http://127.0.0.1:{PORT}{HEALTH_PATH}', timeout=4)"
    return {
        "Name": CONTAINER,
        "Image": standing.containers.image,
        "Command": ["serve"],
        "Essential": True,
        "User": str(USER_ID),
        "ReadonlyRootFilesystem": True,
        "LinuxParameters": {"InitProcessEnabled": True, "Capabilities": {"Drop": ["ALL"]}},
        "PortMappings": [{"Name": "http", "ContainerPort": PORT, "Protocol": "tcp"}],
        "Environment": [{"Name": name, "Value": value} for name, value in given.items()],
        "MountPoints": [{"SourceVolume": "home", "ContainerPath": HOME, "ReadOnly": False}],
        "HealthCheck": {
            "Command": ["CMD", "python", "-c", ask],
            "Interval": PROBE_S,
            "Timeout": 5,
            "Retries": NUM_FAILURES,
            "StartPeriod": LOAD_S,
        },
        "StopTimeout": DRAIN_S + FLUSH_S,
        "LogConfiguration": {
            "LogDriver": "awslogs",
            "Options": {
                "awslogs-group": log_group,
                "awslogs-region": {"Ref": "AWS::Region"},
                "awslogs-stream-prefix": standing.name_of(version),
                "mode": "non-blocking",  # a log that is full must not stop answers
            },
        },
    }


def _scaling(standing: Standing, version: Served) -> Document:
    containers, name = standing.containers, version.short
    service_id = {"Fn::Sub": f"service/{containers.cluster}/${{Service{name}.Name}}"}
    target = {
        "ServiceNamespace": "ecs",
        "ScalableDimension": "ecs:service:DesiredCount",
        "ResourceId": service_id,
        "MinCapacity": containers.min_count,
        "MaxCapacity": containers.max_count,
    }
    policy = {
        "PolicyName": f"clearway-{standing.name_of(version)}",
        "PolicyType": "TargetTrackingScaling",
        "ScalingTargetId": {"Ref": f"Scaled{name}"},
        "TargetTrackingScalingPolicyConfiguration": {
            "PredefinedMetricSpecification": {"PredefinedMetricType": "ECSServiceAverageCPUUtilization"},
            "TargetValue": containers.target_cpu_pct,
            "ScaleInCooldown": SCALE_IN_S,
            "ScaleOutCooldown": SCALE_OUT_S,
        },
    }
    kind = "AWS::ApplicationAutoScaling::"
    return {
        f"Scaled{name}": _resource(f"{kind}ScalableTarget", target),
        f"Scaling{name}": _resource(f"{kind}ScalingPolicy", policy),
    }


def _shares(standing: Standing) -> Document:
    shares = standing.whole_shares(PARTS)
    parts = math.gcd(*(weight for _, weight in shares))  # weights of a rule end at 999
    groups = [
        {"TargetGroupArn": {"Ref": f"Group{version.short}"}, "Weight": weight // parts} for version, weight in shares
    ]
    conditions = [_condition("path-pattern", "PathPatternConfig", CALL_PATH)]
    if standing.containers.host:
        conditions.append(_condition("host-header", "HostHeaderConfig", standing.containers.host))
    return {
        "ListenerArn": standing.containers.listener,
        "Priority": standing.containers.priority,
        "Conditions": conditions,
        "Actions": [{"Type": "forward", "ForwardConfig": {"TargetGroups": groups}}],
    }


def _condition(field: str, config: str, value: str) -> Document:
    return {"Field": field, config: {"Values": [value]}}


def _resource(kind: str, properties: Document) -> Document:
    return {"Type": kind, "Properties": properties}


def _tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]
