"""Machines of trainings: what settings may ask for, and what they cost."""

import pytest

from clearway.contracts.errors import ConfigError
from clearway.infra.aws.services import trained
from clearway.infra.environment import Environment

KEEP, SPOT = "CLEARWAY__AWS__TRAINING_KEEP_ALIVE_S", "CLEARWAY__AWS__TRAINING_IS_SPOT"


def test_machines_on_spot_are_not_kept_and_the_refusal_says_what_to_do():
    with pytest.raises(ConfigError, match=r"keeps no spot machines; set training_is_spot to false"):
        Environment.load({KEEP: "900"})
    assert Environment.load({KEEP: "900", SPOT: "false"}).aws.training_keep_alive_s == 900
    with pytest.raises(ConfigError, match="less than or equal to 3600"):
        Environment.load({KEEP: "3601", SPOT: "false"})


@pytest.mark.parametrize(
    ("pool", "hours"),
    [
        (None, 2 * 100 / 3600),
        ({"Status": "InUse"}, None),
        ({"Status": "Available", "ResourceRetainedBillableTimeInSeconds": 5}, None),
        ({"Status": "Reused", "ReusedByJob": "next", "ResourceRetainedBillableTimeInSeconds": 20}, 2 * 120 / 3600),
        ({"Status": "Terminated", "ResourceRetainedBillableTimeInSeconds": 900}, 2 * 1000 / 3600),
    ],
    ids=["none", "in use", "waits", "taken by the next", "ended"],
)
def test_machines_that_are_kept_are_on_the_bill_of_the_job_that_kept_them(pool, hours):
    found = {
        "TrainingStartTime": 1,
        "BillableTimeInSeconds": 100,
        "TrainingTimeInSeconds": 100,
        "ResourceConfig": {"InstanceType": "ml.m7i.2xlarge", "InstanceCount": 2},
        **({"WarmPoolStatus": pool} if pool else {}),
    }
    used = trained(found)
    assert (used is None) is (hours is None)
    assert [one.hours for one in used or ()] == ([] if hours is None else [pytest.approx(hours)])
