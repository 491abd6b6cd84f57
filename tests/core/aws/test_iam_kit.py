"""The evaluator that the tests of roles rely on, against what AWS's guide to IAM says of its examples."""

import pytest

from iam_kit import Call, Request, allows, matches, requests_of

DOC = "arn:aws:s3:::amzn-s3-demo-bucket/*/test/*"


def policy(effect="Allow", action="s3:GetObject", resource="*", **condition):
    statement = {"Effect": effect, "Action": action, "Resource": resource}
    return {"Version": "2012-10-17", "Statement": [statement | ({"Condition": condition} if condition else {})]}


def asked(action="s3:GetObject", resource="arn:aws:s3:::b/k", **context):
    return Request(action=action, resource=resource, context={k.replace("__", ":"): v for k, v in context.items()})


# "Resource", section on wildcards in paths.
@pytest.mark.parametrize(
    ("key", "fits"),
    [
        ("1/test/object.jpg", True),
        ("1/2/test/object.jpg", True),
        ("1/2/test/3/object.jpg", True),
        ("1/2/3/test/4/object.jpg", True),
        ("1///test///object.jpg", True),
        ("1/test/.jpg", True),
        ("//test/object.jpg", True),
        ("1/test/", True),
        ("1-test/object.jpg", False),
        ("test/object.jpg", False),
        ("1/2/test.jpg", False),
    ],
)
def test_a_wildcard_in_a_resource_spans_slashes(key, fits):
    assert matches(DOC, f"arn:aws:s3:::amzn-s3-demo-bucket/{key}") is fits


# "Action": all actions of IAM with AccessKey in their names.
@pytest.mark.parametrize("name", ["CreateAccessKey", "DeleteAccessKey", "ListAccessKeys", "UpdateAccessKey"])
def test_actions_are_matched_by_wildcards_whatever_their_case(name):
    assert allows([policy(action="iam:*AccessKey*")], asked(f"iam:{name}"))
    assert allows([policy(action="IAM:*accesskey*")], asked(f"iam:{name}"))
    assert not allows([policy(action="iam:*AccessKey*")], asked("iam:CreateUser"))


def test_nothing_is_allowed_unless_something_allows_it():
    assert not allows([], asked())
    assert not allows([policy(action="s3:PutObject")], asked())
    assert allows([policy(action=["s3:PutObject", "s3:GetObject"])], asked())


def test_a_denial_wins_wherever_it_stands():
    assert not allows([policy(), policy("Deny")], asked())
    assert not allows([policy("Deny"), policy()], asked())
    assert allows([policy(), policy("Deny", resource="arn:aws:s3:::b/other")], asked())


def test_letters_of_a_resource_count():
    assert allows([policy(resource="arn:aws:s3:::b/?")], asked())
    assert not allows([policy(resource="arn:aws:s3:::b/K")], asked())


# "Multivalued context keys and values": values of one key are alternatives, keys and operators are not.
def test_conditions_are_any_of_values_and_all_of_keys():
    both = policy(StringEquals={"aws:a": ["1", "2"], "aws:b": "3"}, StringLike={"aws:c": "x*"})
    assert allows([both], asked(aws__a="2", aws__b="3", aws__c="xy"))
    assert not allows([both], asked(aws__a="4", aws__b="3", aws__c="xy"))
    assert not allows([both], asked(aws__a="2", aws__b="4", aws__c="xy"))
    assert not allows([both], asked(aws__a="2", aws__b="3", aws__c="yx"))


# "Condition operators": a key that is absent fails a condition, meets a negated one, and meets …IfExists.
@pytest.mark.parametrize(
    ("operator", "fits"),
    [
        ("StringEquals", False),
        ("StringLike", False),
        ("ArnLike", False),
        ("Bool", False),
        ("StringNotEquals", True),
        ("StringNotLike", True),
        ("StringEqualsIfExists", True),
        ("ArnEqualsIfExists", True),
    ],
)
def test_an_absent_key(operator, fits):
    assert allows([policy(**{operator: {"aws:a": "1"}})], asked()) is fits


@pytest.mark.parametrize(
    ("operator", "value", "found", "fits"),
    [
        ("StringEquals", "a*", "ab", False),
        ("StringLike", "a*", "ab", True),
        ("StringNotEquals", "a", "b", True),
        ("StringNotEquals", ["a", "b"], "b", False),
        ("StringNotLike", ["a*", "b*"], "c", True),
        ("ArnLike", "arn:aws:ecs:*:1:*", "arn:aws:ecs:eu-west-1:1:task/x", True),
        ("ArnEquals", "arn:aws:ecs:*:1:*", "arn:aws:ecs:eu-west-1:2:task/x", False),
        ("Bool", "false", "False", True),
        ("Bool", "true", "false", False),
        ("ArnEqualsIfExists", "arn:a", "arn:b", False),
    ],
)
def test_an_operator(operator, value, found, fits):
    assert allows([policy(**{operator: {"AWS:Key": value}})], asked(aws__key=found)) is fits


@pytest.mark.parametrize(
    "statement",
    [
        {"Effect": "Allow", "NotAction": "s3:*", "Resource": "*"},
        {"Effect": "Allow", "Action": "s3:*", "NotResource": "*"},
        {"Effect": "Allow", "Action": "*", "Resource": "arn:aws:s3:::b/${aws:username}"},
        {"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {"DateLessThan": {"aws:CurrentTime": "x"}}},
    ],
)
def test_what_is_not_modelled_is_refused_and_not_guessed(statement):
    with pytest.raises(ValueError, match="not modelled"):
        allows([{"Statement": statement}], asked())


def test_a_call_names_all_it_needs():
    call = Call(
        service="sagemaker",
        operation="CreateEndpoint",
        asked={"EndpointName": "E", "EndpointConfigName": "C", "Tags": [{"Key": "a", "Value": "b"}]},
    )
    assert {(r.action, r.resource.rpartition(":")[2]) for r in requests_of(call)} == {
        ("sagemaker:CreateEndpoint", "endpoint/e"),
        ("sagemaker:CreateEndpoint", "endpoint-config/c"),
        ("sagemaker:AddTags", "endpoint/e"),
    }
