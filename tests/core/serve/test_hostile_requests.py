"""Hostile requests over every format and route, straight into the app: no answer of class 5xx, and traffic stays."""

import asyncio
import random
from collections import Counter
from itertools import islice

import pytest

from hostile_kit import NUM_FIXED, ROUTES, fixed, fuzzed
from serving_kit import PRODUCT, call_async

NUM_FUZZED = 3_000
ALLOWED = {200, 400, 401, 404, 405, 406, 408, 409, 413, 415, 422}


def statuses_of(app, requests):
    async def attack():
        found = Counter()
        for request in requests:
            headers = [(b"content-type", request.kind.encode()), *request.headers]
            if request.is_admin:
                headers.append((b"authorization", f"Bearer {app._token}".encode()))
            answer = await call_async(app, request.method, request.path, request.body, headers=headers)
            assert answer.status in ALLOWED, (answer.status, answer.body, request)
            found[answer.status] += 1
        return found

    return asyncio.run(attack())


@pytest.mark.slow
def test_no_hostile_request_gets_a_5xx_or_moves_traffic(attacked):
    before = attacked.versions.serving
    statuses = statuses_of(attacked, fixed())
    assert sum(statuses.values()) == NUM_FIXED
    statuses += statuses_of(attacked, islice(fuzzed(random.Random(3)), NUM_FUZZED))  # noqa: S311
    assert {200, 400, 401, 404, 405, 406, 413, 415, 422} <= set(statuses)
    assert attacked.versions.serving.traffic is before.traffic


def test_every_described_route_is_among_those_attacked(attacked):
    paths = asyncio.run(call_async(attacked, "GET", "/openapi.json")).json["paths"]
    known = {route.replace("0" * 64, "{digest}").replace(PRODUCT, "{name}") for route in ROUTES} | {"/admin/observe"}
    assert {path for path in paths if not path.endswith("/examples")} <= known
