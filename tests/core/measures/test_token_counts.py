"""Texts in the histograms: a row each, spread over its tokens."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearway.measures import bins as bins_module
from clearway.measures.bins import END, NUM_TOKENS, TEXT, count_rows
from clearway.measures.distance import build_reference, compare
from clearway.measures.tally import tally

ENTRY = {"kind": TEXT, "sd": 0.0}
TEXTS = st.lists(st.one_of(st.none(), st.text(max_size=30)), min_size=1, max_size=30)


def column(texts: list[str | None]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(texts, pa.string())])


def counted(texts: list[str | None], batches: list[int] | None = None) -> bins_module.Bins:
    codes = np.asarray(batches or [0] * len(texts), dtype=np.int64)
    return count_rows(column(texts), ENTRY, codes, num_batches=int(codes.max()) + 1)


def test_a_text_is_a_row_spread_over_its_bytes_and_its_end() -> None:
    found = counted(["aab", "", None, "é"])
    (counts,) = found.counts
    assert found.missing.tolist() == [2.0]
    assert (counts[ord("a")], counts[ord("b")]) == (pytest.approx(2 / 4), pytest.approx(1 / 4))
    assert (counts[0xC3], counts[0xA9], counts[END]) == pytest.approx((1 / 3, 1 / 3, 1 / 4 + 1 / 3))
    assert counts.shape == (NUM_TOKENS,)


@settings(max_examples=40)
@given(TEXTS)
def test_every_row_is_counted_once(texts: list[str | None]) -> None:
    found = counted(texts)
    num_told = sum(bool(text) for text in texts)
    assert found.counts.sum() == pytest.approx(num_told)
    assert found.missing.sum() == len(texts) - num_told


@settings(max_examples=40)
@given(TEXTS, st.integers(0, 30), st.integers(1, 64))
def test_however_texts_are_cut_into_pieces_the_counts_are_the_same(
    texts: list[str | None], cut: int, at_once: int
) -> None:
    whole = counted(texts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bins_module, "MAX_BYTES_AT_ONCE", at_once)
        small = counted(texts)
    np.testing.assert_allclose(small.counts, whole.counts)
    table, days = pa.table({"t": column(texts)}), [0] * len(texts)
    entries = {"t": ENTRY}
    parts = [tally(entries, table.slice(0, cut), days=days[:cut]), tally(entries, table.slice(cut), days=days[cut:])]
    found = [part for part in parts if part.days]
    both = found[0] if len(found) == 1 else found[0].plus(found[1])
    np.testing.assert_allclose(both.columns["t"].bins.counts, whole.counts)


def test_texts_drift_like_any_feature_with_limits_of_their_own() -> None:
    rng = np.random.default_rng(0)
    words = ["queue", "table", "lists", "keys", "of", "the"]

    def texts(num: int) -> list[str]:
        return [" ".join(rng.choice(words, 8)) for _ in range(num)]

    batches = np.repeat([f"b{i}" for i in range(6)], 80)
    training = pa.table({"t": texts(480), "batch": batches})
    reference = build_reference(training, numeric=(), categorical=(), texts=("t",), batch_column="batch")
    entry = reference["features"]["t"]
    assert sum(entry["counts"]) == pytest.approx(480)
    assert entry["null"] is not None
    (quiet,) = compare(reference, pa.table({"t": texts(80)}), days=np.arange(80) % 5)
    assert (quiet.kind, quiet.num_values, quiet.unseen) == ("text", 80, None)
    assert quiet.lower is not None and quiet.upper is not None
    assert quiet.distance is not None and quiet.limit is not None and quiet.distance < 2 * quiet.limit
    (loud,) = compare(reference, pa.table({"t": [text.upper() for text in texts(80)]}))
    assert loud.is_over and loud.distance == pytest.approx(sum(entry["counts"][97:123]) / 480, abs=0.05)
