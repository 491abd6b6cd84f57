"""Requests of one loop turn share a call of the model: same bits as alone, and nobody suffers from a neighbour."""

import asyncio
import dataclasses
import json

import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper

from clearway.infra.layout import Layout
from clearway.infra.storage import open_storage
from clearway.packaging.encoder import Encoder
from clearway.packaging.package import PackageContents, write_package
from clearway.serve.process import make_server
from clearway.tabular.bins import Bins
from clearway.tabular.export import to_onnx
from clearway.tabular.model import ModelShape, build, parameter_arrays
from serving_kit import JSON_HEADERS, call_async

NUMERIC, CARRIERS = tuple(f"n{i}" for i in range(12)), ("AA", "DL", "UA")
ENCODER = Encoder(numeric=NUMERIC, categorical=("carrier",), vocabulary={"carrier": CARRIERS})
SHAPE = ModelShape(
    num_numeric=len(NUMERIC),
    num_bins=6,
    numeric_dim=4,
    cardinalities=(4,),
    embedding_dim=3,
    hidden=(40, 24),
    num_members=3,
    dropout=0.0,
)


def network(seed):
    values = np.random.default_rng(9).normal(size=(400, len(NUMERIC))).astype(np.float32)
    return to_onnx(parameter_arrays(build(SHAPE, seed=seed)), SHAPE, Bins.fit(values, num_bins=SHAPE.num_bins))


