"""Requests answered on their connection: over real sockets, the same bytes, counts and log rows as the usual way."""

import asyncio
import dataclasses
import json
import random
import subprocess
import sys
from itertools import islice

import pytest
from onnx import TensorProto, helper

from clearway.serve import protocol
from clearway.serve.app import Limits
from clearway.serve.gate import Budgets, Gate, Rules
from clearway.serve.process import make_server
from connection_kit import ONE, PLAIN, answer_on, exchange, listening, message, run, status_of
from hostile_kit import fixed, fuzzed
from serving_kit import ROW, call, expected_score, make_package

# The same answer is wanted, in words that only the usual way reads.
USUAL = (*PLAIN, (b"accept", b"application/json;q=1"))


def json_of(answer):
    return json.loads(answer.split(b"\r\n\r\n", 1)[1])


@pytest.fixture
def server(env):
    """A server of one version that notes what is answered at once."""
    made = make_server(env, product="flights", isolates=False)
    ref = make_package(env, 0.1)
    made.versions.load(ref.uri, ref.digest, epoch=1)
    made.versions.set_weights({ref.digest: 100.0}, epoch=1)
    yield made
    made.prediction_log.close()


@pytest.fixture
def at_once(server, monkeypatch):
    """Of every request that was looked at, whether its answer was begun at once."""
    seen, take = [], server.at_once.take

    def spied(*arguments):
        app = take(*arguments)
        seen.append(app is None)
        return app

    monkeypatch.setattr(server.at_once, "take", spied)
    return seen


def plain_bodies():
    rows = [ROW, ROW | {"hour": None}, ROW | {"carrier": "ZZ"}, {"carrier": None, "distance": 3, "hour": -0.0}]
    yield from ({"instances": [row]} for row in rows)
    yield {"instances": rows * 4, "keys": [f"k{i}" for i in range(16)], "batch_id": "b1"}
    yield {"dataframe_split": {"columns": list(ROW), "data": [list(ROW.values())] * 2}}
    yield {"instances": [ROW], "event_times": ["2026-01-02T03:04:05Z"]}


@pytest.mark.parametrize("body", [*plain_bodies()])
@pytest.mark.parametrize("trace", [(), ((b"traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"),)])
def test_the_usual_request_gets_the_same_bytes_counts_and_log_rows_at_once(server, at_once, body, trace):
    data = json.dumps(body).encode()
    logged, counts = [], []
    for headers in (PLAIN, USUAL):
        ((answer,),) = run(server, [message(data, (*headers, *trace))])
        assert status_of(answer) == 200
        logged.append((answer, [entry._replace(at_s=0.0) for entry in server.prediction_log._entries]))
        arm = dataclasses.replace(server.observed().arms[json_of(answer)["model_digest"]], latencies=())
        counts.append((arm, server.num_in_flight))
        server.prediction_log._entries.clear()
        server.counters.arms.clear()
    assert at_once == [True, False]
    assert logged[0] == logged[1]
    assert counts[0] == counts[1]


def wrong_bodies():
    yield from (b"", b"{", b"[1]", b'{"instances": []}', b'{"instances": [NaN]}', b"\xff")
    rows = ({}, ROW | {"hour": "7"}, ROW | {"hour": 1e39}, ROW | {"more": 1}, ROW | {"carrier": 7})
    yield from (json.dumps({"instances": [ROW, row]}).encode() for row in rows)
    yield json.dumps({"instances": [ROW], "keys": []}).encode()
    yield ONE.replace(b'"hour"', b'"hour": 1, "hour"', 1)


def test_what_is_wrong_gets_the_same_refusal_as_the_usual_way_and_takes_no_neighbour_with_it(server, at_once):
    bodies = [*wrong_bodies()]
    usual = run(server, *([message(body, USUAL)] for body in bodies))
    assert at_once == [False] * len(bodies)
    mixed = run(server, *([message(data)] for body in bodies for data in (body, ONE)))
    assert [answer for (answer,) in mixed[::2]] == [answer for (answer,) in usual]
    assert {status_of(answer) for (answer,) in usual} == {400, 422}
    assert all(json_of(answer)["predictions"] == pytest.approx([expected_score(0.1, ROW)]) for (answer,) in mixed[1::2])
    counts = [n for (status, _, _), n in server.counters.requests.items() if status == 200]
    assert counts == [len(bodies)]
    assert server.num_in_flight == 0


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (((b"content-type", b"text/csv"),), b"hour,distance,carrier\n7,500,AA\n"),
        ((*PLAIN, (b"x-clearway-probe", b"1")), ONE),
        (PLAIN, json.dumps({"instances": [ROW] * 17}).encode()),
        (PLAIN, json.dumps({"instances": [ROW] * 1_000}).encode()),
        ((*PLAIN, (b"accept", b"text/csv")), ONE),
    ],
    ids=["csv", "probe", "many rows", "a large body", "another answer"],
)
def test_the_unusual_is_answered_the_usual_way(server, at_once, headers, body):
    ((answer,),) = run(server, [message(body, headers)])
    assert status_of(answer) == 200
    assert at_once in ([False], [])


