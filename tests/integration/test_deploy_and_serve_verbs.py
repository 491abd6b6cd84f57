"""The verbs as a job runner calls them: environment and product in, outputs out; real server, store, registry, rows."""

import os
import time
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from clearway.contracts.errors import ConfigError, Unavailable
from clearway.contracts.verdict import Verdict
from clearway.deploy.champion_alias import alias_digest, project_champion
from clearway.deploy.reconcile import reconcile
from clearway.deploy.run import rollback
from clearway.deploy.run import run as deploy
from clearway.deploy.spec import RollbackInputs
from clearway.infra.datasets import FEATURES_FILE, DatasetDocument, Piece, write_dataset
from clearway.infra.layout import Layout
from clearway.infra.parquet import to_parquet
from clearway.infra.release_store import open_release_store
from clearway.infra.snapshots import new_attempt, publish, seal
from clearway.infra.storage import join, open_storage
from clearway.product import Rollout
from clearway.serve.run import run as serve
from clearway.serve.spec import Inputs
from serving_kit import (
    CATEGORICAL,
    NUMERIC,
    PRODUCT,
    ROW,
    approved,
    client_of,
    environment_at,
    free_port,
    make_package,
    running_server,
)

pytestmark = [
    pytest.mark.slow,
    # MLflow's own imports.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
NUM_ROWS = 6_500  # a week of flights
BATCH = "2013-04-01"


@pytest.fixture
def product(flights):
    """The flights product with the test model's columns, deployed at once: nobody calls here while a canary waits."""
    changes = {"numeric": NUMERIC, "categorical": CATEGORICAL, "slices": (), "deny": ()}
    features = flights.spec.features.model_copy(update=changes)
    spec = flights.spec.model_copy(update={"features": features, "rollout": Rollout()})
    return flights.model_copy(update={"spec": spec})


@pytest.fixture
def local(env):
    return environment_at(env, free_port())


def dataset_of(env, num_rows):
    storage, layout, start = (
        open_storage(env.store_root),
        Layout(env.store_root, PRODUCT),
        datetime(2013, 4, 1, tzinfo=UTC),
    )
    instants = [start + timedelta(seconds=60 * i) for i in range(num_rows)]
    table = pa.table(
        {
            "key": [f"k{i}" for i in range(num_rows)],
            "event_time": pa.array(instants, pa.timestamp("us", "UTC")),
            "day": pa.array([i.date() for i in instants], pa.date32()),
            "hour": [float(i % 24) for i in range(num_rows)],
            "distance": [float(i) for i in range(num_rows)],
            "carrier": ["AA"] * num_rows,
        }
    )
    base = layout.features(BATCH)
    attempt = new_attempt(base)
    storage.write(join(attempt, FEATURES_FILE), to_parquet(table))
    snapshot = seal(storage, attempt, num_rows={FEATURES_FILE: num_rows}, facts={})
    publish(storage, base, snapshot)
    piece = Piece(batch_id=BATCH, digest=snapshot.digest, num_rows=num_rows)
    document = DatasetDocument(product=PRODUCT, as_of="2013-04-08T00:00:00Z", schema={}, features=(piece,), labels=())
    return write_dataset(storage, layout, document)


def test_release_rollback_and_reconcile_with_the_registry_following(local, product):
    one, two = make_package(local, 0.1), make_package(local, 0.2)
    with running_server(local):
        for ref, name in ((one, "r1"), (two, "r2")):
            assert deploy(approved(local, ref, name), product=product, env=local).verdict is Verdict.PASS
            assert alias_digest(local, PRODUCT) == ref.digest
        order = RollbackInputs(product=PRODUCT, release_id="o1", reason="a test")
        assert rollback(order, product=product, env=local).verdict is Verdict.PASS
        assert client_of(local).predict([ROW])[1] == one.digest
        assert alias_digest(local, PRODUCT) == two.digest
        assert [str(found) for found in reconcile(product, local)] == ["move_alias"]
        assert alias_digest(local, PRODUCT) == one.digest
        assert reconcile(product, local) == ()


def test_a_registry_that_is_down_does_not_fail_a_deployment(local, product):
    down = local.model_copy(update={"tracking": local.tracking.model_copy(update={"uri": "http://127.0.0.1:9"})})
    ref = make_package(local, 0.1)
    with running_server(local):
        assert deploy(approved(local, ref, "r1"), product=product, env=down).verdict is Verdict.PASS
        document, _ = open_release_store(local).read(PRODUCT)
        assert document.champion.digest == ref.digest
        assert project_champion(down, PRODUCT, document.champion) is False


def test_a_deployment_without_a_server_is_unavailable_and_can_be_retried(local, product):
    ref = make_package(local, 0.1)
    with pytest.raises(Unavailable):
        deploy(approved(local, ref, "r1"), product=product, env=local)
    with running_server(local):
        assert deploy(approved(local, ref, "r1"), product=product, env=local).verdict is Verdict.PASS


def test_a_week_is_scored_within_three_cpu_seconds_on_both_sides(local, product):
    import psutil

    dataset = dataset_of(local, NUM_ROWS)
    inputs = Inputs(product=PRODUCT, release_id="s1", dataset=dataset, batch_id=BATCH)
    ref = make_package(local, 0.1)
    with running_server(local) as server:
        deploy(approved(local, ref, "r1"), product=product, env=local)
        process = psutil.Process(server.process.pid)
        before_s, began_s = sum(process.cpu_times()[:2]), time.process_time()
        outputs = serve(inputs, product=product, env=local)
        spent_s = sum(process.cpu_times()[:2]) - before_s + time.process_time() - began_s
        again = serve(inputs, product=product, env=local)
    assert (outputs.num_rows, outputs.num_sent, outputs.digest) == (NUM_ROWS, NUM_ROWS, ref.digest)
    assert (again.num_sent, again.digest) == (0, ref.digest)
    assert spent_s < 3.0, spent_s
    os.write(2, f"a week of {NUM_ROWS} rows: {spent_s:.2f} CPU s on both sides\n".encode())


def test_a_batch_that_is_not_in_the_dataset_is_named(local, product):
    inputs = Inputs(product=PRODUCT, release_id="s1", dataset=dataset_of(local, 5), batch_id="2013-04-08")
    with pytest.raises(ConfigError, match=r"2013-04-08.*holds \['2013-04-01'\]"):
        serve(inputs, product=product, env=local)


def test_rolling_back_by_hand_works_each_time_it_is_needed(local, monkeypatch):
    import argparse

    from clearway.deploy.controls import open_controls
    from clearway.deploy.run import deploy as deploy_with
    from clearway.launch.commands import rollback as command

    monkeypatch.setenv("CLEARWAY__HOME", str(local.home))
    monkeypatch.setenv("CLEARWAY__STORAGE__ROOT", local.store_root)
    monkeypatch.setenv("CLEARWAY__ENDPOINT__URL", local.endpoint.url)
    good, by_hand = make_package(local, 0.1), argparse.Namespace(product=PRODUCT, reason="a test")
    with running_server(local):
        controls = open_controls(local, product=PRODUCT)
        for number in range(2):
            for ref, name in ((good, f"good{number}"), (make_package(local, 1.0 + number), f"bad{number}")):
                inputs = approved(local, ref, name)
                assert deploy_with(inputs, controls=controls, project=lambda _: None).verdict is Verdict.PASS
            assert command.run(by_hand)["verdict"] == Verdict.PASS
            assert client_of(local).predict([ROW])[1] == good.digest
            assert command.run(by_hand)["verdict"] == Verdict.FAIL
            assert client_of(local).predict([ROW])[1] == good.digest
