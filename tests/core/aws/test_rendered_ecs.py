"""The template for ECS: clean by cfn-lint, its requests by botocore's service models, taken by moto over HTTP in the
order that the template asks for."""

import json
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator

from clearway.deploy.targets import ecs
from clearway.deploy.targets.standing import DRAIN_S, FLUSH_S, HEALTH_PATH, HOME, stand
from clearway.infra.aws.client import client
from clearway.infra.environment import Environment
from shape_kit import misfits
from targets_kit import CANDIDATE, CHAMPION, IMAGE, cloud, document

NEW, OLD = CANDIDATE[:12], CHAMPION[:12]
# CloudFormation's words for what the services call otherwise; anything else differs in its first letter.
OPERATIONS = {
    "AWS::ECS::TaskDefinition": ("ecs", "RegisterTaskDefinition"),
    "AWS::ECS::Service": ("ecs", "CreateService"),
    "AWS::ElasticLoadBalancingV2::TargetGroup": ("elbv2", "CreateTargetGroup"),
    "AWS::ElasticLoadBalancingV2::ListenerRule": ("elbv2", "CreateRule"),
    "AWS::ApplicationAutoScaling::ScalableTarget": ("application-autoscaling", "RegisterScalableTarget"),
    "AWS::ApplicationAutoScaling::ScalingPolicy": ("application-autoscaling", "PutScalingPolicy"),
}


def template(weight_pct: float | None = 12.5, env: Environment | None = None) -> dict[str, Any]:
    env = env or cloud()
    return ecs.template(stand(document(weight_pct), env=env, team="weather", needs=ecs.NEEDS), env=env)


def in_api_words(value: Any) -> Any:
    """Of ECS, which begins with small letters where CloudFormation does not."""
    if isinstance(value, dict):
        return {
            key[0].lower() + key[1:]: inner if key == "Options" else in_api_words(inner) for key, inner in value.items()
        }
    return [in_api_words(inner) for inner in value] if isinstance(value, list) else value


def resolved(value: Any, made: dict[str, str]) -> Any:
    """With what other resources turned out to be called."""
    if isinstance(value, dict):
        if set(value) == {"Ref"}:
            return made[value["Ref"]]
        if set(value) == {"Fn::Sub"}:
            text = value["Fn::Sub"]
            for name, found in made.items():
                text = text.replace(f"${{{name}.Name}}", found.rpartition("/")[2])
            return text
        return {key: resolved(inner, made) for key, inner in value.items()}
    return [resolved(inner, made) for inner in value] if isinstance(value, list) else value


def request(name: str, resource: dict[str, Any], made: dict[str, str]) -> tuple[str, str, dict[str, Any]]:
    """Service, operation and parameters of what CloudFormation would ask."""
    service, operation = OPERATIONS[resource["Type"]]
    asked = resolved(resource["Properties"], made)
    if service == "ecs":
        asked = in_api_words(asked)
        if operation == "CreateService":
            asked |= {"serviceName": name, "desiredCount": 1}
    elif operation == "CreateTargetGroup":
        asked |= {"Name": name}
        asked.pop("TargetGroupAttributes")
    elif operation == "PutScalingPolicy":
        target = asked.pop("ScalingTargetId").split("|")
        asked |= dict(zip(("ResourceId", "ScalableDimension", "ServiceNamespace"), target, strict=True))
    return service, operation, asked


def in_order(resources: dict[str, Any]) -> list[str]:
    """Names, each after all that it names."""
    texts = {name: json.dumps(resource) for name, resource in resources.items()}
    named = {
        name: {other for other in resources if other != name and (f'"{other}"' in text or f"{{{other}." in text)}
        for name, text in texts.items()
    }
    done: list[str] = []
    while len(done) < len(resources):
        ready = [name for name in resources if name not in done and named[name] <= set(done)]
        assert ready, "a circle"
        done += ready
    return done


@pytest.mark.slow
@pytest.mark.parametrize("weight_pct", [None, 0.0, 12.5])
def test_cfn_lint_finds_nothing(weight_pct):
    from cfnlint.api import lint_all

    found = [match for match in lint_all(json.dumps(template(weight_pct))) if match.rule.id != "I4010"]
    assert [f"{match.rule.id} {match.message}" for match in found] == []


@pytest.mark.slow
@pytest.mark.parametrize("field", ["ReadonlyRootFilesystem", "StopTimeout", "ForwardConfig", "AwsvpcConfiguration"])
def test_cfn_lint_finds_a_misspelt_field(field):
    from cfnlint.api import lint_all

    text = json.dumps(template()).replace(f'"{field}"', f'"{field}s"')
    assert {match.rule.id for match in lint_all(text)} & {"E3002", "E3003"}


