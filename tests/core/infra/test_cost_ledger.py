"""The ledger of what jobs cost: one bill per attempt, whoever looks and how often; estimates and budgets made of it."""

import dataclasses
import json
from typing import Any

import pytest

from clearway.contracts.errors import ConfigError
from clearway.contracts.verdict import Verdict
from clearway.infra.aws.jobs import AwsJobs
from clearway.infra.cost.ledger import Begun, Ledger, StageEstimate
from clearway.infra.cost.prices import lines_of, rate_of, read_prices
from clearway.infra.cost.purse import Purse
from clearway.infra.cost.report import run_cost, sizing
from clearway.infra.environment import Environment
from clearway.infra.jobs import JobSpec, JobState
from clearway.infra.jobs.processes import cloud_variables
from clearway.infra.jobs.usage import BATCH_GB, BATCH_VCPU, Measured, Usage, Used
from clearway.infra.storage import LocalStorage

STAGES = ("ingest", "preprocess", "train", "evaluate")
DAY_S = 86_400.0
NOW_S = 1_790_000_000.0


class Told:
    """A JobRunner that knows what it is told; nothing runs."""

    def __init__(self) -> None:
        self.usages: dict[str, Usage | None] = {}
        self.asked: list[str] = []

    def attempts(self, key: str) -> tuple[str, ...]:
        return tuple(sorted(job_id for job_id in self.usages if job_id.startswith(f"{key}.")))

    def usage(self, job_id: str) -> Usage | None:
        self.asked.append(job_id)
        return self.usages[job_id]

    def state(self, job_id: str) -> JobState:
        usage = self.usages[job_id]
        return JobState.RUNNING if usage is None else JobState.SUCCEEDED if usage.has_succeeded else JobState.FAILED


def on_aws(env: Environment, **cost: str) -> Environment:
    """Settings of AWS over a local store: prices and services, no account."""
    jobs = env.jobs.model_copy(update={"kind": "aws", "max_seconds": 3600.0})
    return env.model_copy(update={"jobs": jobs, "cost": env.cost.model_copy(update=cost)})


def with_budget(flights: Any, money: float) -> Any:
    resources = flights.spec.resources.model_copy(update={"max_money": money})
    return flights.model_copy(update={"spec": flights.spec.model_copy(update={"resources": resources})})


def spec_of(stage: str, release_id: str = "r-1") -> JobSpec:
    inputs = json.dumps({"product": "flights", "release_id": release_id})
    return JobSpec(stage=stage, inputs_json=inputs, key=f"{stage}-{release_id}")


def trained(job_id: str, *, billed_s: float = 300.0, full_s: float = 1000.0, **said: Any) -> Usage:
    used = Used(what="ml.m7i.2xlarge", hours=billed_s / 3600, full_hours=full_s / 3600)
    told = {"has_succeeded": True, "used": (used,), **said}
    return Usage(job_id=job_id, service="sagemaker", begin_s=NOW_S, end_s=NOW_S + full_s, **told)


def purse_of(env: Environment, product: Any, runner: Told, *, is_release: bool = True) -> Purse:
    return Purse(env, product, runner, is_release=is_release, stages=STAGES)  # type: ignore[arg-type]


@pytest.fixture
def runner() -> Told:
    return Told()


def test_an_attempt_is_billed_once_however_often_it_is_looked_at(env, flights, runner, monkeypatch):
    env, created = on_aws(env), []
    create = LocalStorage.create
    monkeypatch.setattr(LocalStorage, "create", lambda s, uri, data: created.append(uri) or create(s, uri, data))
    ledger, purse = Ledger(env, "flights"), purse_of(env, flights, runner)
    purse.admit(spec_of("train"), now_s=NOW_S)
    runner.usages = {"train-r-1.0001": trained("train-r-1.0001", has_succeeded=False)}
    first = ledger.settle("r-1", runner)
    purse.admit(spec_of("train"), now_s=NOW_S)  # a retry
    runner.usages["train-r-1.0002"] = trained("train-r-1.0002")
    both = Ledger(env, "flights").settle("r-1", runner)
    runner.usages["train-r-1.0001"] = trained("train-r-1.0001", billed_s=9e9)  # what is written stands
    assert ledger.settle("r-1", runner) == both == ledger.bills("r-1")
    assert first == both[:1]
    assert [bill.job_id for bill in both] == ["train-r-1.0001", "train-r-1.0002"]
    assert sum(".000" in uri.rpartition("/")[2] for uri in created) == 2
    assert runner.asked == ["train-r-1.0001", "train-r-1.0002"]


