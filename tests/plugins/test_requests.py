"""What a run is about, from each way of starting it."""

import airflow_kit  # noqa: F401, I001 - sets AIRFLOW_HOME before Airflow is imported

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from clearway_airflow import requests
from clearway_airflow.operators.ingest import IngestOperator
from plugins_kit import FakeEvent, FakeTi, context_of

from clearway.contracts.errors import ConfigError
from clearway.contracts.verdict import Verdict
from clearway.infra.clock import parse_instant
from clearway.infra.environment import Environment
from clearway.infra.layout import Layout
from clearway.infra.storage import open_storage
from clearway.product import LoadedProduct


def started(*, events: list[dict[str, Any]] | None = None, params: dict[str, str] | None = None, **more: Any) -> Any:
    groups = {"asset": [FakeEvent(extra=extra, timestamp=i) for i, extra in enumerate(events or [])]}
    return context_of(FakeTi(), None, triggering_asset_events=groups, params=params or {}, **more)


def clocked(run_type: str) -> Any:
    dag_run = SimpleNamespace(dag_id="d", run_id="r", run_type=run_type)
    start, end = parse_instant("2013-04-08"), parse_instant("2013-04-15")
    return started(dag_run=dag_run, data_interval_start=start, data_interval_end=end)


@pytest.mark.parametrize("run_type", ["scheduled", "backfill"])
def test_a_clocked_batch_is_its_data_interval(flights: LoadedProduct, run_type: str) -> None:
    assert requests.for_batch(clocked(run_type), flights).batch_id == "2013-04-08"


def test_a_batch_run_by_hand_names_its_batch(flights: LoadedProduct) -> None:
    assert requests.for_batch(started(params={"batch_id": "2013-04-08"}), flights).end == "2013-04-15T00:00:00Z"
    with pytest.raises(ConfigError, match="set the parameter batch_id"):
        requests.for_batch(started(), flights)


def test_merged_batches_are_treated_oldest_first_and_the_rest_announced_again(flights: LoadedProduct) -> None:
    events = [{"batch_id": "2013-04-15"}, {"batch_id": "2013-04-08"}, {"batch_id": "2013-04-15"}]
    context = started(events=events)
    request = requests.for_batch(context, flights)
    assert request.batch_id == "2013-04-08"
    assert requests.leftover_batches(context, request) == [{"batch_id": "2013-04-15"}]


def test_a_release_takes_the_newest_event_and_claims_the_evidence_of_all(
    flights: LoadedProduct, env: Environment
) -> None:
    events = [
        {"as_of": "2013-05-06T00:00:00Z", "evidence_digest": "a" * 64, "reason": "drift"},
        {"as_of": "2013-05-13T00:00:00Z", "evidence_digest": "b" * 64, "reason": "more drift"},
    ]
    request = requests.for_release(started(events=events), flights, env)
    assert (request.end, request.reason) == ("2013-05-13T00:00:00Z", "more drift")
    assert request.evidence == ("a" * 64, "b" * 64)


def test_an_older_decision_that_comes_late_does_not_turn_a_release_back(
    flights: LoadedProduct, env: Environment
) -> None:
    events = [
        {"as_of": "2013-05-13T00:00:00Z", "evidence_digest": "b" * 64, "reason": "more drift"},
        {"as_of": "2013-05-06T00:00:00Z", "evidence_digest": "a" * 64, "reason": "drift, announced again"},
    ]
    request = requests.for_release(started(events=events), flights, env)
    assert (request.end, request.evidence) == ("2013-05-13T00:00:00Z", ("a" * 64, "b" * 64))
    asked = [*events[:1], {"as_of": "", "evidence_digest": "c" * 64, "reason": "request file x.json"}]
    assert requests.for_release(started(events=asked), flights, env).evidence == ("b" * 64, "c" * 64)


def test_a_watchers_event_is_unwrapped(flights: LoadedProduct, env: Environment) -> None:
    payload = {"as_of": "2013-05-06", "evidence_digest": "a" * 64, "reason": "request file x.json"}
    request = requests.for_release(started(events=[{"from_trigger": True, "payload": payload}]), flights, env)
    assert (request.end, request.evidence) == ("2013-05-06T00:00:00Z", ("a" * 64,))


