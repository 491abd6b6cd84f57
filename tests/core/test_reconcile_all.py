"""What the reconciler finds over all stages."""

import json
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from clearway import reconcile
from clearway.infra.clock import FakeClock
from clearway.infra.environment import Environment
from clearway.infra.jobs import JobSpec, JobState
from clearway.infra.jobs.local import LocalJobs
from clearway.infra.layout import Layout
from clearway.infra.storage import LocalStorage, join
from clearway.product import LoadedProduct
from jobs_kit import end_all

BATCHES = ("2013-03-25", "2013-04-01", "2013-04-08")


def test_a_fresh_product_has_lost_nothing(env: Environment, flights: LoadedProduct) -> None:
    assert reconcile.lost_decisions(env, flights) == []
    assert reconcile.unmonitored_batches(env, flights) == []
    assert reconcile.unclaimed_requests(env, flights) == []
    assert reconcile.stop_unwatched_jobs(env) == []


def test_a_landed_batch_nobody_monitored_is_announced_ever_more_seldom(
    env: Environment, flights: LoadedProduct
) -> None:
    storage, layout = LocalStorage(), Layout(env.store_root, "flights")
    for batch_id in BATCHES:
        storage.create(layout.ledger_entry(batch_id), b"{}")
    storage.create(layout.monitor("2013-04-01", "summary.json"), b"{}")
    rounds = [reconcile.unmonitored_batches(env, flights) for _ in range(9)]
    assert [len(found) for found in rounds] == [0, 1, 0, 1, 0, 0, 0, 1, 0]
    assert rounds[1] == [{"batch_id": "2013-04-08", "start": "2013-04-08T00:00:00Z", "end": "2013-04-15T00:00:00Z"}]


class Counting(LocalStorage):
    """Counts what S3 charges for."""

    def __init__(self) -> None:
        self.calls = Counter[str]()

    def list(self, prefix: str) -> list[str]:
        self.calls["list"] += 1
        return super().list(prefix)

    def exists(self, uri: str) -> bool:
        self.calls["exists"] += 1
        return super().exists(uri)

    def read(self, uri: str) -> bytes:
        self.calls["read"] += 1
        return super().read(uri)


def test_a_look_at_years_of_watched_batches_costs_two_listings(
    env: Environment, flights: LoadedProduct, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, layout = Counting(), Layout(env.store_root, "flights")
    start = flights.spec.release.first_end
    for _ in range(60):
        batch_id = flights.spec.batch.batch_id(start)
        storage.create(layout.ledger_entry(batch_id), b"{}")
        storage.create(layout.monitor(batch_id, "summary.json"), b"{}")
        start = flights.spec.batch.end_of(start)
    monkeypatch.setattr(reconcile, "open_storage", lambda _root: storage)
    assert reconcile.unmonitored_batches(env, flights) == []
    assert storage.calls == {"list": 2}


def test_batches_of_an_earlier_clock_do_not_keep_the_others_waiting(env: Environment, flights: LoadedProduct) -> None:
    storage, layout = LocalStorage(), Layout(env.store_root, "flights")
    for batch_id in ("2013-04-02", "2013-04-08"):  # a Tuesday, when batches were days; a Monday
        storage.create(layout.ledger_entry(batch_id), b"{}")
    rounds = [reconcile.unmonitored_batches(env, flights) for _ in range(2)]
    assert [found["batch_id"] for found in rounds[1]] == ["2013-04-08"]


def test_a_request_file_that_started_nothing_is_announced_until_a_release_claims_it(
    env: Environment, flights: LoadedProduct
) -> None:
    request = {"evidence_digest": "a" * 64, "as_of": "", "reason": "request file x.json"}
    mark = join(reconcile.drop_folder(env, "flights"), reconcile.TAKEN, "x.json")
    LocalStorage().create(mark, json.dumps(request).encode())
    assert reconcile.unclaimed_requests(env, flights) == []
    assert reconcile.unclaimed_requests(env, flights) == [request]
    LocalStorage().create(Layout(env.store_root, "flights").claim("a" * 64), b"{}")
    assert [reconcile.unclaimed_requests(env, flights) for _ in range(4)] == [[]] * 4


def test_a_request_file_with_an_answer_is_not_announced_again(env: Environment, flights: LoadedProduct) -> None:
    layout = Layout(env.store_root, "flights")
    for digest, answer in (("a" * 64, layout.refusal("a" * 64)), ("b" * 64, layout.decision("b" * 64))):
        request = {"evidence_digest": digest, "as_of": "", "reason": "request file x.json"}
        mark = join(reconcile.drop_folder(env, "flights"), reconcile.TAKEN, f"{digest}.json")
        LocalStorage().create(mark, json.dumps(request).encode())
        LocalStorage().create(answer, b"{}")
    assert [reconcile.unclaimed_requests(env, flights) for _ in range(4)] == [[]] * 4


def test_a_job_is_stopped_only_after_nobody_looked_for_long(env: Environment, tmp_path: Path) -> None:
    script = tmp_path / "stage.py"
    script.write_text("import time; time.sleep(60)")
    jobs = LocalJobs(env, command=(sys.executable, str(script)))
    job_id = jobs.submit(JobSpec(stage="train", inputs_json=json.dumps({}), key="train-1"))
    jobs.read_log(job_id, 0)
    soon, late = FakeClock(at_s=time.time() + 60), FakeClock(at_s=time.time() + 3600)
    assert reconcile.stop_unwatched_jobs(env, clock=soon) == []
    assert jobs.state(job_id) is JobState.RUNNING
    assert reconcile.stop_unwatched_jobs(env, clock=late) == [job_id]
    assert jobs.state(job_id) is JobState.FAILED
    end_all(env.home)