def test_spot_is_saved_seconds_at_the_price_on_demand(env, flights, runner):
    env = on_aws(env)
    purse_of(env, flights, runner).admit(spec_of("train"), now_s=NOW_S)
    runner.usages = {"train-r-1.0001": trained("train-r-1.0001")}
    (bill,) = Ledger(env, "flights").settle("r-1", runner)
    price = read_prices(env).machines["ml.m7i.2xlarge"].price
    assert bill.cost == pytest.approx(price * 300 / 3600)
    assert 1 - bill.cost / bill.full_cost == pytest.approx(0.7)
    assert (bill.currency, bill.prices_as_of, bill.billed_s) == ("USD", "2026-11-21", pytest.approx(300))


def test_what_is_not_said_yet_is_billed_later_and_shown_until_then(env, flights, runner):
    env = on_aws(env)
    purse_of(env, flights, runner).admit(spec_of("preprocess"), now_s=NOW_S)
    runner.usages = {"preprocess-r-1.0001": None}
    ledger = Ledger(env, "flights")
    assert ledger.settle("r-1", runner) == ()
    assert run_cost(ledger, "r-1").unbilled == ("preprocess-r-1",)
    runner.usages = {"preprocess-r-1.0001": trained("preprocess-r-1.0001")}
    assert run_cost(ledger, "r-1", runner=runner).unbilled == ()
    assert run_cost(ledger, "never") is None


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("fargate", {"fargate.vcpu": 2.0, "fargate.gb": 8.0}),
        ("m7i.2xlarge", {"m7i.2xlarge": 0.25}),
        ("c7i.xlarge", {"c7i.xlarge": 1.0}),  # all of its memory
        ("x99.huge", {"x99.huge": 2.0}),
    ],
)
def test_a_container_costs_its_share_of_what_it_runs_on(env, host, expected):
    env, prices = on_aws(env, batch_machine=host), read_prices(env)
    hour = tuple(Used(what=what, hours=n, full_hours=n) for what, n in ((BATCH_VCPU, 2.0), (BATCH_GB, 8.0)))
    lines = lines_of(hour, prices=prices, env=env)
    assert {line.what: line.hours for line in lines} == expected
    known = host != "x99.huge"
    assert all((line.cost is not None) is known for line in lines)
    assert (rate_of(env, prices, "evaluate") is not None) is known


def test_an_estimate_is_the_mean_of_the_last_five_releases_else_the_limit(env, flights, runner):
    env = on_aws(env)
    purse = purse_of(env, flights, runner)
    by_limit = purse.estimates(now_s=NOW_S)
    price = read_prices(env).machines["ml.m7i.2xlarge"].price
    assert by_limit["train"] == StageEstimate(cost=pytest.approx(price), basis="limit")
    for number in range(7):  # over a turn of the year's month, oldest first
        name = f"r-{number}"
        purse.admit(spec_of("train", name), now_s=NOW_S + 9 * DAY_S * number)
        job = f"train-{name}.0001"
        runner.usages[job] = trained(job, billed_s=100.0 * number)
        Ledger(env, "flights").settle(name, runner)
    later_s = NOW_S + 63 * DAY_S
    found = purse.estimates(now_s=later_s)
    assert found["train"] == StageEstimate(cost=pytest.approx(price * 400 / 3600), basis="ledger", num_releases=5)
    assert found["evaluate"].basis == "limit"
    newest = list(Ledger(env, "flights").newest(now_s=later_s))
    assert newest == [f"r-{number}" for number in range(6, -1, -1)]


