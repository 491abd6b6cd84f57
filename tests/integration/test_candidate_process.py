"""A candidate in a process of its own: whatever becomes of it, callers are answered, and it is taken out of service."""

import contextlib
import functools
import http.client
import json
import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from clearway.contracts.errors import ConfigError, IntegrityError
from clearway.infra.endpoint import DeadMan, Mirror
from clearway.infra.storage import open_storage
from clearway.packaging.package import open_package
from clearway.serve.children import MAX_FAILURES_IN_A_ROW, Nursery
from clearway.serve.local_copy import LocalCopy
from serving_kit import (
    PRODUCT,
    ROW,
    ServerProcess,
    client_of,
    environment_at,
    expected_score,
    free_port,
    linear_onnx,
    make_package,
    running_server,
)

pytestmark = pytest.mark.slow


@pytest.fixture
def local(env):
    return environment_at(env, free_port())


def children(server: ServerProcess):
    return [p for p in psutil.Process(server.process.pid).children() if p.status() != psutil.STATUS_ZOMBIE]


def the_child(server):
    """The candidate's process; the champion's own ends once it has moved into the gateway."""
    assert eventually(lambda: len(children(server)) == 1)
    return children(server)[0]


def is_gone(pid):
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


def eventually(is_so, *, timeout_s=60.0):
    deadline = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def split(env, share_pct=50.0, *, model=b"", mirror=False):
    """A champion that held all traffic and a candidate with a share; their packages and the client."""
    client, champion, candidate = client_of(env), make_package(env, 0.3), make_package(env, 0.6, model=model)
    for ref in (champion, candidate):
        client.load(uri=ref.uri, digest=ref.digest, epoch=1)
    client.set_weights({champion.digest: 100.0}, epoch=1)
    table = {candidate.digest: share_pct, champion.digest: 100.0 - share_pct} if share_pct else {champion.digest: 100.0}
    copies = Mirror(digest=candidate.digest, columns=("carrier",)) if mirror else None
    client.set_weights(table, epoch=1, mirror=copies)
    return client, champion, candidate


def watched(env, *, model=b""):
    """A candidate that has all traffic and is not champion yet."""
    client, champion, candidate = split(env, 0.0, model=model)
    dead_man = DeadMan(stable=champion.digest, after_s=3600)
    client.set_weights({candidate.digest: 100.0}, epoch=1, dead_man=dead_man)
    return client, champion, candidate


class Caller:
    """One caller, with a connection per request as from many machines."""

    def __init__(self, env):
        host, port = env.endpoint.url.removeprefix("http://").split(":")
        self.address = host, int(port)

    def ask(self, *rows, **headers):
        body = json.dumps({"instances": rows or [ROW]})
        with contextlib.closing(http.client.HTTPConnection(*self.address, timeout=60)) as connection:
            connection.request("POST", "/invocations", body, {"content-type": "application/json", **headers})
            with connection.getresponse() as response:
                return response.status, json.loads(response.read()), dict(response.getheaders())


def arm(client, ref):
    return client.observe(epoch=client.state().epoch).arms.get(ref.digest)


def test_the_champion_is_in_the_gateway_and_the_candidate_is_not(local):
    with running_server(local) as server:
        client, champion, candidate = split(local)
        assert the_child(server)
        caller, biases = Caller(local), {champion.digest: 0.3, candidate.digest: 0.6}
        for _ in range(40):
            status, answer, headers = caller.ask()
            bias = biases[headers["x-clearway-model-digest"]]
            assert status == 200
            assert answer["predictions"] == [pytest.approx(expected_score(bias, ROW), abs=1e-6)]
        assert arm(client, candidate).num_errors == 0
        assert client.predict(client.examples(candidate.digest), digest=candidate.digest)[1] == candidate.digest
        client.set_weights({candidate.digest: 100.0}, epoch=1)
        assert eventually(lambda: not children(server))  # it answers from the gateway now, and so does the way back
        assert caller.ask()[1]["model_digest"] == candidate.digest
        client.set_weights({champion.digest: 100.0}, epoch=1)
        assert caller.ask()[1]["model_digest"] == champion.digest


