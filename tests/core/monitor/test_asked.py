"""A request by hand on its way: read, answered once, kept, and known to later decisions."""

import json
from typing import Any

import pytest

from clearway import reconcile
from clearway.infra.clock import FakeClock
from clearway.infra.environment import Environment
from clearway.infra.layout import Layout
from clearway.infra.storage import LocalStorage
from clearway.monitor.asked import read_request, refusal_of
from clearway.monitor.history import past_decisions, stored_decisions
from clearway.product import LoadedProduct
from clearway.product_monitor import Override

DAY = "2013-05-06"


def test_a_request_is_told_from_others_by_what_it_says_and_by_its_day() -> None:
    one = read_request({"reason": "new fares"}, day=DAY)
    assert read_request({"reason": "new fares"}, day=DAY) == one
    others: list[tuple[dict[str, Any], str]] = [
        ({"reason": "new fares"}, "2013-05-07"),
        ({"reason": "new planes"}, DAY),
        ({"reason": "new fares", "as_of": "2013-05-06"}, DAY),
        ({"reason": "new fares", "override": "budget"}, DAY),
        ({"reason": "new fares", "evidence_digest": "../../elsewhere"}, DAY),
    ]
    digests = {read_request(raw, day=day).digest for raw, day in others}
    assert len(digests | {one.digest}) == 6
    assert all(len(digest) == 64 for digest in digests)
    assert read_request({"evidence_digest": "c" * 64}, day=DAY).digest == "c" * 64


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("cooldown", (Override.COOLDOWN,)),
        ("input, budget", (Override.BUDGET, Override.INPUT)),
        ("everything", ()),
    ],
)
def test_overrides_are_words(text: str, expected: tuple[Override, ...]) -> None:
    assert read_request({"override": text}, day=DAY).override == expected


def test_a_granted_request_is_a_decision_that_the_next_one_meets(env: Environment, flights: LoadedProduct) -> None:
    storage, layout = LocalStorage(), Layout(env.store_root, "flights")
    storage.create(layout.ledger_entry("2013-04-29"), b"{}")
    first = read_request({"as_of": "2013-05-01", "reason": "new fares"}, day=DAY)
    assert refusal_of(env, flights, first, now_s=1.0) == ""
    (decided,) = past_decisions(storage, layout)
    assert (decided.batch_id, decided.as_of) == ("2013-04-29", "2013-05-06T00:00:00Z")
    second = read_request({"reason": "still new fares"}, day=DAY)
    refusal = refusal_of(env, flights, second, now_s=2.0)
    assert refusal.startswith("hold: retraining was decided with batch 2013-04-29")
    assert refusal_of(env, flights, first, now_s=3.0) == ""
    third = read_request({"reason": "now", "override": "cooldown"}, day=DAY)
    assert refusal_of(env, flights, third, now_s=4.0) == ""
    document = json.loads(storage.read(layout.decision(third.digest)))
    assert (document["overridden"], document["request"]["override"]) == (["cooldown"], ["cooldown"])
    assert refusal_of(env, flights, second, now_s=5.0) == refusal, "an answer is given once"
    assert len(stored_decisions(storage, layout)[0]) == 2


def test_a_granted_request_without_a_release_is_announced_again_as_it_was_asked(
    env: Environment, flights: LoadedProduct
) -> None:
    request = read_request({"as_of": "2013-05-01", "reason": "new fares"}, day=DAY)
    refusal_of(env, flights, request, now_s=0.0)
    (payload,) = reconcile.lost_decisions(env, flights, clock=FakeClock(at_s=100.0))
    assert (payload["as_of"], payload["evidence_digest"]) == ("2013-05-01", request.digest)
    assert payload["reason"] == "new fares; announced again, since no release had started"