def test_a_release_by_hand_follows_the_form(flights: LoadedProduct, env: Environment) -> None:
    form = {"as_of": "2013-05-06", "approval": "person", "reason": "new feature"}
    request = requests.for_release(started(params=form), flights, env)
    assert (request.end, request.approval, request.reason) == ("2013-05-06T00:00:00Z", "person", "new feature")


def test_a_scheduled_release_uses_what_its_interval_ended_with(flights: LoadedProduct, env: Environment) -> None:
    assert requests.for_release(clocked("scheduled"), flights, env).end == "2013-04-15T00:00:00Z"


def test_an_empty_form_means_everything_that_has_landed(flights: LoadedProduct, env: Environment) -> None:
    assert requests.for_release(started(), flights, env).end == "2013-04-01T00:00:00Z"
    layout = Layout(env.store_root, "flights")
    for batch_id in ("2013-04-29", "2013-05-06"):
        open_storage(env.store_root).create(layout.ledger_entry(batch_id), b"{}")
    assert requests.for_release(started(), flights, env).end == "2013-05-13T00:00:00Z"


def test_a_moment_that_is_no_date_is_refused(flights: LoadedProduct, env: Environment) -> None:
    with pytest.raises(ConfigError, match="as_of 'soon' is no date"):
        requests.for_release(started(events=[{"as_of": "soon"}]), flights, env)


def asked(*extras: dict[str, Any], **more: Any) -> Any:
    """A run that requests have started, on the arrivals asset."""
    at, asset = datetime(2013, 5, 6, tzinfo=UTC), SimpleNamespace(name="flights_arrivals")
    events = [FakeEvent(extra=extra, timestamp=at, asset=asset) for extra in extras]
    return context_of(FakeTi(task_id="ingest"), None, triggering_asset_events={"asset": events}, **more)


def test_a_request_is_granted_once_and_the_next_meets_the_cool_down(flights: LoadedProduct, env: Environment) -> None:
    first = asked({"reason": "new fares"})
    assert requests.refusals(first, flights, env) == {}
    assert requests.refusals(first, flights, env) == {}, "a retry asks again"
    (digest,) = requests.for_release(first, flights, env).evidence
    assert open_storage(env.store_root).exists(Layout(env.store_root, "flights").decision(digest))
    second = asked({"reason": "new fares"}, {"reason": "newer fares"})
    (refused,) = requests.refusals(second, flights, env)
    assert requests.for_release(second, flights, env, refused=[refused]).evidence == (digest,)
    forced = asked({"reason": "newer fares", "override": "cooldown"})
    assert requests.refusals(forced, flights, env) == {}


def test_an_event_of_a_decision_asks_nobody(flights: LoadedProduct, env: Environment) -> None:
    requests.refusals(asked({}), flights, env)
    assert requests.refusals(started(events=[{"evidence_digest": "b" * 64}]), flights, env) == {}


def test_a_request_that_no_release_can_follow_is_not_granted(flights: LoadedProduct, env: Environment) -> None:
    for as_of in ("soon", "2012-01-01"):
        with pytest.raises(ConfigError, match="as_of"):
            requests.refusals(asked({"as_of": as_of}), flights, env)
    layout = Layout(env.store_root, "flights")
    assert open_storage(env.store_root).list(layout.decision("any").rpartition("/")[0]) == []


def test_a_refused_request_ends_its_run_green_with_the_reason(
    flights: LoadedProduct, env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLEARWAY__HOME", str(env.home))
    monkeypatch.setenv("CLEARWAY__STORAGE__ROOT", env.store_root)
    requests.refusals(asked({"reason": "new fares"}), flights, env)
    skipped, told = list[str](), list[bool]()
    monkeypatch.setattr(IngestOperator, "skip", lambda _, __, tasks: skipped.extend(tasks))
    monkeypatch.setattr("clearway_airflow.told.outcome", lambda *_, **how: told.append(how["ends"]))
    operator = IngestOperator(product="flights", chain="release")
    context = asked({"reason": "newer fares"})
    context["task"] = SimpleNamespace(get_flat_relatives=lambda upstream: ["train"])
    found = operator.execute(context)
    assert found is not None
    assert (found["verdict"], skipped, told) == (Verdict.FAIL.value, ["train"], [True])
    assert found["reason"].startswith("hold: retraining was decided with batch")