def test_unloading_ends_the_child(local):
    with running_server(local) as server:
        client, champion, candidate = split(local)
        client.set_weights({champion.digest: 100.0}, epoch=1)
        assert the_child(server)
        client.unload(candidate.digest, epoch=1)
        assert eventually(lambda: not children(server))
        assert client.state().broken == {}


def test_a_killed_candidate_costs_no_request_and_loses_its_share_for_good(local):
    with running_server(local) as server:
        client, champion, candidate = split(local)
        failures, num_asked, stop = [], [0], threading.Event()

        def ask():
            caller = Caller(local)
            while not stop.is_set():
                status, answer, headers = caller.ask()
                num_asked[0] += 1
                bias = 0.3 if headers["x-clearway-model-digest"] == champion.digest else 0.6
                if status != 200 or abs(answer["predictions"][0] - expected_score(bias, ROW)) > 1e-6:
                    failures.append((status, answer))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert eventually(lambda: num_asked[0] > 100)
        child = the_child(server)
        os.kill(child.pid, signal.SIGKILL)
        assert eventually(lambda: client.state().weights_pct == {champion.digest: 100.0})
        stop.set()
        for thread in threads:
            thread.join(60)
        assert not failures
        state = client.state()
        assert state.broken == {candidate.digest: "its process was ended by signal 9 (SIGKILL)"}
        assert state.loaded == (champion.digest,)
        server.kill()
        with running_server(local):
            assert client.state() == state
            client.load(uri=candidate.uri, digest=candidate.digest, epoch=2)
            assert client.state().broken == {}
            assert client.predict([ROW], digest=candidate.digest)[1] == candidate.digest


def test_a_hung_candidate_keeps_callers_for_a_bounded_time_and_goes(local):
    with running_server(local) as server:
        client, champion, candidate = split(local, 99.0)
        child = the_child(server)
        os.kill(child.pid, signal.SIGSTOP)
        caller, took_s = Caller(local), []
        while client.state().weights_pct != {champion.digest: 100.0}:
            began = time.monotonic()
            status, answer, _ = caller.ask()
            took_s.append(time.monotonic() - began)
            assert (status, answer["model_digest"]) == (200, champion.digest)
        assert max(took_s) < 15  # each waits one second for the candidate, and then for this machine
        found = arm(client, candidate)
        assert found.num_errors == found.num_requests
        assert sum(found.latencies[-2:]) == MAX_FAILURES_IN_A_ROW  # over a second; while it is killed nobody waits
        assert "no answer within 1 s" in client.state().broken[candidate.digest]
        assert eventually(lambda: is_gone(child.pid))


def planted(*, limit):
    """The linear model, with no finite score for hours above `limit`."""
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load_from_string(linear_onnx(0.6, num_numeric=2, num_categorical=1))
    graph = model.graph
    for name, kind, shape, value in (
        ("from", TensorProto.INT64, [1], 0),
        ("to", TensorProto.INT64, [1], 1),
        ("columns", TensorProto.INT64, [1], 1),
        ("last", TensorProto.FLOAT, [], limit),
        ("nought", TensorProto.FLOAT, [], 0.0),
    ):
        graph.initializer.append(helper.make_tensor(name, kind, shape, [value]))
    nodes = [
        helper.make_node("Slice", ["known", "from", "to", "columns"], ["hour"]),
        helper.make_node("Sub", ["last", "hour"], ["left"]),
        helper.make_node("Sqrt", ["left"], ["extra"]),
        helper.make_node("Mul", ["extra", "nought"], ["nothing"]),
        helper.make_node("ReduceSum", ["nothing"], ["none"], keepdims=0),
    ]
    honest = list(graph.node)
    place = [node.op_type for node in honest].index("Sum")
    honest[place].input.append("none")
    del graph.node[:]
    graph.node.extend([*honest[:place], *nodes, *honest[place:]])
    return model.SerializeToString()


