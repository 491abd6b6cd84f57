"""The pages inside Airflow without the rest of Airflow: the plugin's own application behind a real HTTP server.

The right to read and to order is asked of Airflow's own auth manager; only who asks is told, since no login page runs.
"""

import contextlib
import dataclasses
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any

import airflow_kit  # noqa: F401 - a home of its own, before Airflow is imported
from clearway.contracts import rollout as rollouts
from clearway.contracts.codec import from_jsonable, to_jsonable
from clearway.contracts.observed import ArmCounts, Observed
from clearway.contracts.release_document import ReleaseDocument, Version, begin_deploy
from clearway.contracts.verdict import Verdict
from clearway.deploy import strategies
from clearway.evidence import engine
from clearway.product_rollout import Rollout as Settings

CHAMPION = Version(uri="file:///m", digest="a" * 64, release_id="r-2")
CANDIDATE = Version(uri="file:///n", digest="c" * 64, release_id="r-3")
PERSON = "Ada"
START_TIMEOUT_S = 30.0


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