def test_a_refused_content_type_or_coding_is_refused(server, at_once):
    answers = run(server, [message(headers=())], [message(headers=(*PLAIN, (b"content-encoding", b"gzip")))])
    assert [status_of(answer) for (answer,) in answers] == [415, 415]
    assert at_once == [False, False]


def test_pipelined_requests_are_answered_in_order(server, at_once):
    rows = [ROW | {"hour": float(hour)} for hour in range(6)]
    wanted = [message(json.dumps({"instances": [row]}).encode()) for row in rows]
    wanted.insert(2, message(b"{"))
    wanted.insert(5, message(b"", (), target=b"GET /ping HTTP/1.1"))
    ((*answers,),) = run(server, [b"".join(wanted)], num_answers=8)
    assert [status_of(answer) for answer in answers] == [200, 200, 400, 200, 200, 200, 200, 200]
    scores = [json_of(answers[i])["predictions"][0] for i in (0, 1, 3, 4, 6, 7)]
    assert scores == pytest.approx([expected_score(0.1, row) for row in rows])
    assert at_once[0]


def test_one_connection_is_used_again_and_again(server, at_once):
    ((*answers,),) = run(server, [message()] * 5, num_answers=5)
    assert [status_of(answer) for answer in answers] == [200] * 5
    assert at_once == [True] * 5


@pytest.mark.parametrize("cut", [1, 20, len(message()) - len(ONE), len(message()) - 1])
def test_a_request_in_pieces_is_answered(server, cut):
    whole = message()
    ((*answers,),) = run(server, [whole[:cut], whole[cut:] + whole], num_answers=2)
    assert [status_of(answer) for answer in answers] == [200, 200]
    assert answers[0] == answers[1]