def test_what_only_the_candidate_refuses_is_its_error_and_what_both_refuse_is_the_callers(local):
    with running_server(local):
        client, champion, candidate = split(local, 100.0 - 1e-9, model=planted(limit=24.0))
        caller = Caller(local)
        status, answer, _ = caller.ask(ROW | {"hour": 30.0})
        assert (status, answer["model_digest"]) == (200, champion.digest)
        found = arm(client, candidate)
        assert (found.num_requests, found.num_errors, found.num_scores) == (1, 1, 0)
        assert arm(client, champion) is None or arm(client, champion).num_requests == 0
        status, answer, _ = caller.ask(ROW | {"hour": "late"})
        assert (status, answer["error"]["code"]) == (422, "bad_value")
        found = arm(client, candidate)
        assert (found.num_requests, found.num_errors) == (2, 1)
        assert caller.ask(ROW | {"distance": 10**25})[0] == 200  # beyond 64 bits, within float32: both take it
        found = arm(client, candidate)
        assert (found.num_requests, found.num_errors, found.num_scores) == (3, 1, 1)


def test_large_requests_go_to_the_child_whole_and_beyond_its_room_to_the_champion(local):
    rows = [ROW | {"distance": float(i), "carrier": "A" * 700} for i in range(900)]  # 0.7 MB, more than a socket holds
    with running_server(local) as server:
        client, champion, candidate = split(local, 100.0 - 1e-9)
        scores = [expected_score(0.6, row) for row in rows]
        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(lambda _: Caller(local).ask(*rows), range(24)))
        for status, answer, _ in answers:
            assert (status, answer["model_digest"]) == (200, candidate.digest)
            assert answer["predictions"] == pytest.approx(scores, abs=1e-6)
        os.kill(the_child(server).pid, signal.SIGSTOP)
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(lambda _: Caller(local).ask(*rows), range(20)))
        assert {(status, answer["model_digest"]) for status, answer, _ in answers} == {(200, champion.digest)}
        assert eventually(lambda: candidate.digest in client.state().broken)


def test_copies_reach_the_child_and_a_dead_one_ends_the_mirroring(local):
    with running_server(local) as server:
        client, champion, candidate = split(local, 0.0, mirror=True)
        caller = Caller(local)
        for _ in range(20):
            assert caller.ask()[1]["model_digest"] == champion.digest
        assert eventually(lambda: len(client.mirrored(first=0, epoch=1).rows) == 20)
        gap = expected_score(0.6, ROW) - expected_score(0.3, ROW)
        rows = client.mirrored(first=0, epoch=1).rows
        assert {row.slices for row in rows} == {("carrier=AA",)}
        assert [row.difference for row in rows] == [pytest.approx(gap, abs=1e-6)] * 20
        os.kill(the_child(server).pid, signal.SIGKILL)
        assert eventually(lambda: client.state().mirror is None)
        assert candidate.digest in client.state().broken
        assert caller.ask()[1]["model_digest"] == champion.digest


def test_a_killed_gateway_leaves_no_orphan_even_if_its_child_hangs(local):
    with running_server(local) as server:
        split(local)
        child = the_child(server)
        os.kill(child.pid, signal.SIGSTOP)
        server.kill()
        assert eventually(lambda: is_gone(child.pid))


def test_sigterm_ends_gateway_and_child_and_a_restart_has_both_again(local):
    with running_server(local) as server:
        client, champion, candidate = split(local, 25.0)
        client.set_weights(
            {candidate.digest: 25.0, champion.digest: 75.0},
            epoch=1,
            dead_man=DeadMan(stable=champion.digest, after_s=3600),
            mirror=Mirror(digest=candidate.digest, columns=("hour",)),
        )
        before, child = client.state(), the_child(server)
        os.kill(child.pid, signal.SIGTERM)  # as to a whole process group: the gateway decides
        assert server.stop() == 0
        assert is_gone(child.pid)
    with running_server(local) as server:
        assert client.state() == before
        assert the_child(server)
        caller = Caller(local)
        answered = {caller.ask(**{"x-clearway-sticky-key": str(i)})[1]["model_digest"] for i in range(40)}
        assert answered == {champion.digest, candidate.digest}


