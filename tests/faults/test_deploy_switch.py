"""Switching versions under load: no failed request, no answer by a version that did not serve at that time."""

import asyncio
import json
import threading
import time

import pytest

from clearway.serve.traffic import ALL_PCT
from serving_kit import ROW, client_of, environment_at, expected_score, free_port, make_package, running_server

pytestmark = pytest.mark.slow
NUM_SWITCHES = 60
NUM_REQUESTS = 20_000
NUM_CLIENTS = 8
BIASES = (0.1, 0.9)


async def ask(reader, writer, request):
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.split(": ", 1) for line in head.decode().lower().split("\r\n")[1:-2])
    body = await reader.readexactly(int(fields["content-length"]))
    return int(head.split(b" ", 2)[1]), fields, body


async def client(host, port, request, budget, records, is_switching):
    reader, writer = await asyncio.open_connection(host, port)
    while budget[0] > 0 or is_switching():
        budget[0] -= 1
        began = time.monotonic()
        status, fields, body = await ask(reader, writer, request)
        records.append((began, time.monotonic(), status, fields.get("x-clearway-model-digest"), body))
    writer.close()
    await writer.wait_closed()


async def load(env, request, records, is_switching):
    host, port = env.endpoint.url.removeprefix("http://").split(":")
    budget = [NUM_REQUESTS]
    await asyncio.gather(*(client(host, int(port), request, budget, records, is_switching) for _ in range(NUM_CLIENTS)))


def test_fifty_switches_under_load_fail_nobody_and_answer_nothing_wrong(env):
    env = environment_at(env, free_port())
    refs = [make_package(env, bias) for bias in BIASES]
    scores = {ref.digest: expected_score(bias, ROW) for ref, bias in zip(refs, BIASES, strict=True)}
    body = json.dumps({"instances": [ROW]}).encode()
    headers = f"host: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    request = b"POST /invocations HTTP/1.1\r\n" + headers.encode() + body
    switches, records, failures = [], [], []

    def switch():
        try:
            for number in range(NUM_SWITCHES):
                digest, began = refs[(number + 1) % 2].digest, time.monotonic()
                endpoint.set_weights({digest: ALL_PCT}, epoch=1)
                switches.append((began, time.monotonic(), digest))
                time.sleep(0.02)
        except BaseException as error:  # handed to the test below
            failures.append(error)
            raise

    with running_server(env):
        endpoint = client_of(env)
        for ref in refs:
            endpoint.load(uri=ref.uri, digest=ref.digest, epoch=1)
        endpoint.set_weights({refs[0].digest: ALL_PCT}, epoch=1)
        switches.append((time.monotonic(), time.monotonic(), refs[0].digest))
        thread = threading.Thread(target=switch)
        thread.start()
        asyncio.run(load(env, request, records, thread.is_alive))
        thread.join()
    assert not failures
    assert len(switches) >= 51
    assert len(records) >= NUM_REQUESTS
    assert {status for _, _, status, _, _ in records} == {200}
    for began, ended, _, digest, answer in records:
        parsed = json.loads(answer)
        assert parsed["model_digest"] == digest
        assert parsed["predictions"][0] == pytest.approx(scores[digest], abs=1e-6)
        assert digest in served_between(switches, began, ended)
    assert {digest for *_, digest, _ in records} == set(scores)


def served_between(switches, began, ended):
    """Versions that may answer a request sent at `began` and answered at `ended`.

    A switch takes effect somewhere between its call and its return, so a table counts from its own call until the
    return of the next switch.
    """
    allowed = set()
    for number, (called, _, digest) in enumerate(switches):
        over = switches[number + 1][1] if number + 1 < len(switches) else float("inf")
        if called <= ended and over >= began:
            allowed.add(digest)
    return allowed
