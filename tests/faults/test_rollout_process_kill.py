"""kill -9 of the real deploying process in every strategy, under live callers: full success or full return, as stored.

A few places per strategy, drawn by a fixed seed; `tests/benchmarks/sweep_rollout_kill.py` goes through all of them.
"""

import random

import pytest

from live_rollout_kit import PLANS, Place, live_stories

pytestmark = pytest.mark.slow
# A bad candidate comes by these, whatever the strategy.
BACK = ["deploy.before_aborting", "deploy.after_aborting", "deploy.after_weights", "deploy.before_idle"]


@pytest.fixture(scope="module")
def stories(tmp_path_factory):
    with live_stories(tmp_path_factory.mktemp("home")) as made:
        yield made


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_a_killed_process_leaves_full_success_or_full_return(stories, plan):
    source = random.Random(str(plan.strategy))  # noqa: S311
    places = stories.undisturbed(plan, is_bad=False)
    assert len(places) >= 20
    one, other = source.sample(["retry", "reconciler"], 2)
    assert stories.tell(plan, source.choice(places), one, is_bad=False).num_requests >= 20
    assert stories.tell(plan, Place(point=source.choice(BACK), stage=""), other, is_bad=True).num_requests >= 20


def test_the_server_takes_over_from_a_driver_that_stays_away(stories):
    plan = PLANS["canary"]
    place = Place(point="deploy.after_wait", stage="deploying 50 %")
    stories.tell(plan, place, "late retry", is_bad=False)