def test_every_request_fits_its_service_model_and_a_misspelt_field_does_not():
    resources = template()["Resources"]
    names = {
        "AWS::Region": "us-east-1",
        **{name: f"service/models/{name}|ecs:service:DesiredCount|ecs" for name in resources},
    }
    models = {name: botocore.session.get_session().get_service_model(name) for name, _ in OPERATIONS.values()}
    seen = set()
    for name, resource in resources.items():
        service, operation, asked = request(name, resource, names)
        shape = models[service].operation_model(operation).input_shape
        assert ParamValidator().validate(asked, shape).generate_report() == ""
        assert list(misfits(shape, asked, operation)) == []
        for field in asked:
            wrong = {f"{key}s" if key == field else key: value for key, value in asked.items()}
            assert "Unknown parameter" in ParamValidator().validate(wrong, shape).generate_report()
        seen.add(operation)
    assert seen == {operation for _, operation in OPERATIONS.values()}


def account_with_a_listener() -> Environment:
    """A network, a balancer and a cluster in moto, and settings that name them."""
    ec2, balancing = client("ec2"), client("elbv2")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    zones = [zone["ZoneName"] for zone in ec2.describe_availability_zones()["AvailabilityZones"][:2]]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{i}.0/24", AvailabilityZone=zone)["Subnet"]["SubnetId"]
        for i, zone in enumerate(zones)
    ]
    group = ec2.create_security_group(GroupName="models", Description="models", VpcId=vpc)["GroupId"]
    balancer = balancing.create_load_balancer(Name="models", Subnets=subnets)["LoadBalancers"][0]["LoadBalancerArn"]
    nothing = {"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "404"}}
    listener = balancing.create_listener(LoadBalancerArn=balancer, Protocol="HTTP", Port=80, DefaultActions=[nothing])
    client("ecs").create_cluster(clusterName="models")
    env = cloud(vpc=vpc, listener=listener["Listeners"][0]["ListenerArn"])
    network = {"subnets": " ".join(subnets), "security_groups": group}
    return env.model_copy(update={"aws": env.aws.model_copy(update=network)})


def test_moto_takes_all_of_it_over_http_and_callers_come_last(aws):
    env = account_with_a_listener()
    resources = template(env=env)["Resources"]
    order = in_order(resources)
    made = {"AWS::Region": "us-east-1"}
    for name in order:
        service, operation, asked = request(name, resources[name], made)
        method = client(service).meta.method_to_api_mapping
        call = getattr(client(service), next(python for python, api in method.items() if api == operation))
        answer = call(**asked)
        made[name] = {
            "RegisterTaskDefinition": lambda a: a["taskDefinition"]["taskDefinitionArn"],
            "CreateService": lambda a: a["service"]["serviceArn"],
            "CreateTargetGroup": lambda a: a["TargetGroups"][0]["TargetGroupArn"],
            "CreateRule": lambda a: a["Rules"][0]["RuleArn"],
            "RegisterScalableTarget": lambda _, q=asked: "|".join(
                (q["ResourceId"], q["ScalableDimension"], q["ServiceNamespace"])
            ),
            "PutScalingPolicy": lambda a: a["PolicyARN"],
        }[operation](answer)
    for short in (OLD, NEW):
        assert order.index(f"Attached{short}") < order.index(f"Service{short}") < order.index("Shares")
    rules = client("elbv2").describe_rules(ListenerArn=env.containers.listener)["Rules"]
    (shares,) = [rule for rule in rules if rule["RuleArn"] == made["Shares"]]
    weights = {g["TargetGroupArn"]: g["Weight"] for g in shares["Actions"][0]["ForwardConfig"]["TargetGroups"]}
    assert weights == {made[f"Group{OLD}"]: 7, made[f"Group{NEW}"]: 1}
    found = client("ecs").describe_task_definition(taskDefinition=made[f"Task{NEW}"])["taskDefinition"]
    assert found["containerDefinitions"][0]["image"] == IMAGE


def test_a_task_runs_these_very_bytes_without_rights_and_has_time_to_drain():
    task = template()["Resources"][f"Task{NEW}"]["Properties"]
    (container,) = task["ContainerDefinitions"]
    assert (container["Image"], container["User"], container["ReadonlyRootFilesystem"]) == (IMAGE, "50000", True)
    assert container["LinuxParameters"]["Capabilities"] == {"Drop": ["ALL"]}
    assert [mount["ContainerPath"] for mount in container["MountPoints"]] == [HOME]
    assert DRAIN_S + FLUSH_S <= container["StopTimeout"] <= 120, "Fargate's longest"
    given = {variable["Name"]: variable["Value"] for variable in container["Environment"]}
    assert given["CLEARWAY__SAGEMAKER__MODEL_DIGEST"] == CANDIDATE
    assert "Secrets" not in container
    group = template()["Resources"][f"Group{NEW}"]["Properties"]
    assert group["HealthCheckPath"] == HEALTH_PATH


@pytest.mark.parametrize(("weight_pct", "weights"), [(None, [1]), (0.0, [1, 0]), (0.1, [999, 1]), (100.0, [0, 1])])
def test_weights_stay_within_what_a_rule_takes(weight_pct, weights):
    (action,) = template(weight_pct)["Resources"]["Shares"]["Properties"]["Actions"]
    assert [group["Weight"] for group in action["ForwardConfig"]["TargetGroups"]] == weights
