"""The pages inside Airflow without the rest of Airflow: the plugin's own application behind a real HTTP server.

The right to read and to order is asked of Airflow's own auth manager; only who asks is told, since no login page runs.
"""

import contextlib
import dataclasses
import json
import random
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any

import airflow_kit  # noqa: F401 - a home of its own, before Airflow is imported
from clearway.contracts import rollout as rollouts
from clearway.contracts.codec import from_jsonable, to_jsonable
from clearway.contracts.observed import ArmCounts, Mirrored, MirroredRow, Observed
from clearway.contracts.release_document import HistoryEntry, Outcome, ReleaseDocument, Version, begin_deploy
from clearway.contracts.rollout import Rollout
from clearway.contracts.verdict import Verdict
from clearway.deploy import judges, strategies
from clearway.deploy.history import keep_history
from clearway.deploy.rollout import Seen
from clearway.evidence import engine
from clearway.infra.environment import Environment
from clearway.infra.layout import Layout
from clearway.infra.storage import open_storage
from clearway.product_rollout import Rollout as Settings
from clearway.product_rollout import Shadow, Strategy

CHAMPION = Version(uri="file:///m", digest="a" * 64, release_id="r-2")
CANDIDATE = Version(uri="file:///n", digest="c" * 64, release_id="r-3")
PERSON = "Ada"
START_TIMEOUT_S = 120.0
NUM_LOOKS = 40


def canary(champion: ReleaseDocument, *, reason: str, at_s: float = 0.0) -> ReleaseDocument:
    """A rollout at its second share, after thirty looks at a candidate that fails more and more."""
    settings = Settings(strategy="canary")
    document = begin_deploy(champion, CANDIDATE, epoch=champion.epoch, rollout=strategies.begin(settings))
    assert document.rollout
    state, errors = engine.State(), 0
    for look in range(30):
        errors += look % 3 == 0
        arms = {digest * 64: counts(100 * look, errors) for digest in "ac"}
        now_s = at_s + look
        observed = Observed(server_id="s", at_s=now_s, epoch=0, latency_bounds_s=(0.1,), arms=arms)
        state = engine.look(
            from_jsonable(engine.Rules, document.rollout.rules["split"]), state, observed,
            candidate="c" * 64, control="a" * 64, epoch=0, now_s=now_s, weight_pct=5.0, min_requests=10,
        ).state  # fmt: skip
    rollout = rollouts.looked(
        rollouts.advance(document.rollout), now_s=1.7e9, verdict=Verdict.INCONCLUSIVE, reason=reason, num_requests=9,
        evidence=to_jsonable(state), waits_for=reason,
    )  # fmt: skip
    return dataclasses.replace(document, rollout=rollout, weight_pct=5.0)


def past_rollout(strategy: tuple[Strategy, ...], *, at_s: float, is_bad: bool = False) -> Rollout:
    """A rollout of these stages to its end, forty looks at each step; a bad candidate begins to fail in the middle."""
    shadow = Shadow(slices={"origin": ("EWR", "JFK")})
    settings = Settings(strategy=strategy, steps_pct=(20.0, 50.0, 100.0), shadow=shadow)
    rollout, rng = strategies.begin(settings), random.Random(7)  # noqa: S311 - the same pages every time
    for index, step in enumerate(rollout.plan):
        rollout = dataclasses.replace(rollout, index=index)
        if step.asks_evidence:
            at_s += 60
            rollout = _looked(rollout, rng, at_s=at_s, is_bad=is_bad)
    return rollout