def test_under_watch_the_champion_answers_for_a_candidate_that_fails_and_is_never_blamed(local):
    with running_server(local) as server:
        client, champion, candidate = watched(local, model=planted(limit=24.0))
        child, caller = the_child(server), Caller(local)
        asked = [ROW, ROW | {"hour": 30.0}] * 20
        for row in asked:
            status, answer, headers = caller.ask(row)
            wanted, bias = (candidate, 0.6) if row is ROW else (champion, 0.3)
            assert (status, headers["x-clearway-model-digest"]) == (200, wanted.digest)
            assert answer["predictions"] == [pytest.approx(expected_score(bias, row), abs=1e-6)]
        found = arm(client, candidate)
        assert (found.num_requests, found.num_errors) == (40, 20)
        os.kill(child.pid, signal.SIGKILL)
        for _ in range(20):
            status, answer, _ = caller.ask()
            assert (status, answer["model_digest"]) == (200, champion.digest)
        assert eventually(lambda: client.state().weights_pct == {champion.digest: 100.0})
        assert "signal 9" in client.state().broken[candidate.digest]
        assert arm(client, champion).num_errors == 0


def test_a_watch_that_passes_brings_its_candidate_into_the_gateway(local):
    with running_server(local) as server:
        client, _, candidate = watched(local)
        assert the_child(server)
        client.set_weights({candidate.digest: 100.0}, epoch=1)
        assert eventually(lambda: not children(server))
        assert Caller(local).ask()[1]["model_digest"] == candidate.digest
        assert arm(client, candidate).num_errors == 0


def test_a_burst_of_callers_is_no_fault_of_a_watched_candidate(local):
    num = 150
    with running_server(local) as server:
        client, _, candidate = watched(local)
        assert the_child(server)
        host, port = local.endpoint.url.removeprefix("http://").split(":")
        body = json.dumps({"instances": [ROW]}).encode()
        head = f"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        with contextlib.ExitStack() as stack:
            connect = functools.partial(socket.create_connection, (host, int(port)), timeout=60)
            socks = [stack.enter_context(connect()) for _ in range(num)]
            os.kill(server.process.pid, signal.SIGSTOP)  # so that all have asked before the first is read
            for sock in socks:
                sock.sendall(head.encode() + b"\r\n\r\n" + body)
            os.kill(server.process.pid, signal.SIGCONT)
            answers = [sock.recv(65536) for sock in socks]
        assert {candidate.digest.encode() in answer for answer in answers} == {True}
        found = arm(client, candidate)
        assert (found.num_requests, found.num_errors) == (num, 0)


@pytest.fixture
def nursery(env):
    made = Nursery(env.home / "serving" / PRODUCT, env.home / "keys")
    yield made
    made.close()


def package_of(env, ref):
    LocalCopy(env.home / "serving" / PRODUCT, key_folder=env.home / "keys").fetch(ref.uri, ref.digest)
    return open_package(open_storage(env.store_root), ref.uri, ref.digest, key_folder=env.home / "keys")


def test_a_child_that_is_never_ready_is_ended(env, nursery):
    ref = make_package(env, 0.3)
    before = set(psutil.Process().children())
    with pytest.raises(ConfigError, match=r"was not ready within 0.01 s"):
        nursery.start(ref.uri, package_of(env, ref), timeout_s=0.01)
    assert not set(psutil.Process().children()) - before


def test_a_package_that_its_child_cannot_serve_is_refused_with_its_reason(env, nursery):
    ref = make_package(env, 0.3, model=b"no graph")
    with pytest.raises(ConfigError, match="InvalidProtobuf"):
        nursery.start(ref.uri, package_of(env, ref))
    good = make_package(env, 0.4)
    package = package_of(env, good)
    file = env.home / "serving" / PRODUCT / "packages" / good.digest / "model.onnx"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(IntegrityError, match="other bytes than its signed manifest"):
        nursery.start(good.uri, package)
