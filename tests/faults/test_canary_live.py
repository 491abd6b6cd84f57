"""Canaries on a real server process with live callers: a good model goes up, three kinds of bad ones go back."""

import itertools
import json
import threading
import urllib.request

import onnx
import pytest
from onnx import TensorProto, helper

from clearway.contracts.release_document import Phase
from clearway.contracts.verdict import Verdict
from clearway.deploy.run import deploy
from clearway.deploy.strategies import begin
from clearway.infra.clock import SystemClock
from clearway.infra.endpoint.local import LocalEndpoint
from clearway.infra.release_store import open_release_store
from clearway.launch.callers import Callers
from clearway.product_rollout import Rollout as Settings
from serving_kit import (
    PRODUCT,
    ROW,
    approved,
    client_of,
    controls_of,
    environment_at,
    free_port,
    linear_onnx,
    make_package,
    running_server,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PLAN = Settings(
    strategy="canary",
    steps_pct=(20.0, 100.0),
    min_requests=50,
    min_step_s=1.0,
    max_step_s=60.0,
    error_margin=0.05,
    slow_s=0.05,
    slow_margin=0.1,
    dry_run=(),
)
# Callers ask for hours that no golden row holds; the crashing model has no finite score for one of them.
ASKED = [ROW | {"hour": hour} for hour in (1.0, 5.0, 9.0, 30.0)]


def planted(kind: str) -> bytes:
    """The linear model with something added to its logit that is zero on golden rows."""
    model = onnx.load_from_string(linear_onnx(0.12, num_numeric=2, num_categorical=1))
    graph = model.graph
    hour = helper.make_node("Slice", ["known", "from", "to", "columns"], ["hour"])
    for name, value in (("from", 0), ("to", 1), ("columns", 1)):
        graph.initializer.append(helper.make_tensor(name, TensorProto.INT64, [1], [value]))
    if kind == "crashing":  # the square root of a negative number for hour 30
        graph.initializer.append(helper.make_tensor("last", TensorProto.FLOAT, [], [24.0]))
        nodes = [
            hour,
            helper.make_node("Sub", ["last", "hour"], ["left"]),
            helper.make_node("Sqrt", ["left"], ["extra"]),
        ]
    else:  # three products of 1,200 x 1,200, made from the input so that nothing is computed beforehand
        graph.initializer.append(helper.make_tensor("size", TensorProto.INT64, [2], [1_200, 1_200]))
        first = helper.make_node("ReduceMax", ["known"], ["top"], keepdims=0)
        nodes = [hour, first, helper.make_node("Expand", ["top", "size"], ["m0"])]
        nodes += [helper.make_node("MatMul", [f"m{i}", "m0"], [f"m{i + 1}"]) for i in range(3)]
        nodes += [helper.make_node("ReduceMean", ["m3"], ["extra"], keepdims=0)]
    graph.initializer.append(helper.make_tensor("nought", TensorProto.FLOAT, [], [0.0]))
    nodes += [
        helper.make_node("Mul", ["extra", "nought"], ["nothing"]),
        helper.make_node("ReduceSum", ["nothing"], ["none"], keepdims=0),
    ]
    honest = list(graph.node)
    place = [node.op_type for node in honest].index("Sum")
    honest[place].input.append("none")
    del graph.node[:]
    graph.node.extend([*honest[:place], *nodes, *honest[place:]])
    onnx.checker.check_model(model)
    return model.SerializeToString()


class AskedRows(LocalEndpoint):
    """The endpoint, whose example rows are those that callers ask for here."""

    def examples(self, digest):
        return ASKED if threading.current_thread().name == "callers" else super().examples(digest)


@pytest.fixture
def live(env):
    """(environment, controls) of a running server with a champion and callers."""
    local = environment_at(env, free_port())
    with running_server(local):
        controls = controls_of(local, client_of(local), clock=SystemClock(), lease_ttl_s=30.0)
        champion = make_package(local, 0.1)
        assert release(local, controls, champion, "r1").verdict is Verdict.PASS
        endpoint = AskedRows(local.endpoint.url, token_file=local.admin_token_file, timeout_s=20)
        crowd = Callers(open_release_store(local), endpoint, url=local.endpoint.url, product=PRODUCT)
        stop = threading.Event()
        thread = threading.Thread(
            target=crowd.run, kwargs={"should_stop": (stop.is_set() for _ in itertools.count())}, name="callers"
        )
        thread.start()
        try:
            yield local, controls, champion
        finally:
            stop.set()
            thread.join(60)


def release(env, controls, ref, release_id):
    return deploy(approved(env, ref, release_id), controls=controls, project=lambda _: None, rollout=begin(PLAN))


def test_a_good_model_takes_all_traffic(live):
    env, controls, champion = live
    candidate = make_package(env, 0.11)
    outputs = release(env, controls, candidate, "r2")
    assert outputs.verdict is Verdict.PASS, outputs.reason
    assert controls.endpoint.state().weights_pct == {candidate.digest: 100.0}
    arms = controls.endpoint.observe(epoch=controls.endpoint.state().epoch).arms
    assert min(arms[ref.digest].num_requests for ref in (champion, candidate)) >= 50
    assert {arm.num_errors for arm in arms.values()} == {0}


@pytest.mark.parametrize(
    ("kind", "finding"),
    [("crashing", "errors: harm shown"), ("slow", "slow: harm shown"), ("wrong", "score: shifted")],
)
def test_a_bad_model_goes_back_by_itself_and_its_callers_are_few(live, kind, finding):
    env, controls, champion = live
    candidate = make_package(env, 2.0) if kind == "wrong" else make_package(env, 0.12, model=planted(kind))
    outputs = release(env, controls, candidate, "r2")
    assert outputs.verdict is Verdict.FAIL
    assert finding in outputs.reason
    assert controls.endpoint.state().weights_pct == {champion.digest: 100.0}
    document = controls.store.read(PRODUCT)[0]
    assert (document.phase, document.champion.digest) == (Phase.IDLE, champion.digest)
    met = controls.endpoint.observe(epoch=controls.endpoint.state().epoch).arms[candidate.digest].num_requests
    assert met <= 400
    with urllib.request.urlopen(f"{env.endpoint.url}/ping", timeout=5) as answer:
        assert json.loads(answer.read()) == {}
