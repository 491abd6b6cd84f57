"""Documents become tokens in Spark, and lie one behind the other where a language model maps them."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from clearway.contracts.verdict import Verdict
from clearway.infra.datasets import TOKENS, open_dataset, read_features, token_uris
from clearway.infra.environment import Environment
from clearway.infra.layout import Layout
from clearway.infra.spark import spark_session
from clearway.infra.storage import open_storage, to_path
from clearway.ingest.spec import Outputs as Landed
from clearway.language.stream import TokenStream
from clearway.language.tokens import MARK, STORED, text_of, tokens_of
from clearway.preprocess import text
from clearway.preprocess.leaks import check_leaks
from clearway.preprocess.spec import Outputs
from clearway.product import LoadedProduct
from clearway.product_yaml import find_product
from clearway.validate.run import run as validate
from clearway.validate.spec import Inputs

TEXTS = ["", "a", "$1 -- \\ 00", "naïve façade", "日本語", "🙂\U0010ffff", "line\nline\r\n\ttab\0end", "-" * 300]


@pytest.fixture(scope="module")
def api_docs() -> LoadedProduct:
    return find_product(Path(__file__).parents[2] / "products", "api_docs")


def test_spark_makes_the_tokens_that_the_model_reads(env: Environment) -> None:
    with spark_session(env) as session:
        frame = session.createDataFrame(pa.table({"key": list(range(len(TEXTS))), "text": TEXTS}))
        found = frame.select("key", text.tokens_of("text")).orderBy("key").toArrow()
    for made, written in zip(found[TOKENS].to_pylist(), TEXTS, strict=True):
        assert np.array_equal(np.frombuffer(made, STORED), tokens_of(written)), written


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning")
def test_real_text_goes_from_a_package_to_mapped_shards_and_is_validated(
    api_docs: LoadedProduct,
    env: Environment,
    land: Callable[..., Landed],
    prepare: Callable[..., Outputs],
) -> None:
    quarters = {"first": "2024-01-01", "start": "2024-01-01", "end": "2024-07-01"}
    outputs = prepare(api_docs, env, **quarters)
    storage, layout = open_storage(env.store_root), Layout(env.store_root, api_docs.name)
    document = open_dataset(storage, outputs.dataset)
    rows = read_features(storage, layout, document)
    assert (outputs.num_rows, outputs.num_labelled) == (len(rows), 0)
    assert len(rows) > 100 and len(document.features) == 2 and document.labels == ()

    stream = TokenStream.open([to_path(uri) for uri in token_uris(storage, layout, document)])
    tokens = stream.read(0, len(stream))
    begins = [*np.flatnonzero(tokens == MARK).tolist(), len(tokens)]
    assert [text_of(tokens[start:stop]) for start, stop in pairwise(begins)] == rows["text"].to_pylist()
    assert rows["num_bytes"].to_pylist() == [stop - start - 1 for start, stop in pairwise(begins)]

    raw = land(api_docs, env, start="2024-01-01", end="2024-07-01").raw
    assert raw is not None
    assert check_leaks(raw, product=api_docs, env=env, batch_id="2024-04-01", num_moments=1).num_rows > 0

    inputs = Inputs(product=api_docs.name, release_id="r", dataset=outputs.dataset)
    judged = validate(inputs, product=api_docs, env=env)
    assert judged.verdict is Verdict.PASS, judged.reason
    assert judged.receipt_uri is not None
