"""Drift counts by what it does to predictions: of the columns a champion reads more, of the others less."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from clearway.measures.distance import build_reference
from clearway.measures.effect import effects
from clearway.monitor.drift import drift_words, measure_drift
from clearway.monitor.drift_part import DriftPart
from shifts_kit import NAMES, NUM_FEATURES, NUM_TRAINING, NUM_USED, draw, scores_of, table_of

USED, UNUSED = range(NUM_USED), range(NUM_USED, NUM_FEATURES)


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    rng = np.random.default_rng(3)
    weeks = [draw(rng) for _ in range(NUM_TRAINING)]
    table = pa.concat_tables(table_of(week, number) for number, week in enumerate(weeks))
    values = np.concatenate([week.values for week in weeks])
    found = effects(scores_of, (values,), NAMES)
    return build_reference(table, numeric=NAMES, categorical=["c"], batch_column="batch_id", effects=found)


def drift(reference: dict[str, Any], moved: Sequence[int], *, by_effect: bool = True) -> DriftPart:
    """Of a week in which some features have moved by two standard deviations."""
    week = draw(np.random.default_rng(4))
    values = week.values.copy()
    values[:, list(moved)] += 2.0
    batch = table_of(replace(week, values=values), NUM_TRAINING)
    return measure_drift(
        reference, batch, ignore=("x1",), scores=None, false_discovery_rate=0.1, is_by_effect=by_effect
    )


def test_the_same_number_of_features_weighs_more_where_the_champion_reads_them(reference: dict[str, Any]) -> None:
    read, not_read = drift(reference, [0, 2, 3, 4]), drift(reference, [5, 6, 7, 8])
    assert read.share_over is not None
    assert not_read.share_over is not None
    assert read.num_over == not_read.num_over
    assert read.share_over > 0.5
    assert not_read.share_over < 0.3
    assert drift(reference, [0, 2, 3, 4], by_effect=False).share_over == pytest.approx(read.num_over / read.num_counted)


def test_effects_of_counted_features_add_up_to_one(reference: dict[str, Any]) -> None:
    shares = {f.name: f.effect for f in drift(reference, []).features}
    assert shares["x1"] is None, "an ignored feature counts nothing"
    assert sum(share for share in shares.values() if share) == pytest.approx(1)
    assert [name for name, share in shares.items() if share] == sorted(("x0", "x2", "x3", "x4"), key=list(shares).index)


def test_what_is_usual_is_weighed_alike_and_the_words_say_so(reference: dict[str, Any]) -> None:
    found, plain = drift(reference, []), drift(reference, [], by_effect=False)
    assert (found.is_by_effect, plain.is_by_effect) == (True, False)
    assert found.null_share_max == pytest.approx(max(reference["null_shares_by_effect"]))
    assert plain.null_share_max == pytest.approx(max(reference["null_shares"]))
    assert "weighed by their effect on predictions" in drift_words(found, bound=0.5)
    assert "weighed" not in drift_words(plain, bound=0.5)


def test_a_package_without_effects_counts_all_features_the_same(reference: dict[str, Any]) -> None:
    old = {k: v for k, v in reference.items() if k not in {"effects", "null_shares_by_effect", "seasons_by_effect"}}
    found = drift(old, [0, 2, 3, 4])
    assert found == drift(old, [0, 2, 3, 4], by_effect=False)
    assert found.share_over == drift(reference, [0, 2, 3, 4], by_effect=False).share_over
