"""Templates of include/aws: valid, and safe by rules of ours that are looked up in them, not in an account."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from clearway.infra.aws.stacks import OPTIONS, ORDER, folder, template
from clearway.infra.environment import PREFIX, Environment, project_root
from iam_kit import listed

ALL = (*ORDER, *OPTIONS)
GIVEN_BY_A_PERSON = {"VirtualCluster", "PodsRoleArn"}
NAMES = sorted(path.stem for path in folder().glob("*.yaml"))
TEMPLATES: dict[str, dict[str, Any]] = {
    name: yaml.safe_load((folder() / f"{name}.yaml").read_text(encoding="utf-8")) for name in NAMES
}
MISSING_ELSEWHERE = r"'AWS::MWAA::Environment' does not exist in '(?!us-east-1|eu-central-1)"
# What has no resource to name, by AWS's service authorization reference, or is held by a condition.
ANY_RESOURCE = {
    "batch:DescribeJobs",
    "batch:ListJobs",
    "cloudwatch:GetMetricData",
    "cloudwatch:PutMetricData",  # held to a namespace
    "ec2:DescribeDhcpOptions",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSubnets",
    "ec2:DescribeVpcs",
    "ecr:GetAuthorizationToken",
    "elasticmapreduce:ListClusters",
    "elasticmapreduce:RunJobFlow",  # held to the tags of a job
    "s3:GetAccountPublicAccessBlock",
}


def resources(*kinds: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Of all templates, or of some kinds: `template.logical id` and properties."""
    for name, body in TEMPLATES.items():
        for logical, resource in body["Resources"].items():
            if not kinds or resource["Type"] in kinds:
                yield f"{name}.{logical}", resource.get("Properties", {})