def test_chunks_and_continue_and_old_http_are_answered(server, at_once):
    chunked = message(
        b"%x\r\n%s\r\n0\r\n\r\n" % (len(ONE), ONE), (*PLAIN, (b"transfer-encoding", b"chunked")), length=False
    )
    old = message(target=b"POST /invocations HTTP/1.0")
    found = run(server, [chunked], [old])
    assert [status_of(answer) for (answer,) in found] == [200, 200]
    assert b"connection: close\r\n" in found[1][0]

    async def waits_for_a_word():
        async with listening(server) as (port, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            head, _, body = message(headers=(*PLAIN, (b"expect", b"100-continue"))).partition(b"\r\n\r\n")
            writer.write(head + b"\r\n\r\n")
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(body)
            answer = await answer_on(reader)
            writer.close()
            return answer

    assert status_of(asyncio.run(asyncio.wait_for(waits_for_a_word(), 30))) == 200
    assert at_once == []


def test_a_caller_who_wants_no_more_is_told_goodbye(server, at_once):
    async def last_words():
        async with listening(server) as (port, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(message(headers=(*PLAIN, (b"connection", b"close"))))
            found = await reader.read()
            writer.close()
            return found

    answer = asyncio.run(asyncio.wait_for(last_words(), 30))
    assert b"connection: close\r\n" in answer
    assert json_of(answer)["predictions"] == pytest.approx([expected_score(0.1, ROW)])
    assert at_once == []


def test_a_caller_who_hangs_up_takes_no_neighbour_with_him(server, at_once):
    async def some_leave():
        async with listening(server) as (port, state):
            leaving = [await asyncio.open_connection("127.0.0.1", port) for _ in range(4)]
            staying = [asyncio.ensure_future(exchange(port, message())) for _ in range(4)]
            for _, writer in leaving:
                writer.write(message())
                writer.transport.abort()
            answers = [(await task)[0] for task in staying]
            while state.connections:
                await asyncio.sleep(0.01)
            return answers

    answers = asyncio.run(asyncio.wait_for(some_leave(), 30))
    assert [status_of(answer) for answer in answers] == [200] * 4
    assert server.num_in_flight == 0


class _Drawn(random.Random):  # noqa: S311 - splits traffic
    """Counts draws."""

    num_draws = 0

    def random(self):
        self.num_draws += 1
        return super().random()


def never_finite():
    """A graph whose score is always infinite."""
    nodes = [
        helper.make_node("ReduceSum", ["numeric", "axis"], ["sum"], keepdims=0),
        helper.make_node("Sub", ["sum", "sum"], ["zero"]),
        helper.make_node("Reciprocal", ["zero"], ["score"]),
    ]
    inputs = [
        helper.make_tensor_value_info("numeric", TensorProto.FLOAT, ["B", 2]),
        helper.make_tensor_value_info("categorical", TensorProto.INT64, ["B", 1]),
    ]
    outputs = [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["B"])]
    axis = helper.make_tensor("axis", TensorProto.INT64, [1], [1])
    graph = helper.make_graph(nodes, "never", inputs, outputs, [axis])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


def test_a_request_keeps_the_version_it_was_given_when_that_one_fails(server, env, monkeypatch):
    good = next(iter(server.versions.serving.loaded))
    monkeypatch.setattr("clearway.serve.loaded._is_row_wise", lambda *_: True)  # it cannot be scored, so not checked
    bad = make_package(env, 0.2, model=never_finite())
    server.versions.load(bad.uri, bad.digest, epoch=1)
    server.versions.set_weights({good: 60.0, bad.digest: 40.0}, epoch=1)
    server.random_source = _Drawn(1)
    answers = run(server, *([message()] for _ in range(60)))
    assert {status_of(answer) for (answer,) in answers} == {200}
    assert {json_of(answer)["model_digest"] for (answer,) in answers} == {good}
    arms = server.observed().arms
    assert server.random_source.num_draws == 60
    assert arms[good].num_requests + arms[bad.digest].num_requests == 60
    assert (arms[good].num_errors, arms[bad.digest].num_errors) == (0, arms[bad.digest].num_requests)
    assert arms[bad.digest].num_requests > 10


def test_a_sticky_caller_stays_with_one_version(server, env):
    first = next(iter(server.versions.serving.loaded))
    second = make_package(env, 0.9)
    server.versions.load(second.uri, second.digest, epoch=1)
    server.versions.set_weights({first: 50.0, second.digest: 50.0}, epoch=1)
    for _ in range(2):
        asked = ([message(headers=(*PLAIN, (b"x-clearway-sticky-key", b"caller-%d" % i)))] for i in range(20))
        digests = [json_of(answer)["model_digest"] for (answer,) in run(server, *asked)]
        assert digests == [
            server.choose(server.versions.serving, {b"x-clearway-sticky-key": b"caller-%d" % i}).digest
            for i in range(20)
        ]
    assert set(digests) == {first, second.digest}


def test_over_the_limit_of_requests_the_answer_is_to_come_back(server, at_once):
    server.limits = Limits(max_in_flight=0)
    ((answer,),) = run(server, [message()])
    assert status_of(answer) == 503
    assert json_of(answer)["error"]["code"] == "overloaded"


def test_nothing_gets_past_the_gate(server, at_once):
    gate = Gate(server, Rules(budgets=Budgets(rate_per_s=1e-6, burst=1)))
    answers = run(gate, [message()] * 2, num_answers=2)[0]
    assert [status_of(answer) for answer in answers] == [200, 429]
    assert at_once == []


@pytest.mark.parametrize(
    ("asked", "limit"), [(b"", "HEADER_TIMEOUT_S"), (message(), "KEEP_ALIVE_S"), (message()[:9], "HEADER_TIMEOUT_S")]
)
def test_a_connection_that_stays_silent_is_closed(server, monkeypatch, asked, limit):
    async def wait_for_the_end():
        async with listening(server) as (port, state):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(asked)
            if limit == "KEEP_ALIVE_S":
                await answer_on(reader)
            while not state.connections:
                await asyncio.sleep(0.01)
            connection = next(iter(state.connections))
            connection._close_if_waiting()
            was_closing = connection.transport.is_closing()
            monkeypatch.setattr(protocol, limit, 0.0)
            connection._close_if_waiting()
            writer.close()
            return was_closing, connection.transport.is_closing()

    assert asyncio.run(asyncio.wait_for(wait_for_the_end(), 30)) == (False, True)


def test_a_server_that_stops_answers_what_it_has_begun(server, at_once):
    async def stop_meanwhile():
        async with listening(server) as (port, state):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            ask = server._answering.ask_soon

            def stop_first(*arguments):
                ask(*arguments)
                for connection in list(state.connections):
                    connection.shutdown()

            server.at_once._ask = stop_first
            writer.write(message())
            found = await reader.read()
            writer.close()
            return found

    answer = asyncio.run(asyncio.wait_for(stop_meanwhile(), 30))
    assert status_of(answer) == 200
    assert b"connection: close\r\n" in answer
    assert at_once == [True]


def test_hostile_bodies_are_refused_on_a_connection_as_in_the_app(attacked):
    requests = [*fixed(), *islice(fuzzed(random.Random(5)), 1_500)]  # noqa: S311
    bodies = [
        request.body
        for request in requests
        if (request.method, request.path, request.kind) == ("POST", "/invocations", "application/json")
        and len(request.body) <= protocol.MAX_AT_ONCE_BYTES
    ]
    for start in range(0, len(bodies), 100):
        part = bodies[start : start + 100]
        answers = [status_of(answer) for (answer,) in run(attacked, *([message(body)] for body in part))]
        assert answers == [call(attacked, "POST", "/invocations", body).status for body in part]
        assert max(answers) < 500
    assert len(bodies) > 300


def test_the_server_starts_without_what_it_needs_later(tmp_path):
    heavy = ("pyarrow", "fastapi", "pandas", "torch")
    script = f"import sys, clearway.serve.__main__; print(*[name for name in {heavy!r} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", script], text=True, cwd=tmp_path).split() == []
