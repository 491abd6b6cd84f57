"""include/aws/watch.yaml: clean by cfn-lint, taken by moto as far as that goes; alarms say what missing data mean.

moto's CloudFormation knows no alarms, budgets and policies: alarms are made by its CloudWatch instead, the others are
checked by cfn-lint alone.
"""

import json
import re
import uuid
import warnings
from typing import Any

import pytest
import yaml

from clearway.infra.aws.client import client
from clearway.infra.aws.wishes import forget, receive
from clearway.infra.environment import project_root
from clearway.infra.watch import outcomes

PATH = project_root() / "include" / "aws" / "watch.yaml"
TEMPLATE = yaml.safe_load(PATH.read_text(encoding="utf-8"))
ALARMS = {name: r["Properties"] for name, r in TEMPLATE["Resources"].items() if r["Type"] == "AWS::CloudWatch::Alarm"}
OF_QUEUES = {"ApproximateNumberOfMessagesVisible", "ApproximateAgeOfOldestMessage"}


@pytest.mark.slow
def test_cfn_lint_finds_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from cfnlint.api import lint_file

        assert [str(match) for match in lint_file(PATH)] == []


def test_every_alarm_says_what_missing_data_mean_and_tells_the_topic() -> None:
    assert {name: alarm["TreatMissingData"] for name, alarm in ALARMS.items()} == {
        "ReleaseFailed": "notBreaching",
        "RolledBack": "notBreaching",
        "Drifted": "notBreaching",
        "NobodyWatches": "breaching",
        "CostlyDay": "notBreaching",
        "WishRefused": "notBreaching",
        "WishesWait": "notBreaching",
    }
    assert all(alarm["AlarmActions"] == [{"Ref": "Topic"}] for alarm in ALARMS.values())


def test_alarms_and_dashboard_name_figures_that_are_sent() -> None:
    own = {alarm["MetricName"] for alarm in ALARMS.values()} - OF_QUEUES
    body = TEMPLATE["Resources"]["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
    shown = set(re.findall(r'MetricName=\\"(\w+)\\"', body))
    assert own == {outcomes.ENDED, "DriftAlerts", "StageCost"}
    assert shown == {outcomes.ENDED, "DriftAlerts", "StageCost", "StageSeconds"}
    assert {widget["type"] for widget in json.loads(body)["widgets"]} == {"metric", "alarm"}


def settled(value: Any, known: dict[str, str]) -> Any:
    """A value of the template with its references looked up."""
    if isinstance(value, list):
        return [settled(one, known) for one in value]
    if not isinstance(value, dict):
        return value
    if "Ref" in value:
        return known.get(value["Ref"], str(TEMPLATE["Parameters"].get(value["Ref"], {}).get("Default", value["Ref"])))
    if "Fn::Sub" in value:
        return re.sub(r"\$\{(\w+)\}", lambda found: known[found[1]], value["Fn::Sub"])
    if "Fn::GetAtt" in value:
        return known.get(value["Fn::GetAtt"][0], value["Fn::GetAtt"][0])
    return {key: settled(one, known) for key, one in value.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(ALARMS))
def test_cloudwatch_takes_every_alarm_as_it_is_written(aws: str, name: str) -> None:
    known = {"Name": f"c-{uuid.uuid4().hex[:8]}", "SilentHours": "24", "Topic": "arn:aws:sns:us-east-1:123456789012:t"}
    asked = settled(ALARMS[name], known)
    numbers = {key: int(asked[key]) for key in ("EvaluationPeriods", "Period")} | {
        "Threshold": float(asked["Threshold"])
    }
    client("cloudwatch").put_metric_alarm(**asked | numbers)
    (made,) = client("cloudwatch").describe_alarms(AlarmNames=[asked["AlarmName"]])["MetricAlarms"]
    assert (made["TreatMissingData"], made["Dimensions"]) == (asked["TreatMissingData"], asked["Dimensions"])


@pytest.mark.slow
def test_an_event_that_asks_for_a_release_arrives_in_the_queue(aws: str) -> None:
    left_out = ("AWS::CloudWatch::Alarm", "AWS::CloudWatch::Dashboard")
    known = {name: r for name, r in TEMPLATE["Resources"].items() if r["Type"] not in left_out}
    name, made = f"c-{uuid.uuid4().hex[:8]}", client("cloudformation")
    made.create_stack(
        StackName=name,
        TemplateBody=json.dumps(TEMPLATE | {"Resources": known}),
        Parameters=[{"ParameterKey": "Name", "ParameterValue": name}],
    )
    (stack,) = made.describe_stacks(StackName=name)["Stacks"]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    assert (stack["StackStatus"], set(outputs)) == ("CREATE_COMPLETE", set(TEMPLATE["Outputs"]))
    detail = {"Source": "clearway", "DetailType": "Release wanted", "Detail": json.dumps({"product": "flights"})}
    client("events").put_events(Entries=[detail, detail | {"DetailType": "Release made"}])
    (message,) = receive(outputs["QueueUrl"])
    assert json.loads(message.body)["detail"] == {"product": "flights"}
    forget(outputs["QueueUrl"], message)
    told = client("sqs").get_queue_attributes(QueueUrl=outputs["QueueUrl"], AttributeNames=["All"])["Attributes"]
    assert int(json.loads(told["RedrivePolicy"])["maxReceiveCount"]) == 3
    assert told["ApproximateNumberOfMessages"] == told["ApproximateNumberOfMessagesNotVisible"] == "0"