def documents() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every policy of a role, by where it stands."""
    for place, role in resources("AWS::IAM::Role"):
        for policy in role.get("Policies", ()):
            yield f"{place}.{policy['PolicyName']}", policy["PolicyDocument"]
    for place, policy in resources("AWS::IAM::ManagedPolicy"):
        yield place, policy["PolicyDocument"]


def statements() -> Iterator[tuple[str, dict[str, Any]]]:
    for place, document in documents():
        assert document["Version"] == "2012-10-17"
        for statement in document["Statement"]:
            yield f"{place}.{statement['Sid']}", statement


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_cfn_lint_finds_nothing(name):
    from cfnlint.api import lint_all

    # I4010 asks for metadata that tells machines why a resource is there; the comments tell people.
    found = [match for match in lint_all((folder() / f"{name}.yaml").read_text()) if match.rule.id != "I4010"]
    # It looks at all regions of AWS; an option may be of a service that some lack, as docs/aws.md says.
    if name in OPTIONS:
        found = [match for match in found if not re.search(MISSING_ELSEWHERE, match.message)]
    assert [f"{match.rule.id} line {match.linenumber}: {match.message}" for match in found] == []


@pytest.mark.slow
def test_cfn_lint_would_find_something():
    from cfnlint.api import lint_all

    text = (folder() / "state.yaml").read_text().replace("KeySchema", "KeySchemes")
    assert {match.rule.id for match in lint_all(text)} & {"E3002", "E3003"}


def test_templates_use_nothing_but_what_cloudformation_reads():
    for name in NAMES:
        text = (folder() / f"{name}.yaml").read_text()
        assert not re.search(r"<<:|: [&*]\w", text), f"{name}: CloudFormation knows no anchors and no merges"
        assert len(text) < 51_200, "what one call takes"


@pytest.mark.parametrize("name", ALL)
def test_a_template_is_given_what_it_asks_for_by_those_before_it(name):
    given: set[str] = set()
    for before in (each for each in ORDER if name in OPTIONS or ORDER.index(each) < ORDER.index(name)):
        given |= set(TEMPLATES[before]["Outputs"])
    found = template(name)
    assert found.slots - set(found.defaults) - (GIVEN_BY_A_PERSON if name in OPTIONS else set()) <= given


def test_every_stack_is_made_and_outputs_do_not_clash():
    assert set(ALL) <= set(NAMES)
    outputs = [output for name in ALL for output in TEMPLATES[name]["Outputs"]]
    assert len(outputs) == len(set(outputs))


def test_every_output_that_names_a_variable_names_a_setting():
    found = [
        about["Description"] for name in ALL for about in TEMPLATES[name]["Outputs"].values() if "Description" in about
    ]
    variables = {"CLEARWAY_ENV": "aws"} | dict.fromkeys(found, "s3://x/y")
    variables["CLEARWAY__METRICS__NAMESPACE"] = "Clearway"
    assert all(variable.startswith(PREFIX) for variable in found)
    assert len(found) == len(set(found)) > 15
    Environment.load(variables)  # refuses what it does not know


def test_buckets_are_private_encrypted_versioned_and_asked_over_tls():
    found = dict(resources("AWS::S3::Bucket"))
    policies = {policy["Bucket"]["Ref"]: policy["PolicyDocument"] for _, policy in resources("AWS::S3::BucketPolicy")}
    assert found
    for place, bucket in found.items():
        assert len(bucket["PublicAccessBlockConfiguration"]) == 4
        assert all(bucket["PublicAccessBlockConfiguration"].values())
        assert bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
        assert bucket["OwnershipControls"]["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]
        assert any("AbortIncompleteMultipartUpload" in rule for rule in bucket["LifecycleConfiguration"]["Rules"])
        (tls,) = policies[place.partition(".")[2]]["Statement"]
        assert (tls["Effect"], tls["Principal"], tls["Action"]) == ("Deny", "*", "s3:*")
        assert tls["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        assert len(tls["Resource"]) == 2, "the bucket and what is in it"


def test_tables_are_encrypted_recoverable_and_protected():
    found = list(resources("AWS::DynamoDB::Table"))
    assert found
    for _, table in found:
        assert table["SSESpecification"] == {"SSEEnabled": True}
        assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
        assert table["DeletionProtectionEnabled"] is True


def test_what_holds_data_outlives_a_replacement():
    for name, body in TEMPLATES.items():
        for logical, resource in body["Resources"].items():
            if resource["Type"] in {"AWS::S3::Bucket", "AWS::DynamoDB::Table", "AWS::SecretsManager::Secret"}:
                assert resource["UpdateReplacePolicy"] == "Retain", f"{name}.{logical}"


def test_images_are_scanned_and_never_change():
    for _, repository in resources("AWS::ECR::Repository"):
        assert repository["ImageTagMutability"] == "IMMUTABLE"
        assert repository["ImageScanningConfiguration"] == {"ScanOnPush": True}
        assert "RepositoryPolicyText" not in repository


def test_no_secret_is_written_into_a_template():
    for _, secret in resources("AWS::SecretsManager::Secret"):
        assert not {"SecretString", "GenerateSecretString"} & set(secret)


def test_the_network_has_no_way_in_or_out_but_to_aws():
    kinds = {resource["Type"] for body in TEMPLATES.values() for resource in body["Resources"].values()}
    ways = {"InternetGateway", "NatGateway", "VPCGatewayAttachment", "Route", "EIP", "EgressOnlyInternetGateway"}
    assert not {f"AWS::EC2::{way}" for way in ways} & kinds
    for _, subnet in resources("AWS::EC2::Subnet"):
        assert subnet["MapPublicIpOnLaunch"] is False
    rules = [
        rule for _, group in resources("AWS::EC2::SecurityGroup") for rule in group.get("SecurityGroupIngress", ())
    ]
    rules += [rule for _, rule in resources("AWS::EC2::SecurityGroupIngress")]
    assert rules
    for rule in rules:
        assert "SourceSecurityGroupId" in rule or rule["CidrIp"] == {"Ref": "VpcCidr"}
    for _, endpoint in resources("AWS::EC2::VPCEndpoint"):
        assert endpoint["VpcEndpointType"] == "Gateway" or endpoint["PrivateDnsEnabled"] is True


def containers() -> Iterator[dict[str, Any]]:
    """Of all job definitions."""
    for _, definition in resources("AWS::Batch::JobDefinition"):
        if "ContainerProperties" in definition:
            yield definition["ContainerProperties"]
        else:
            yield from (nodes["Container"] for nodes in definition["NodeProperties"]["NodeRangeProperties"])


def test_containers_have_no_public_address():
    for _, definition in resources("AWS::Batch::JobDefinition"):
        if "ContainerProperties" in definition:  # nodes have the address of their machine in a subnet without another
            assert definition["ContainerProperties"]["NetworkConfiguration"] == {"AssignPublicIp": "DISABLED"}
    assert not [container for container in containers() if "Privileged" in container]


def test_a_container_that_is_told_to_stop_hears_it():
    # Python as a container's first process would ignore SIGTERM, as the kernel has it for signals without a handler.
    found = list(containers())
    assert len(found) > 3
    assert all(container["LinuxParameters"] == {"InitProcessEnabled": True} for container in found)


def test_spot_comes_first_and_the_rest_only_if_it_must():
    queue = dict(resources("AWS::Batch::JobQueue"))["batch.Queue"]
    kinds = {
        place.partition(".")[2]: env["ComputeResources"]["Type"]
        for place, env in resources("AWS::Batch::ComputeEnvironment")
    }
    order = sorted(queue["ComputeEnvironmentOrder"], key=lambda each: each["Order"])
    assert [kinds[each["ComputeEnvironment"]["Ref"]] for each in order] == ["FARGATE_SPOT", "FARGATE"]
    assert "SchedulingPolicyArn" in queue


def test_nodes_of_a_training_are_shared_as_containers_are_and_cost_nothing_while_none_runs():
    ((place, environment),) = (each for each in resources("AWS::Batch::ComputeEnvironment") if "nodes." in each[0])
    assert (environment["ComputeResources"]["Type"], environment["ComputeResources"]["MinvCpus"]) == ("EC2", 0)
    queue, definition = (TEMPLATES["nodes"]["Resources"][name]["Properties"] for name in ("NodesQueue", "Training"))
    assert queue["SchedulingPolicyArn"] == {"Ref": "SharesArn"}
    assert [each["ComputeEnvironment"]["Ref"] for each in queue["ComputeEnvironmentOrder"]] == [place.split(".")[1]]
    (nodes,) = definition["NodeProperties"]["NodeRangeProperties"]
    assert nodes["TargetNodes"].endswith(":"), "an order could not say how many"


def test_spark_stops_by_itself_and_has_a_limit():
    for _, application in resources("AWS::EMRServerless::Application"):
        assert application["AutoStopConfiguration"]["Enabled"] is True
        assert set(application["MaximumCapacity"]) == {"Cpu", "Memory", "Disk"}
        assert "InitialCapacity" not in application, "costs money while no job runs"


def test_policies_allow_named_actions_on_named_resources():
    found = [(place, s) for place, s in statements() if s["Effect"] == "Allow"]
    assert len(found) > 30
    for place, statement in found:
        actions = listed(statement["Action"])
        assert not [action for action in actions if "*" in action], place
        for resource in listed(statement["Resource"]):
            if resource == "*":
                assert set(actions) <= ANY_RESOURCE, place


def test_every_exception_is_needed():
    used = {a for _, s in statements() if "*" in listed(s["Resource"]) for a in listed(s["Action"])}
    assert used == ANY_RESOURCE


def test_roles_are_passed_to_one_service_each():
    for place, statement in statements():
        if "iam:PassRole" in listed(statement["Action"]):
            assert listed(statement["Action"]) == ["iam:PassRole"], place
            assert "iam:PassedToService" in statement["Condition"]["StringEquals"], place


def test_roles_are_worn_by_services_of_this_account_alone():
    for place, role in resources("AWS::IAM::Role"):
        for trust in role["AssumeRolePolicyDocument"]["Statement"]:
            assert (set(trust["Principal"]), trust["Action"]) == ({"Service"}, "sts:AssumeRole"), place
            if trust["Principal"]["Service"] == "ec2.amazonaws.com":  # tells nothing of who asks; PassRole is its guard
                continue
            assert trust["Condition"]["StringEquals"] == {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}, place
            assert "aws:SourceArn" in trust["Condition"]["ArnLike"], place


def test_airflow_of_mwaa_is_private_says_all_and_has_a_version_that_the_dags_run_on():
    ((_, environment),) = resources("AWS::MWAA::Environment")
    assert environment["WebserverAccessMode"] == "PRIVATE_ONLY"
    assert all(about["Enabled"] for about in environment["LoggingConfiguration"].values())
    assert {value for key, value in environment.items() if key.endswith("S3Path")} == {
        *("mwaa/dags", "mwaa/plugins.zip", "mwaa/requirements.txt", "mwaa/startup.sh"),
    }
    allowed = TEMPLATES["mwaa"]["Parameters"]["AirflowVersion"]
    locked = re.search(r"^apache-airflow==(\S+)$", (project_root() / "requirements.in").read_text(), re.MULTILINE)
    assert locked
    assert allowed["Default"] == locked[1]
    fits = {
        version: bool(re.fullmatch(allowed["AllowedPattern"], version)) for version in ("3.3.0", "3.10.1", locked[1])
    }
    assert all(fits.values()), fits
    assert not any(
        re.fullmatch(allowed["AllowedPattern"], version) for version in ("2.11.0", "3.0.6", "3.2.9", "13.3.0")
    )