def _looked(rollout: Rollout, rng: random.Random, *, at_s: float, is_bad: bool) -> Rollout:
    """One step, judged forty times by the code that judges."""
    kind = rollout.step.kind.value
    document = begin_deploy(ReleaseDocument(product="flights", champion=CHAMPION), CANDIDATE, epoch=0)
    totals = {CHAMPION.digest: _Totals(rng), CANDIDATE.digest: _Totals(rng)}
    rollout = dataclasses.replace(rollout, evidence={**rollout.evidence, kind: judges.begin(rollout)})
    for look in range(NUM_LOOKS):
        now_s = at_s + look
        totals[CHAMPION.digest].add(400, 0.01)
        totals[CANDIDATE.digest].add(200, 0.08 if is_bad and look > NUM_LOOKS // 2 else 0.01)
        arms = {digest: total.counts() for digest, total in totals.items()}
        observed = Observed(server_id="s", at_s=now_s, epoch=0, latency_bounds_s=(0.1,), arms=arms)
        rows = tuple(
            MirroredRow(difference=rng.gauss(0.02, 0.03), slices=(f"origin={rng.choice(['EWR', 'JFK'])}",))
            for _ in range(20)
        )
        mirrored = Mirrored(
            log_id="l", first=20 * look, at_s=now_s, epoch=0, candidate=CANDIDATE.digest, control=CHAMPION.digest,
            rows=rows,
        )  # fmt: skip
        seen = Seen(loaded=frozenset(), weights_pct={}, endpoint_epoch=0, observed=observed, mirrored=mirrored)
        said = judges.look(dataclasses.replace(document, rollout=rollout), rollout, seen, now_s)
        assert said
        rollout = dataclasses.replace(rollout, evidence={**rollout.evidence, kind: said.state})
    reason = "; ".join(f"{check.name}: {check.reason}" for check in said.judgement.checks)
    return rollouts.looked(
        rollout, now_s=at_s + NUM_LOOKS, verdict=said.judgement.verdict, reason=reason, evidence=said.state,
        num_requests=said.num_requests,
    )  # fmt: skip


class _Totals:
    """Counters of one version that only rise."""

    def __init__(self, rng: random.Random) -> None:
        self._rng, self.num, self.errors, self.outcomes = rng, 0, 0, 0

    def add(self, num: int, share: float) -> None:
        self.num += num
        self.errors += sum(self._rng.random() < share for _ in range(num))
        self.outcomes += sum(self._rng.random() < 0.3 for _ in range(num))

    def counts(self) -> ArmCounts:
        slow = self.errors // 2
        return dataclasses.replace(
            counts(self.num, self.errors), latencies=(self.num - slow, slow), num_outcomes=self.num,
            outcome_sum=float(self.outcomes), outcome_square_sum=float(self.outcomes),
        )  # fmt: skip


def keep(env: Environment, entry: HistoryEntry, rollout: Rollout | None) -> None:
    """An ended release as the deploy stage leaves it in storage."""
    storage, layout = open_storage(env.store_root), Layout(env.store_root, "flights")
    keep_history(storage, layout, ReleaseDocument(product="flights", history=(entry,)))
    if rollout is not None:
        record = {"phase": "deploying", "reason": "", "rollout": to_jsonable(rollout)}
        storage.write(layout.rollout_record(entry.release_id), json.dumps(record).encode())


def ended(
    number: int, *, at_s: float, outcome: Outcome = Outcome.PROMOTED, reason: str = "as good as the one before"
) -> HistoryEntry:
    """The `number`th release."""
    before, after = f"{number:064x}", f"{number + 1:064x}"
    return HistoryEntry(
        release_id=f"release-{number}", outcome=outcome, before=before, at_s=at_s, reason=reason, candidate=after,
        after=after if outcome is Outcome.PROMOTED else before,
    )  # fmt: skip


def counts(num: int, errors: int) -> ArmCounts:
    """What one version did so far."""
    return ArmCounts(
        num_requests=num, num_errors=errors, latencies=(num, 0), num_scores=num, score_sum=0.3 * num,
        score_square_sum=0.1 * num,
    )  # fmt: skip


def pages_app() -> Any:
    """The plugin's application where Airflow mounts it, with Airflow's simple auth manager."""
    with warnings.catch_warnings():  # what Airflow imports warns of what it imports
        warnings.simplefilter("ignore")
        from airflow.api_fastapi.app import create_auth_manager
        from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
        from airflow.api_fastapi.core_api.security import get_user
        from airflow.models import import_all_models
        from airflow.models.base import Base
        from airflow.settings import engine as database
    from fastapi import FastAPI

    from clearway_airflow.ui.app import PREFIX, app

    import_all_models()
    Base.metadata.create_all(database)  # the auth manager asks it which team a DAG belongs to
    manager = create_auth_manager()
    whole = FastAPI()
    whole.state.auth_manager = app.state.auth_manager = manager
    app.dependency_overrides[get_user] = lambda: SimpleAuthManagerUser(username=PERSON, role="admin")
    whole.mount(PREFIX, app)
    return whole


@contextlib.contextmanager
def running_pages() -> Iterator[str]:
    """The address of the pages for the length of a block; the environment is that of this process."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(pages_app(), host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + START_TIMEOUT_S
    while not server.started:
        assert time.monotonic() < deadline, "the pages did not start"
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/clearway"
    finally:
        server.should_exit = True
        thread.join(START_TIMEOUT_S)
