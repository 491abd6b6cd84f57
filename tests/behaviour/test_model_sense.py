"""What a flight model must do whatever its weights: invariances, directions, and manners with the unknown."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from clearway.packaging.runtime import OnnxScorer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning"),
]


@pytest.fixture(scope="module")
def scorer(quarter, honest) -> OnnxScorer:
    return OnnxScorer(quarter.open(honest))


# Of the mean score; the smallest of the four rises is 0.007, of a column that says little beside the aircraft's slack.
MIN_RISE = 0.005


def _scores(scorer: OnnxScorer, table: pa.Table, **changes: object) -> np.ndarray:
    """Scores with columns replaced by a constant, or by a function of themselves."""
    for name, change in changes.items():
        old = table[name]
        new = change(old) if callable(change) else pa.array([change] * len(table), old.type)
        table = table.set_column(table.column_names.index(name), name, pc.cast(new, old.type))
    return scorer.score_table(table)


def test_a_score_does_not_depend_on_its_neighbours(scorer: OnnxScorer, sample: pa.Table) -> None:
    alone = np.concatenate([scorer.score_table(sample.slice(i, 1)) for i in range(40)])
    np.testing.assert_array_equal(alone, scorer.score_table(sample)[:40])


def _plus(amount: float) -> Callable[[pa.ChunkedArray], pa.ChunkedArray]:
    """A column with missing values as zero, and more of it."""
    return lambda column: pc.add(pc.fill_null(column, 0.0), amount)


@pytest.mark.parametrize(
    ("worse", "better"),
    [
        pytest.param({"overdue_origin": _plus(15), "overdue_pair": _plus(3)}, {}, id="overdue flights"),
        pytest.param({"origin_delay_2h": _plus(60), "origin_delay_6h": _plus(60)}, {}, id="late origin"),
        pytest.param({"tail_last_delay": _plus(120)}, {}, id="aircraft late before"),
        pytest.param({"tail_slack_min": -90.0}, {"tail_slack_min": 120.0}, id="aircraft not in yet"),
    ],
)
def test_worse_news_raises_the_mean_score(scorer: OnnxScorer, sample: pa.Table, worse: dict, better: dict) -> None:
    assert _scores(scorer, sample, **worse).mean() > _scores(scorer, sample, **better).mean() + MIN_RISE


def test_a_value_never_seen_is_scored_as_an_unknown_one(scorer: OnnxScorer, sample: pa.Table) -> None:
    assert len(scorer.encoder.categorical) > 1
    for column in scorer.encoder.categorical:
        unseen = _scores(scorer, sample, **{column: "never seen"})
        missing = _scores(scorer, sample, **{column: None})
        np.testing.assert_array_equal(unseen, missing)
        assert ((unseen > 0) & (unseen < 1)).all()


def test_rows_without_any_number_are_still_scored_near_the_base_rate(scorer: OnnxScorer, sample: pa.Table) -> None:
    empty = _scores(scorer, sample, **dict.fromkeys(scorer.encoder.numeric))
    assert np.isfinite(empty).all()
    assert 0.02 < empty.mean() < 0.8


def test_values_far_outside_the_training_range_stay_probabilities(scorer: OnnxScorer, sample: pa.Table) -> None:
    for value in (1e9, -1e9):
        scores = _scores(scorer, sample.slice(0, 200), **dict.fromkeys(scorer.encoder.numeric, value))
        assert ((scores >= 0) & (scores <= 1)).all()
