"""A server with a language model: texts in, bits per byte out, and nothing that is no text or too long."""

import asyncio
import json
import os
import signal

import msgspec
import numpy as np
import pytest

from clearway.infra.endpoint.local import LOAD_TIMEOUT_S
from clearway.infra.environment import Environment
from clearway.kinds.scorers import PATIENCE_S, START_S, open_scorer, start_s
from clearway.packaging.text import MAX_TEXTS
from clearway.serve.children import Nursery
from clearway.serve.process import make_server
from language_kit import TINY, make_world
from serving_kit import JSON_HEADERS, call, call_async

MAX = TINY.max_text_bytes
TEXT = "Lists the tags of a queue."


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def served(home):
    """(server, package) of a model that has learned next to nothing."""
    env = Environment.load({"CLEARWAY__HOME": str(home), "CLEARWAY__STORAGE__ROOT": (home / "store").as_uri()})
    world = make_world(env)
    ref = world.package(home / "job", num_epochs=1)
    server = make_server(env, product="api_docs", isolates=False)
    server.versions.load(ref.uri, ref.digest, epoch=1)
    server.versions.set_weights({ref.digest: 100.0}, epoch=1)
    yield server, world.open(ref)
    server.prediction_log.close()


def ask(server, *texts, path="/invocations"):
    return call(server, "POST", path, json.dumps({"instances": [{"text": t} for t in texts]}).encode())


def test_texts_are_answered_with_what_training_wrote_down(served):
    server, package = served
    rows, scores = package.golden["rows"], package.golden["scores"]
    answer = ask(server, *(row["text"] for row in rows))
    assert (answer.status, answer.json["predictions"]) == (200, scores)
    assert ask(server, rows[1]["text"]).json["predictions"] == scores[1:2]  # alone as in company


def test_every_format_gives_the_same_score(served):
    server, _ = served
    expected = ask(server, TEXT).json["predictions"]
    for kind, body in (
        (b"text/csv", f'text\r\n"{TEXT}"\r\n'.encode()),
        (b"application/jsonlines", json.dumps({"text": TEXT}).encode()),
    ):
        answer = call(server, "POST", "/invocations", body, headers=[(b"content-type", kind)])
        assert answer.json["predictions"] == expected, kind
    tensor = {"name": "text", "datatype": "BYTES", "shape": [1], "data": [TEXT]}
    answer = call(server, "POST", "/v2/models/api_docs/infer", msgspec.json.encode({"inputs": [tensor]}))
    assert answer.json["outputs"][0]["data"] == expected
    described = call(server, "GET", "/v2/models/api_docs").json
    assert (described["platform"], [i["name"] for i in described["inputs"]]) == ("pytorch", ["text"])


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"text": ""}, "has 0 bytes; allowed: a text of 1 to 400 bytes"),
        ({"text": "a" * (MAX + 1)}, "has 401 bytes"),
        ({"text": "é" * (MAX // 2) + "a"}, "has 401 bytes"),
        ({"text": None}, "is a NoneType"),
        ({"text": 3}, "is a int"),
        ({}, "'text': is missing"),
        ({"text": TEXT, "author": "me"}, "'author': is not a column"),
    ],
)
def test_what_is_no_text_is_refused_with_the_words_for_it(served, row, words):
    server, _ = served
    body = json.dumps({"instances": [{"text": TEXT}, row]}).encode()
    answer = call(server, "POST", "/invocations", body)
    assert (answer.status, answer.code) == (422, "bad_value")
    message = answer.json["error"]["message"]
    assert message.startswith("row 1") and words in message, message


def test_a_request_is_bounded_in_bytes_of_text(served):
    server, _ = served
    longest = "a" * MAX
    assert ask(server, *[longest] * MAX_TEXTS).status == 200
    answer = ask(server, *[longest] * MAX_TEXTS, "b")
    assert (answer.status, answer.code) == (422, "bad_value")
    assert f"allowed: {MAX_TEXTS * MAX} bytes of text in one request" in answer.json["error"]["message"]


def test_texts_are_scored_off_the_event_loop(served):
    """While one request is scored the loop answers another."""
    server, _ = served
    body = json.dumps({"instances": [{"text": "a" * MAX}] * MAX_TEXTS}).encode()

    async def both():
        slow = asyncio.create_task(call_async(server, "POST", "/invocations", body, headers=JSON_HEADERS))
        while not server.num_in_flight:
            await asyncio.sleep(0)
        ping = await call_async(server, "GET", "/ping")
        return slow.done(), ping, await slow

    was_done, ping, slow = asyncio.run(both())
    assert (was_done, ping.status, slow.status) == (False, 200, 200)


def test_what_is_answered_at_once_is_scored_in_a_thread_too(served):
    server, package = served
    version = server.versions.serving.loaded[package.digest]

    async def asked(rows):
        answered = asyncio.get_running_loop().create_future()
        server._answering.ask_soon(version, rows, answered.set_result)
        assert not answered.done()
        return await answered

    assert asyncio.run(asked([{"text": TEXT}])) == open_scorer(package).score_rows([{"text": TEXT}]).tolist()
    assert "is missing" in str(asyncio.run(asked([{}])))


@pytest.mark.slow
def test_a_candidate_that_reads_texts_is_waited_for_longer_than_one_that_reads_rows(served, home):
    _, package = served
    rows, scores = package.golden["rows"], package.golden["scores"]
    nursery = Nursery(home / "serving" / "api_docs", home / "keys")
    child = nursery.start("file:///of/no/matter", package)

    async def ask_while_it_stands_still():
        os.kill(child.pid, signal.SIGSTOP)
        asyncio.get_running_loop().call_later(PATIENCE_S * 1.5, os.kill, child.pid, signal.SIGCONT)
        return await child.ask(rows)

    try:
        assert asyncio.run(ask_while_it_stands_still()) == scores
    finally:
        child._abandon()
        nursery.close()


def test_a_candidate_that_reads_texts_may_start_for_longer_and_whoever_asked_for_it_still_waits(served):
    _, package = served
    assert START_S < start_s(package) < LOAD_TIMEOUT_S < Environment.load({}).release_store.lease_ttl_s


def test_the_server_describes_what_it_takes(served):
    server, _ = served
    document = call(server, "GET", "/openapi.json").json
    content = document["paths"]["/invocations"]["post"]["requestBody"]["content"]["application/json"]
    row = content["schema"]["properties"]["instances"]["items"]
    assert row["properties"]["text"]["maxLength"] == MAX
    assert row["required"] == ["text"]
    assert ask(server, content["example"]["instances"][0]["text"]).status == 200


def test_a_text_is_scored_alike_in_any_company(served):
    _, package = served
    scorer = open_scorer(package)
    texts = [row["text"] for row in package.golden["rows"]]
    together = scorer.score(texts)
    assert np.array_equal(together, np.concatenate([scorer.score([text]) for text in texts]))
    assert not scorer.is_quick
