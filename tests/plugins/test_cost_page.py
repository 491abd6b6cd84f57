"""The page of what releases cost: from written bills alone, every value escaped, linked from the product's releases."""

import httpx
import pytest

import http_kit
import pages_kit
from clearway.infra.clock import SystemClock
from clearway.infra.cost.ledger import Begun, Ledger, StageEstimate
from clearway.infra.cost.prices import read_prices
from clearway.infra.cost.report import newest_costs
from clearway.infra.environment import Environment
from clearway.infra.jobs import JobSpec
from clearway.infra.jobs.usage import Usage, Used
from clearway_airflow.ui.cost_view import costs_page

AT_S = 1_790_000_000.0
EVIL = "<script>alert(1)</script>"


class Ended:
    """A JobRunner of one training that has ended, and of a deploy that was never started."""

    def attempts(self, key):
        return (f"{key}.0001",) if key.startswith("train") else ()

    def usage(self, job_id):
        used = Used(what="ml.m7i.2xlarge", hours=0.5, full_hours=2.0)
        return Usage(
            job_id=job_id, service="sagemaker", has_succeeded=True, begin_s=AT_S, end_s=AT_S + 7200, used=(used,)
        )


def billed(env, *, product="flights", at_s=AT_S):
    ledger, estimates = Ledger(env, product), {"train": StageEstimate(cost=0.3, basis="ledger", num_releases=5)}
    ledger.begin(Begun(release_id="manual-1", chain="release", at_s=at_s, estimates=estimates))
    ledger.note("manual-1", JobSpec(stage="train", inputs_json="{}", key="train-1"))
    ledger.note("manual-1", JobSpec(stage="deploy", inputs_json="{}", key="deploy-1"))
    ledger.settle("manual-1", Ended())
    return ledger


def test_the_page_shows_cost_saving_expectation_and_what_is_not_billed(env):
    runs = newest_costs(billed(env), now_s=AT_S, limit=5)
    html = costs_page("Flights", runs, prices=read_prices(env), budget=2.0, advice=[EVIL], past=EVIL)
    for text in ("0.2419", "75%", "(mean of 5)", "Not billed yet: deploy-1", "A release may cost 2.", "2026-11-21"):
        assert text in html
    assert "<script" not in html


@pytest.fixture(scope="module")
def base():
    with pages_kit.running_pages() as address:
        yield address


def test_the_page_is_linked_and_asks_nobody(base, env, monkeypatch):
    monkeypatch.setenv("CLEARWAY__HOME", str(env.home))
    monkeypatch.setenv("CLEARWAY__STORAGE__ROOT", env.store_root)
    assert 'href="/clearway/costs/flights_release"' in http_kit.get(f"{base}/releases/flights_release").text
    assert "Nothing was billed yet" in http_kit.get(f"{base}/costs/flights_release").text
    billed(Environment.load(), at_s=SystemClock().now_s())
    assert "manual-1" in http_kit.get(f"{base}/costs/flights_release").text
    assert http_kit.get(f"{base}/costs/flights_ingest").status_code == httpx.codes.NOT_FOUND
