"""P-values of a batch among batches."""

import math

import numpy as np
import pytest

from clearway.measures.batch_null import BatchNull, batch_null, p_value


def test_the_p_value_matches_scipys_prediction_of_one_more_value() -> None:
    import scipy.stats  # a second, which those who only collect need not wait for

    distances = [0.1, 0.2, 0.15, 0.12, 0.3]
    null = batch_null(distances)
    assert null is not None
    logs = np.log(distances)
    expected = scipy.stats.t.sf((math.log(0.5) - logs.mean()) / (logs.std(ddof=1) * math.sqrt(1.2)), 4)
    assert p_value(0.5, null) == pytest.approx(expected)


def test_few_batches_have_no_spread_to_judge_by() -> None:
    assert batch_null([0.1, 0.2, 0.3]) is None
    assert batch_null([]) is None


def test_a_larger_distance_never_has_a_larger_p_value() -> None:
    null = BatchNull(-2.0, 0.4, 10)
    found = [p_value(d, null) for d in (0.0, 0.05, 0.1, 0.5, 5.0)]
    assert found == sorted(found, reverse=True)
    assert 0 <= found[-1] < found[0] <= 1


def test_batches_that_are_all_alike_do_not_make_the_next_one_impossible() -> None:
    null = batch_null([0.1] * 8)
    assert null is not None
    assert p_value(0.102, null) > 0.1