def test_a_stage_that_does_not_fit_the_budget_is_not_started(env, flights, runner):
    env = on_aws(env)
    price = read_prices(env).machines["ml.m7i.2xlarge"].price
    purse = purse_of(env, with_budget(flights, price / 2), runner)
    refused = purse.admit(spec_of("train"), now_s=NOW_S).refused
    assert refused.verdict is Verdict.FAIL
    assert refused.reason.startswith("over budget: train needs at most 0.4838 USD by its time limit of 3600 s")
    assert "(resources.max_money)" in refused.reason


def test_what_was_spent_counts_and_what_is_left_limits_the_time(env, flights, runner):
    env = on_aws(env)
    price = read_prices(env).machines["ml.m7i.2xlarge"].price
    purse = purse_of(env, with_budget(flights, 1.5 * price), runner)
    first = purse.admit(spec_of("train"), now_s=NOW_S)
    assert (first.refused, first.spec.max_seconds, first.spec.team) == (None, 3600, flights.spec.owners[0])
    runner.usages = {"train-r-1.0001": trained("train-r-1.0001", billed_s=2700, full_s=2700, has_succeeded=False)}
    assert "spent" in purse.admit(spec_of("train"), now_s=NOW_S).refused.reason  # another hour does not fit


def test_what_is_not_billed_yet_counts_as_expected_and_what_was_refused_is_not_waited_for(env, flights, runner):
    env = on_aws(env)
    price = read_prices(env).machines["ml.m7i.2xlarge"].price
    purse = purse_of(env, with_budget(flights, 1.5 * price), runner)
    assert purse.admit(spec_of("train"), now_s=NOW_S).refused is None
    runner.usages = {"train-r-1.0001": None}
    again = dataclasses.replace(spec_of("train"), key="train-other")
    assert "0.4838 of 0.7257 (resources.max_money) are spent" in purse.admit(again, now_s=NOW_S).refused.reason
    assert Ledger(env, "flights").unbilled("r-1") == ("train-r-1",)


def test_an_estimate_from_the_ledger_lets_a_job_run_as_long_as_the_money_lasts(env, flights, runner):
    env = on_aws(env)
    price = read_prices(env).machines["ml.m7i.2xlarge"].price
    past = purse_of(env, flights, runner)
    past.admit(spec_of("train", "old"), now_s=NOW_S - DAY_S)
    runner.usages = {"train-old.0001": trained("train-old.0001", billed_s=600.0)}
    past.settle(spec_of("train", "old"))
    half = purse_of(env, with_budget(flights, price / 2), runner).admit(spec_of("train"), now_s=NOW_S)
    assert (half.refused, half.spec.max_seconds) == (None, 1800)
    # And one that the rest of the release will not fit into does not begin.
    early = purse_of(env, with_budget(flights, price / 7), runner).admit(spec_of("ingest", "r-2"), now_s=NOW_S)
    assert "what follows 0.08063" in early.refused.reason


def test_a_job_that_runs_or_has_ended_well_is_never_refused_again(env, flights, runner):
    env = on_aws(env)
    runner.usages = {"train-r-1.0001": None}
    assert purse_of(env, with_budget(flights, 1e-9), runner).admit(spec_of("train"), now_s=NOW_S).refused is None


def test_a_budget_without_a_price_is_refused_and_without_a_budget_the_ledger_says_so(env, flights, runner):
    env = on_aws(env, batch_machine="x99.huge")
    with pytest.raises(ConfigError, match="lacks what evaluate"):
        purse_of(env, with_budget(flights, 5.0), runner).admit(spec_of("evaluate"), now_s=NOW_S)
    assert purse_of(env, flights, runner).admit(spec_of("evaluate", "r-2"), now_s=NOW_S).refused is None


