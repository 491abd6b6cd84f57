"""Thousands of bad bodies straight into the app: each gets a clear 4xx, none a 5xx, none an echo that is no JSON."""

import asyncio
import json
import random
from collections import Counter

import msgspec

from serving_kit import JSON_HEADERS, ROW, call_async

NUM_BODIES = 6_000
VALID = msgspec.json.encode(
    {"instances": [ROW, {**ROW, "carrier": None}], "keys": ["a", "b"], "batch_id": "2013-04-01"}
)
SPLIT = msgspec.json.encode({"dataframe_split": {"columns": list(ROW), "data": [list(ROW.values())] * 2}})
ALLOWED = {200, 400, 406, 408, 413, 415, 422}
# Texts that break parsers and the people who print what they parsed.
NASTY = [
    "NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1e-400", "-0.0", "9" * 400, "9" * 6000, "0x10", "01", "+1",
    ".5", "1.", "1e", "true", "false", "null", "[]", "{}", "[[]]", '""', '"NaN"', '"Infinity"', '"\\ud800"',
    '"\\udfff\\ud800"', '"\\u0000"', '"\x00"', '"\x7f"', '"\u2028"', '"\ufeff"', '"' + "x" * 5000 + '"', '"${jndi:ldap://x}"',
    '"{{7*7}}"',
    "'; DROP TABLE x; --", '"<script>"', "[" * 2000, "{" * 2000, '{"a":' * 500, "3.4028236e38", "1e39", "4.9e-324",
    "18446744073709551616", "-9223372036854775809", "NULL", "None", "undefined", "nan", "//", "/**/1", '"\\x41"', '"\\',
]  # fmt: skip


def mutants(source):
    """Endless broken variants of valid bodies: bytes flipped, cut, doubled, values swapped, names repeated."""
    while True:
        base = bytearray(source.choice((VALID, SPLIT)))
        kind = source.randrange(8)
        if kind == 0:
            for _ in range(source.randint(1, 6)):
                base[source.randrange(len(base))] = source.randrange(256)
        elif kind == 1:
            del base[source.randrange(len(base)) :]
        elif kind == 2:
            at = source.randrange(len(base))
            base[at:at] = source.choice(NASTY).encode("utf-8", "surrogatepass")
        elif kind == 3:
            start = source.randrange(len(base))
            base = base[:start] + base[start : start + source.randint(1, 40)] * 2 + base[start:]
        elif kind == 4:
            old = source.choice((b"7.0", b"500.0", b'"AA"', b"null", b'"a"', b'"2013-04-01"'))
            base = base.replace(old, source.choice(NASTY).encode("utf-8", "surrogatepass"))
        elif kind == 5:
            old = source.choice((b'"hour"', b'"carrier"', b'"instances"', b'"keys"', b'"columns"'))
            base = base.replace(old, source.choice((b'"distance"', b'"x"', b"7", b"null", b'""', b'"HOUR"')), 1)
        elif kind == 6:
            base = bytearray(source.randbytes(source.randint(0, 200)))
        else:
            value = source.choice(NASTY)
            base = bytearray(f'{{"instances":[{{"hour":{value},"distance":{value},"carrier":{value}}}]}}'.encode())
        yield bytes(base)


def no_constant(name):
    raise AssertionError(f"the answer has the literal {name}")


async def answers_to(app, bodies):
    return [(body, await call_async(app, "POST", "/invocations", body)) for body in bodies]


def test_no_bad_body_of_thousands_gets_a_5xx(attacked):
    generator = mutants(random.Random(20130401))  # noqa: S311
    bodies = [next(generator) for _ in range(NUM_BODIES)]
    statuses = Counter()
    for body, answer in asyncio.run(answers_to(attacked, bodies)):
        assert answer.status in ALLOWED, (answer.status, body)
        parsed = json.loads(answer.body.decode("utf-8"), parse_constant=no_constant)
        if answer.status == 200:
            assert all(0 <= score <= 1 for score in parsed["predictions"])
        else:
            assert set(parsed["error"]) == {"code", "message"}
            assert 5 < len(parsed["error"]["message"]) < 3000
        statuses[answer.status] += 1
    # The generator is alive: most bodies are bad in several ways, some mutants are still fine.
    assert statuses[200] > 50
    assert statuses[400] > 1000
    assert statuses[422] > 1000


def test_hostile_headers_get_no_5xx(attacked):
    source, statuses = random.Random(7), Counter()  # noqa: S311
    names = [
        b"content-type",
        b"content-length",
        b"content-encoding",
        b"x-request-id",
        b"x-clearway-sticky-key",
        b"accept",
    ]

    async def attack():
        for _ in range(1_000):
            headers = [(source.choice(names), source.randbytes(source.randint(0, 60))) for _ in range(4)]
            headers += list(JSON_HEADERS) if source.random() < 0.7 else []
            answer = await call_async(attacked, "POST", "/invocations", VALID, headers=headers)
            statuses[answer.status] += 1

    asyncio.run(attack())
    assert set(statuses) <= ALLOWED, statuses
    assert statuses[200] > 100
    assert statuses[415] > 50
