"""What a language model's service was worth, read back from the log, the texts and what its evaluation left."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from clearway.contracts.refs import ModelRef
from clearway.evaluate.compressor import DICTIONARY_FILE, Compressor
from clearway.infra.environment import Environment
from clearway.kinds.scorers import open_scorer
from clearway.launch.served import measure_served
from clearway.packaging.text import beginning
from language_kit import STORAGE, TINY, make_rows, make_world
from reader_kit import QUARTERS, Library
from serving_kit import InProcessEndpoint

pytestmark = pytest.mark.slow


@pytest.fixture
def library(env: Environment) -> Iterator[Library]:
    endpoint = InProcessEndpoint(env, product="api_docs")
    yield Library(world=make_world(env), endpoint=endpoint)
    endpoint.close()


def read(library: Library, quarter: str, texts: list[str]) -> None:
    """Landed, and scored by the champion."""
    library.score(quarter, library.land(quarter, texts))
    STORAGE.write(library.world.layout.ledger_entry(quarter), b"{}")


def test_texts_served_are_counted_by_bytes_beside_the_compressor_of_the_release(
    library: Library, tmp_path: Path
) -> None:
    world = library.world
    first = world.package(tmp_path / "first", num_epochs=1)
    library.serve(first)
    texts = library.texts(QUARTERS[0])
    texts[3], texts[5] = " ".join(texts)[: 2 * TINY.max_text_bytes], ""  # longer than it takes, and nothing to ask
    read(library, QUARTERS[0], texts)
    read(library, QUARTERS[1], library.texts(QUARTERS[1]))
    compressor = Compressor.after(make_rows()["text"].to_pylist())
    STORAGE.write(world.layout.release("r1", "evaluate", DICTIONARY_FILE), compressor.dictionary)

    found = measure_served(world.env, world.product, releases={first.digest: "r1"})
    assert set(found) == {first.digest}
    served = found[first.digest]
    sent = [beginning(text, TINY.max_text_bytes) for text in (*texts, *library.texts(QUARTERS[1])) if text]
    sizes = [len(text.encode()) for text in sent]
    assert (served.batch_ids, served.num_rows) == (QUARTERS[:2], len(sent))
    own = scores_of(library, first, sent)
    assert served.score is not None and served.reference is not None
    assert served.score.bits_per_byte == pytest.approx(np.average(own, weights=sizes))
    assert served.reference.bits_per_byte == pytest.approx(np.average(compressor.bits_per_byte(sent), weights=sizes))
    assert served.reference.bits_per_byte != served.score.bits_per_byte

    unknown = measure_served(world.env, world.product, releases={})[first.digest]
    assert (unknown.score, unknown.reference) == (served.score, None)


def scores_of(library: Library, ref: ModelRef, texts: list[str]) -> np.ndarray:  # type: ignore[type-arg]
    return open_scorer(library.world.open(ref)).score(texts)


def test_before_anything_is_served_nothing_is_known(library: Library) -> None:
    assert measure_served(library.world.env, library.world.product, releases={}) == {}
