"""Training and serving compute the same: rows through the server's own path against the offline tables, bit for bit.

Values are those of a wide product: integers, floats with every kind of extreme, missing numbers, known, rare, unknown
and missing categories.
"""

import asyncio

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from clearway.infra.environment import Environment
from clearway.infra.layout import Layout
from clearway.infra.storage import open_storage
from clearway.packaging.encoder import Encoder
from clearway.packaging.package import PackageContents, open_package, write_package
from clearway.packaging.runtime import OnnxScorer
from clearway.serve.decode import decode
from clearway.serve.process import make_server
from serving_kit import JSON_HEADERS, call_async, linear_onnx

pytestmark = pytest.mark.slow
NUM_ROWS = 120_000
CHUNK_ROWS = 500
NUMERIC = tuple(f"n{i}" for i in range(12))
CATEGORICAL = tuple(f"c{i}" for i in range(4))


def column(source, kind):
    missing = source.random(NUM_ROWS) < 0.05
    if kind == 0:
        return pa.array(source.integers(-(2**53), 2**53, NUM_ROWS), pa.int64(), mask=missing)
    if kind == 1:
        exponents = source.uniform(-44, 37, NUM_ROWS)  # down to float32 denormals, up to its largest decade
        return pa.array(source.choice([-1.0, 1.0], NUM_ROWS) * 10**exponents, pa.float64(), mask=missing)
    if kind == 2:
        values = np.array([0.0, -0.0, 0.1, 1 / 3, 16_777_217.0, 1e-46, -1e-45, 3.4e38, 5e-324])
        return pa.array(source.choice(values, NUM_ROWS), pa.float64(), mask=missing)
    if kind == 3:
        return pa.array(source.normal(0, 1e3, NUM_ROWS).astype(np.float32), pa.float32(), mask=missing)
    return pa.array(source.normal(0, 1e3, NUM_ROWS), pa.float64(), mask=missing)


def table_of(seed):
    source = np.random.default_rng(seed)
    columns = {name: column(source, i % 5) for i, name in enumerate(NUMERIC)}
    values = np.array(
        ["AA", "a:b", 'quo"te', "ünïcode", "\N{SNOWMAN}", "", " AA", "aa", "back\\slash", "tab\t", "nul\0"]
    )
    for name in CATEGORICAL:
        columns[name] = pa.array(source.choice(values, NUM_ROWS), pa.string(), mask=source.random(NUM_ROWS) < 0.05)
    return pa.table(columns)


@pytest.fixture(scope="module")
def packaged(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    env = Environment.load({"CLEARWAY__HOME": str(home), "CLEARWAY__STORAGE__ROOT": (home / "store").as_uri()})
    table = table_of(1)
    encoder = Encoder.fit(table.slice(0, 50_000), numeric=NUMERIC, categorical=CATEGORICAL, min_count=20)
    contents = PackageContents(
        model=linear_onnx(0.1, num_numeric=len(NUMERIC), num_categorical=len(CATEGORICAL)),
        weights=b"",
        encoder=encoder,
        schema={},
        reference={},
        golden={"rows": table.slice(0, 2).to_pylist(), "scores": [0.5, 0.5]},
        facts={},
    )
    storage, layout = open_storage(env.store_root), Layout(env.store_root, "wide")
    ref = write_package(storage, layout, contents, key_folder=env.home / "keys")
    server = make_server(env, product="wide")
    server.versions.load(ref.uri, ref.digest, epoch=1)
    server.versions.set_weights({ref.digest: 100.0}, epoch=1)
    yield server, open_package(storage, ref.uri, ref.digest, key_folder=env.home / "keys")
    server.prediction_log.close()


def bodies(table):
    for start in range(0, len(table), CHUNK_ROWS):
        chunk = table.slice(start, CHUNK_ROWS)
        if (start // CHUNK_ROWS) % 2:
            yield msgspec.json.encode({"instances": chunk.to_pylist()})
        else:
            data = list(zip(*(chunk[name].to_pylist() for name in chunk.column_names), strict=True))
            yield msgspec.json.encode({"dataframe_split": {"columns": chunk.column_names, "data": data}})


def test_every_served_row_is_encoded_as_the_table_is(packaged):
    _, package = packaged
    table = table_of(2)
    numeric, categorical = package.encoder.encode_table(table)
    num_mismatches = num_rows = 0
    for body in bodies(table):
        rows = decode(body).rows
        served_numeric, served_categorical = package.encoder.encode_rows(rows)
        at = slice(num_rows, num_rows + len(rows))
        num_mismatches += int((served_numeric.view(np.int32) != numeric[at].view(np.int32)).any(axis=1).sum())
        num_mismatches += int((served_categorical != categorical[at]).any(axis=1).sum())
        num_rows += len(rows)
    assert (num_rows, num_mismatches) == (NUM_ROWS, 0)


def test_every_served_score_is_the_offline_score(packaged):
    server, package = packaged
    table = table_of(3).slice(0, 100_000)
    offline = OnnxScorer(package).score_table(table).astype(np.float64)

    async def ask():
        scores = []
        for body in bodies(table):
            answer = await call_async(server, "POST", "/invocations", body, headers=[*JSON_HEADERS])
            assert answer.status == 200, answer.body
            scores += answer.json["predictions"]
        return np.array(scores)

    served = asyncio.run(ask())
    assert len(served) == 100_000
    assert int((served != offline).sum()) == 0