def small_graph(*steps):
    """A graph from `numeric` to `score` that takes the first column as `x`."""
    names = {"first": np.array(0), "row_axis": np.array([0])}
    constants = [helper.make_tensor(k, TensorProto.INT64, v.shape, v.ravel().tolist()) for k, v in names.items()]
    take = helper.make_node("Gather", ["numeric", "first"], ["x"], axis=1)
    nodes = [take, *(helper.make_node(op, list(inputs), [out]) for op, inputs, out in steps)]
    inputs = [
        helper.make_tensor_value_info("numeric", TensorProto.FLOAT, ["B", len(NUMERIC)]),
        helper.make_tensor_value_info("categorical", TensorProto.INT64, ["B", 1]),
    ]
    outputs = [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["B"])]
    graph = helper.make_graph(nodes, "small", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


# Its scores hang on the mean of the rows beside them.
SOCIAL = small_graph(
    ("ReduceMean", ("x", "row_axis"), "mean"), ("Sub", ("x", "mean"), "other"), ("Sigmoid", ("other",), "score")
)
# Infinite for 0 in the first column.
RECIPROCAL = small_graph(("Reciprocal", ("x",), "score"))


def rows_of(num_rows, seed=1):
    rng = np.random.default_rng(seed)
    rows = []
    for values in rng.normal(size=(num_rows, len(NUMERIC))):
        row = {name: None if rng.random() < 0.1 else float(v) for name, v in zip(NUMERIC, values, strict=True)}
        rows.append(row | {NUMERIC[0]: 1.0 + float(values[0]) ** 2, "carrier": str(rng.choice(["AA", "UA", "ZZ"]))})
    return rows


class Counting:
    """A scorer that notes how many rows each call had."""

    def __init__(self, scorer):
        self.encoder, self.digest, self.calls, self._scorer = scorer.encoder, scorer.digest, [], scorer

    def score(self, numeric, categorical):
        self.calls.append(len(numeric))
        return self._scorer.score(numeric, categorical)

    def score_rows(self, rows):
        return self.score(*self.encoder.encode_rows(rows))


@pytest.fixture
def serve(env):
    """A server of these graphs in equal shares, and the counting scorer of each."""
    servers = []

    def make(*graphs):
        server = make_server(env, product="flights", isolates=False)
        servers.append(server)
        for graph in graphs:
            rows = rows_of(20, seed=3)
            golden = {"rows": rows, "scores": [0.5] * len(rows)}
            contents = PackageContents(
                model=graph, weights=b"", encoder=ENCODER, schema={}, reference={}, golden=golden, facts={}
            )
            layout = Layout(env.store_root, "flights")
            ref = write_package(open_storage(env.store_root), layout, contents, key_folder=env.home / "keys")
            server.versions.load(ref.uri, ref.digest, epoch=1)
        serving, counting = server.versions.serving, {}
        for digest, version in serving.loaded.items():
            counting[digest] = dataclasses.replace(version, scorer=Counting(version.scorer))
        server.versions.serving = dataclasses.replace(serving, loaded=counting)
        server.versions.set_weights(dict.fromkeys(counting, 100 / len(counting)), epoch=1)
        return server, [version.scorer for version in counting.values()]

    yield make
    for server in servers:
        server.prediction_log.close()


def ask(server, bodies):
    """All at once, on one event loop."""

    async def together():
        calls = (
            call_async(
                server,
                "POST",
                "/invocations",
                msgspec.json.encode({"instances": body}),
                headers=[*JSON_HEADERS, (b"x-clearway-sticky-key", b"%d" % i)],
            )
            for i, body in enumerate(bodies)
        )
        return await asyncio.gather(*calls)

    return asyncio.run(together())


@pytest.mark.parametrize("size", [1, 2, 3, 16, 40])
def test_requests_of_one_turn_take_one_call_and_get_the_bits_they_get_alone(serve, size):
    server, (scorer,) = serve(network(1))
    rows = rows_of(size, seed=size)
    alone = [float(scorer.score_rows([row])[0]) for row in rows]
    scorer.calls.clear()
    answers = ask(server, [[row] for row in rows])
    assert [answer.json["predictions"] for answer in answers] == [[score] for score in alone]
    assert scorer.calls == [size]


def test_requests_of_several_rows_get_their_own_scores_back(serve):
    server, (scorer,) = serve(network(1))
    bodies = [rows_of(n, seed=n) for n in (1, 5, 16, 2)]
    offline = [scorer.score_rows(body).tolist() for body in bodies]
    scorer.calls.clear()
    assert [answer.json["predictions"] for answer in ask(server, bodies)] == offline
    assert scorer.calls == [24]


def test_versions_are_scored_apart(serve):
    server, scorers = serve(network(1), network(2))
    rows = rows_of(30)
    answers = ask(server, [[row] for row in rows])
    by_digest = {scorer.digest: scorer for scorer in scorers}
    assert {answer.json["model_digest"] for answer in answers} == set(by_digest)
    assert all(len(scorer.calls) == 1 for scorer in scorers)
    for row, answer in zip(rows, answers, strict=True):
        expected = by_digest[answer.json["model_digest"]].score_rows([row])
        assert answer.json["predictions"] == expected.tolist()


def test_a_row_that_is_refused_takes_no_neighbour_with_it(serve):
    server, (scorer,) = serve(network(1))
    rows = rows_of(5)
    wrong = rows[2] | {"carrier": 7}
    answers = ask(server, [[row] for row in (*rows[:2], wrong, *rows[3:])])
    assert [answer.status for answer in answers] == [200, 200, 422, 200, 200]
    assert "carrier" in json.dumps(answers[2].json)
    assert scorer.calls == [4]


def test_a_score_that_is_not_finite_is_refused_to_its_caller_only(serve):
    server, (scorer,) = serve(RECIPROCAL)
    rows = [{**row, NUMERIC[0]: value} for row, value in zip(rows_of(3), (2.0, 0.0, 4.0), strict=True)]
    answers = ask(server, [[row] for row in rows])
    assert [answer.status for answer in answers] == [200, 422, 200]
    assert [answers[i].json["predictions"] for i in (0, 2)] == [[0.5], [0.25]]
    assert answers[1].code == "no_finite_score"
    assert scorer.calls == [3, 1, 1, 1]


def test_a_model_whose_scores_hang_on_their_neighbours_is_never_given_any(serve):
    server, (scorer,) = serve(SOCIAL)
    assert not next(iter(server.versions.serving.loaded.values())).is_row_wise
    answers = ask(server, [[row] for row in rows_of(6)])
    assert [answer.json["predictions"] for answer in answers] == [[0.5]] * 6
    assert scorer.calls == [1] * 6


def test_a_caller_that_is_cancelled_takes_no_neighbour_with_it(serve):
    server, (scorer,) = serve(network(1))
    version, rows = next(iter(server.versions.serving.loaded.values())), rows_of(3)

    async def cancel_one():
        tasks = [asyncio.ensure_future(server._answering._turns.score(version, [row])) for row in rows]
        await asyncio.sleep(0)  # all wait now
        tasks[1].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    found = asyncio.run(cancel_one())
    assert isinstance(found[1], asyncio.CancelledError)
    assert [found[0], found[2]] == [scorer.score_rows([rows[i]]).tolist() for i in (0, 2)]


@pytest.mark.parametrize("is_slow_first", [True, False])
def test_a_slow_version_delays_its_own_callers_only(serve, is_slow_first):
    server, (one, two) = serve(network(1), network(2))
    turns, happened = server._answering._turns, []
    slow, quick = server.versions.serving.loaded[one.digest], server.versions.serving.loaded[two.digest]
    turns._took_s = {slow.digest: 0.5, quick.digest: 0.001}  # what they took last time

    async def ask(version, name):
        await turns.score(version, rows_of(1))
        happened.append(name)
        if name == "quick":
            assert slow.scorer.calls == [], "the slow version is asked after the quick one's callers were answered"

    async def together():
        pair = [ask(slow, "slow"), ask(quick, "quick")]
        await asyncio.gather(*(pair if is_slow_first else reversed(pair)))

    asyncio.run(together())
    assert happened == ["quick", "slow"]
    assert slow.scorer.calls == [1]


def test_a_model_too_slow_to_be_checked_is_given_no_company(serve, monkeypatch):
    monkeypatch.setattr("clearway.serve.loaded.MAX_CHECK_S", -1.0)
    server, (scorer,) = serve(network(1))
    answers = ask(server, [[row] for row in rows_of(3)])
    assert [answer.status for answer in answers] == [200] * 3
    assert scorer.calls == [1] * 3


def test_an_answer_that_cannot_be_given_takes_no_neighbour_with_it(serve, caplog):
    server, _ = serve(network(1))
    version, rows, found = next(iter(server.versions.serving.loaded.values())), rows_of(3), []

    def broken(_):
        raise RuntimeError("the caller's side is gone")

    async def together():
        loop = asyncio.get_running_loop()
        for row, answer in zip(rows, (found.append, broken, found.append), strict=True):
            server._answering._turns.ask(version, [row], answer, loop)
        while len(found) < 2:
            await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(together(), 10))
    assert found == [version.scorer.score_rows([rows[i]]).tolist() for i in (0, 2)]
    assert "could not be given" in caplog.text
