"""Scoring a batch: every row answered and logged once, whatever was sent before and whoever died."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from clearway.contracts.errors import ConfigError, Unavailable
from clearway.contracts.verdict import Verdict
from clearway.infra.layout import Layout
from clearway.infra.parquet import from_parquet
from clearway.infra.storage import open_storage
from clearway.serve.logged import logged_by
from clearway.serve.run import score_batch
from clearway.serve.sending import CHUNK_ROWS, TableRows
from serving_kit import CATEGORICAL, NUMERIC, PRODUCT, InProcessEndpoint, expected_score, make_package

COLUMNS = (*NUMERIC, *CATEGORICAL)
BATCH = "2013-04-01"
START = datetime(2013, 4, 1, tzinfo=UTC)


def batch(num_rows, first=0):
    numbers = range(first, first + num_rows)
    return pa.table(
        {
            "key": [f"k{i}" for i in numbers],
            "event_time": pa.array([START + timedelta(minutes=i) for i in numbers], pa.timestamp("us", "UTC")),
            "hour": pa.array([None if i % 7 == 0 else float(i % 24) for i in numbers], pa.float64()),
            "distance": pa.array([i * 3 for i in numbers], pa.int64()),
            "carrier": pa.array([("AA", "ZZ", None)[i % 3] for i in numbers], pa.string()),
        }
    )


@pytest.fixture
def layout(env):
    return Layout(env.store_root, PRODUCT)


@pytest.fixture
def endpoint(env):
    made = InProcessEndpoint(env)
    yield made
    made.close()


@pytest.fixture
def score(env, endpoint, layout):
    def scored(table):
        return score_batch(
            table,
            TableRows(COLUMNS),
            batch_id=BATCH,
            endpoint=endpoint,
            storage=open_storage(env.store_root),
            layout=layout,
        )

    return scored


def serve(env, endpoint, bias, epoch=1):
    ref = make_package(env, bias)
    endpoint.load(uri=ref.uri, digest=ref.digest, epoch=epoch)
    endpoint.set_weights({ref.digest: 100.0}, epoch=epoch)
    return ref


def logged_rows(env, layout):
    storage = open_storage(env.store_root)
    tables = [from_parquet(storage.read(uri)) for uri in storage.list(layout.predictions(BATCH))]
    return [row for table in tables for row in table.to_pylist()]


def test_every_row_is_answered_and_logged_once_with_its_time(env, endpoint, layout, score):
    ref, table = serve(env, endpoint, 0.3), batch(2 * CHUNK_ROWS + 17)
    outputs = score(table)
    assert (outputs.verdict, outputs.num_rows, outputs.num_sent) == (Verdict.PASS, len(table), len(table))
    assert outputs.digest == ref.digest
    rows = {row["key"]: row for row in logged_rows(env, layout)}
    assert len(rows) == len(logged_rows(env, layout)) == len(table)
    for given in table.to_pylist():
        row = rows[given["key"]]
        assert row["score"] == pytest.approx(expected_score(0.3, given), abs=1e-6)
        assert (row["event_time"], row["batch_id"], row["epoch"]) == (given["event_time"], BATCH, 1)


def test_scoring_again_sends_nothing_and_says_the_same(env, endpoint, score):
    serve(env, endpoint, 0.3)
    first, again = score(batch(40)), score(batch(40))
    assert (again.num_sent, again.digest, again.num_rows) == (0, first.digest, first.num_rows)


def test_rows_another_model_answered_are_not_sent_again(env, endpoint, layout, score):
    one = serve(env, endpoint, 0.3)
    score(batch(30))
    two = serve(env, endpoint, 0.6, epoch=2)
    outputs = score(batch(40))
    assert (outputs.num_sent, outputs.digest) == (10, one.digest)
    found = logged_by(open_storage(env.store_root), layout, BATCH)
    assert sum(digest == two.digest for digest in found.values()) == 10


def test_rows_a_dying_server_forgot_are_sent_again(env, endpoint, layout, score, monkeypatch):
    serve(env, endpoint, 0.3)
    log, is_forgotten = endpoint.server.prediction_log, []
    offer = log.offer

    def forgetful(entry):
        if not is_forgotten:
            is_forgotten.append(True)  # answered, then killed before the queue was written
            return True
        return offer(entry)

    monkeypatch.setattr(log, "offer", forgetful)
    table = batch(CHUNK_ROWS + 10)
    outputs = score(table)
    assert outputs.num_sent == len(table) + CHUNK_ROWS
    keys = [row["key"] for row in logged_rows(env, layout)]
    assert len(keys) == len(set(keys)) == len(table)


def test_rows_that_never_reach_the_log_are_an_error_not_a_pass(env, endpoint, score, monkeypatch):
    serve(env, endpoint, 0.3)
    monkeypatch.setattr(endpoint.server.prediction_log, "offer", lambda _: False)
    with pytest.raises(Unavailable, match="5 of 5 rows"):
        score(batch(5))


def test_without_a_model_nothing_is_scored(score):
    with pytest.raises(Unavailable, match="no model takes traffic"):
        score(batch(5))


def test_a_column_the_model_does_not_know_is_named(env, endpoint, score):
    serve(env, endpoint, 0.3)
    with pytest.raises(ConfigError, match="carrier"):
        score(batch(5).drop_columns(["carrier"]).append_column("carrier", pa.array([1, 2, 3, 4, 5])))
