"""A batch against the sample of a package, all features at once."""

import numpy as np
import pyarrow as pa

from clearway.measures.distance import build_reference
from clearway.measures.together import compare_together


def table(seed: int, *, correlation: float, num_rows: int = 2_400, batches: int = 6) -> pa.Table:
    rng = np.random.default_rng(seed)
    x, noise = rng.normal(size=(2, num_rows))
    return pa.table(
        {
            "x": x,
            "y": correlation * x + np.sqrt(1 - correlation**2) * noise,
            "c": rng.choice(["u", "v"], num_rows),
            "batch_id": np.repeat([f"b{i}" for i in range(batches)], num_rows // batches),
        }
    )


def reference(seed: int = 0) -> dict:  # type: ignore[type-arg]
    return build_reference(table(seed, correlation=0.8), numeric=["x", "y"], categorical=["c"], batch_column="batch_id")


def test_every_training_batch_is_compared_with_the_others() -> None:
    usual = reference()["usual_separations"]
    assert len(usual) == 6
    assert all(0.35 < auc < 0.65 for auc in usual)


def test_a_lost_correlation_is_over_the_limit_while_no_feature_is() -> None:
    from clearway.measures.distance import compare

    made = reference()
    quiet, broken = table(1, correlation=0.8), table(2, correlation=-0.8)
    assert not any(d.is_over and d.excess > 2 for d in compare(made, broken))
    found = compare_together(made, broken)
    assert found is not None
    assert found.is_over
    assert found.found.lower > 0.7
    calm = compare_together(made, quiet)
    assert calm is not None
    assert calm.found.auc < 0.6


def test_a_small_batch_and_a_reference_without_sample_say_nothing() -> None:
    made = reference()
    assert compare_together(made, table(1, correlation=0.8).slice(0, 20)) is None
    assert compare_together(made | {"sample": {}}, table(1, correlation=0.8)) is None
    old = {k: v for k, v in made.items() if k != "usual_separations"}
    found = compare_together(old, table(1, correlation=0.8))
    assert found is not None
    assert (found.limit, found.is_over) == (None, None)


def test_one_training_batch_and_an_empty_category_are_no_obstacle() -> None:
    one = table(3, correlation=0.8, batches=1)
    made = build_reference(one, numeric=["x"], categorical=["c"], batch_column="batch_id")
    assert made["usual_separations"] == []
    found = compare_together(made | {"sample": made["sample"] | {"c": [None] * len(made["sample"]["c"])}}, one)
    assert found is not None
    assert found.is_over is None