def test_batch_runs_are_billed_and_have_no_budget(env, flights, runner):
    purse = purse_of(on_aws(env), with_budget(flights, 1e-9), runner, is_release=False)
    assert purse.admit(spec_of("train"), now_s=NOW_S).refused is None
    ledger = Ledger(env, "flights")
    assert (list(ledger.newest(now_s=NOW_S)), list(ledger.newest(now_s=NOW_S, chain="batch"))) == ([], ["r-1"])


def test_the_first_to_begin_a_release_says_what_it_was_expected_to_cost(env):
    ledger = Ledger(env, "flights")
    one = Begun(
        release_id="r-1", chain="release", at_s=NOW_S, estimates={"train": StageEstimate(cost=1.0, basis="limit")}
    )
    assert ledger.begin(one) == one
    assert ledger.begin(dataclasses.replace(one, estimates={})) == ledger.begun("r-1") == one
    assert list(ledger.newest(now_s=NOW_S)) == ["r-1"]


@pytest.mark.parametrize(
    ("cpu_s", "peak_gb", "said"),
    [
        (180.0, 3.0, "ml.c5.xlarge would do, at 0.204 instead of 0.4838"),
        (150.0, 3.0, "ml.m5.large"),
        (700.0, 3.0, ""),
        (100.0, 30.0, "more memory"),
    ],
)
def test_a_machine_is_called_too_large_only_if_a_cheaper_one_has_room(env, flights, runner, cpu_s, peak_gb, said):
    env = on_aws(env)
    purse_of(env, flights, runner).admit(spec_of("train"), now_s=NOW_S)
    measured = Measured(wall_s=100.0, cpu_s=cpu_s, num_cpus=8, peak_gb=peak_gb)
    runner.usages = {"train-r-1.0001": trained("train-r-1.0001", measured=measured)}
    ledger = Ledger(env, "flights")
    advice = sizing(ledger.settle("r-1", runner), prices=ledger.prices, env=env)
    assert [said in text for text in advice] == ([True] if said else [])


def test_a_smaller_container_is_named_with_its_price(env, runner):
    env, ledger = on_aws(env), Ledger(env, "flights")
    ledger.begin(Begun(release_id="r-1", chain="release", at_s=NOW_S, estimates={}))
    ledger.note("r-1", spec_of("evaluate"))
    used = tuple(Used(what=what, hours=n, full_hours=n) for what, n in ((BATCH_VCPU, 0.1), (BATCH_GB, 0.4)))
    runner.usages = {
        "evaluate-r-1.0001": Usage(
            job_id="evaluate-r-1.0001",
            service="batch",
            has_succeeded=True,
            begin_s=NOW_S,
            end_s=NOW_S + 180,
            used=used,
            measured=Measured(wall_s=100.0, cpu_s=70.0, num_cpus=2, peak_gb=1.5),
        )
    }
    (text,) = sizing(ledger.settle("r-1", runner), prices=ledger.prices, env=env)
    assert "1 and 2 would do" in text
    assert "BATCH_VCPUS" in text


@pytest.mark.parametrize(
    ("stage", "price"),
    [("train", 0.4838), ("tune", 4 * 0.04048 + 16 * 0.004445), ("preprocess", 44 * 0.052624 + 176 * 0.0057785)],
)
def test_a_job_is_told_the_price_of_its_own_machine(env, stage, price):
    told = cloud_variables(AwsJobs(on_aws(env))._of_the_job(stage))
    assert float(told["CLEARWAY__JOBS__PRICE_PER_HOUR"]) == pytest.approx(price)
    assert "CLEARWAY__COST__PRICES" not in cloud_variables(on_aws(env, prices="/only/here.yaml"))


@pytest.mark.parametrize(
    ("table", "said"),
    [(None, "does not exist"), ("region: moon\n", "'currency'"), ("machines: {a: {price: -1}}\n", "price table")],
)
def test_another_table_is_named_by_a_setting_and_checked(env, tmp_path, table, said):
    path = tmp_path / "prices.yaml"
    if table is not None:
        path.write_text(table)
    with pytest.raises(ConfigError, match=said):
        read_prices(on_aws(env, prices=str(path)))
