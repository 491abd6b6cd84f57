"""A batch against its reference: bins, limits and intervals, beside scipy and brute force."""

import numpy as np
import pyarrow as pa
import pytest
import scipy.stats

from clearway.measures import distance as d
from clearway.measures.bins import quantile_edges


def test_a_value_held_by_many_rows_keeps_its_own_bin() -> None:
    values = np.concatenate([np.zeros(700), np.linspace(1, 2, 300)])
    edges = quantile_edges(values)
    assert edges[0] == 0.0
    assert len(edges) == len(set(edges)) <= 9


def _table(values: object, batches: list[str]) -> pa.Table:
    return pa.table({"x": values, "batch_id": batches})


def _reference(table: pa.Table, **kinds: object) -> dict:  # type: ignore[type-arg]
    options = {"numeric": ["x"], "categorical": [], "batch_column": "batch_id"} | kinds
    return d.build_reference(table, **options)  # type: ignore[arg-type]


def test_binned_distance_is_close_to_the_distance_of_all_rows() -> None:
    rng = np.random.default_rng(1)
    before, after = rng.gamma(2, 10, 20_000), rng.gamma(2, 13, 5_000)
    reference = _reference(_table(before, ["a", "b"] * 10_000))
    (found,) = d.compare(reference, pa.table({"x": after}))
    exact = scipy.stats.wasserstein_distance(before, after) / before.std()
    assert found.distance == pytest.approx(exact, rel=0.05)


def test_a_shift_beyond_the_training_range_still_grows() -> None:
    reference = _reference(_table(np.linspace(0, 1, 200), ["a", "b"] * 100))
    near, far = (d.compare(reference, pa.table({"x": np.full(50, at)}))[0].distance for at in (5.0, 50.0))
    assert near is not None
    assert far is not None
    assert far > 5 * near


def test_limits_equal_a_brute_force_over_left_out_batches() -> None:
    rng = np.random.default_rng(2)
    batch = np.repeat(["a", "b", "c", "d", "e"], 400)
    values = rng.normal(size=2_000) + np.repeat(rng.normal(0, 0.3, 5), 400)
    reference = _reference(_table(values, batch.tolist()))
    edges, sd = np.asarray(reference["features"]["x"]["edges"]), values.std()

    def histogram(rows: np.ndarray) -> tuple[list[int], list[float]]:  # type: ignore[type-arg]
        bins = np.searchsorted(edges, rows, side="left")
        kept = [b for b in range(len(edges) + 1) if (bins == b).any()]
        return [int((bins == b).sum()) for b in kept], [float(rows[bins == b].mean()) for b in kept]

    distances = []
    for name in "abcde":
        (weights, at), (rest, rest_at) = histogram(values[batch == name]), histogram(values[batch != name])
        distances.append(scipy.stats.wasserstein_distance(rest_at, at, rest, weights) / sd)
    assert reference["features"]["x"]["limit"] == pytest.approx(np.quantile(distances, 0.95), rel=1e-6)


def test_categories_are_compared_by_total_variation_and_rare_ones_share_a_bin() -> None:
    table = pa.table({"c": ["u"] * 600 + ["v"] * 399 + ["w"], "batch_id": ["a", "b"] * 500})
    reference = _reference(table, numeric=[], categorical=["c"])
    assert reference["features"]["c"]["values"] == ["u", "v"]
    (found,) = d.compare(reference, pa.table({"c": ["u"] * 30 + ["v"] * 40 + ["never seen"] * 30}))
    # shares 0.6/0.399/0.001 against 0.3/0.4/0.3
    assert found.distance == pytest.approx(0.5 * (0.3 + 0.001 + 0.299))


def test_a_constant_feature_that_moves_counts_every_row_that_left() -> None:
    reference = _reference(_table([3.0] * 100, ["a", "b"] * 50))
    same, below, above = (d.compare(reference, pa.table({"x": [v] * 10}))[0] for v in (3.0, 2.0, 4.0))
    assert (same.distance, below.distance, above.distance) == (0.0, 1.0, 1.0)
    assert [f.is_over for f in (same, below, above)] == [False, True, True]


def test_nan_null_and_infinity_are_missing_not_numbers() -> None:
    reference = _reference(_table([1.0, 2.0, None, float("nan"), float("inf"), 3.0] * 10, ["a", "b"] * 30))
    assert reference["features"]["x"]["missing"] == pytest.approx(0.5)
    assert sum(reference["features"]["x"]["counts"]) == 30


def test_a_column_without_values_has_no_distance_and_is_going_missing() -> None:
    reference = _reference(_table(np.arange(100.0), ["a", "b"] * 50))
    (found,) = d.compare(reference, pa.table({"x": pa.array([None] * 20, pa.float64())}))
    assert found.distance is None
    assert found.is_over is None
    assert found.is_going_missing


def test_one_training_batch_gives_no_limit() -> None:
    reference = _reference(_table(np.arange(100.0), ["a"] * 100))
    assert reference["features"]["x"]["limit"] is None
    assert d.compare(reference, pa.table({"x": [1e6]}))[0].is_over is None


def test_a_batch_cut_short_does_not_widen_the_limit() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(size=4_010)
    whole = [f"w{i // 400}" for i in range(4_000)]
    with_stub = _reference(_table(np.concatenate([values[:4_000], values[4_000:] + 3]), whole + ["stub"] * 10))
    without = _reference(_table(values[:4_000], whole))
    limits = [r["features"]["x"]["limit"] for r in (with_stub, without)]
    assert limits[0] == pytest.approx(limits[1], rel=0.1)


def test_the_reference_is_small_finite_json_with_a_sample() -> None:
    import json

    rng = np.random.default_rng(4)
    columns = {f"x{i}": rng.normal(size=3_000) * 10.0 ** (i % 7 - 3) for i in range(80)}
    columns |= {f"c{i}": rng.choice(list("abcdefghij"), 3_000) for i in range(6)}
    columns["x0"][::7] = np.nan
    table = pa.table(columns | {"batch_id": np.repeat([f"b{i:02d}" for i in range(10)], 300), "s": rng.random(3_000)})
    reference = d.build_reference(
        table,
        numeric=[f"x{i}" for i in range(80)],
        categorical=[f"c{i}" for i in range(6)],
        batch_column="batch_id",
        score_column="s",
    )
    assert len(json.dumps(reference, allow_nan=False)) < 200_000
    assert set(reference["sample"]) == set(columns)
    assert 100 <= len(reference["sample"]["x1"]) <= 500
    assert reference["score"]["limit"] is not None
    assert len(reference["null_shares"]) == 10


def test_the_same_table_gives_the_same_reference_whatever_its_chunks() -> None:
    table = _table(np.arange(1_000.0), ["a", "b"] * 500)
    chunked = pa.concat_tables([table.slice(0, 137), table.slice(137)])
    assert _reference(table) == _reference(chunked)


def test_an_empty_table_is_refused() -> None:
    with pytest.raises(ValueError, match="0"):
        _reference(_table(pa.array([], pa.float64()), []))


def test_integers_and_booleans_are_numbers_too() -> None:
    table = pa.table({"i": [1, 2, 3, 4] * 25, "b": [True, False] * 50, "batch_id": ["a"] * 50 + ["b"] * 50})
    reference = _reference(table, numeric=["i", "b"])
    found = {f.name: f.distance for f in d.compare(reference, pa.table({"i": [1, 2, 3, 4], "b": [True] * 4}))}
    assert found["i"] == pytest.approx(0, abs=1e-9)
    assert found["b"] == pytest.approx(0.5 / 0.5)


def test_features_are_ranked_by_excess_and_ignored_ones_left_out() -> None:
    rng = np.random.default_rng(5)
    table = pa.table({n: rng.normal(size=1_000) for n in "xyz"} | {"batch_id": ["a", "b", "c", "d"] * 250})
    reference = _reference(table, numeric=list("xyz"))
    batch = pa.table({"x": rng.normal(size=500), "y": rng.normal(2, 1, 500), "z": rng.normal(9, 1, 500)})
    assert next(f.name for f in d.compare(reference, batch, ignore=["z"])) == "y"
    assert {f.name for f in d.compare(reference, batch, ignore=["z"])} == {"x", "y"}


def test_batches_alike_stay_below_half_of_the_features_over_their_limit() -> None:
    """A/A: 12 training batches and 60 new ones from one distribution; the alarm share of 0.5 is never reached."""
    rng = np.random.default_rng(6)
    names = [f"x{i}" for i in range(20)]
    table = pa.table(
        {n: rng.normal(size=6_000) for n in names} | {"batch_id": np.repeat([f"b{i:02d}" for i in range(12)], 500)}
    )
    reference = _reference(table, numeric=names)
    shares = []
    for _ in range(60):
        found = d.compare(reference, pa.table({n: rng.normal(size=500) for n in names}))
        shares.append(sum(bool(f.is_over) for f in found) / len(names))
    assert max(shares) < 0.5
    # A limit from 12 batches is exceeded by the next with probability 0.05 to 2/13, not 0.05.
    assert 0.03 < np.mean(shares) < 0.2


def test_a_distance_has_an_interval_from_its_days_and_a_p_value_from_the_batches() -> None:
    rng = np.random.default_rng(7)
    reference = _reference(_table(rng.normal(size=4_000), np.repeat([f"b{i}" for i in range(8)], 500).tolist()))
    days = np.repeat(np.arange(7), 200)
    near = d.compare(reference, pa.table({"x": rng.normal(size=1_400)}), days=days)[0]
    far = d.compare(reference, pa.table({"x": rng.normal(0.5, 1, 1_400)}), days=days)[0]
    for found in (near, far):
        assert found.distance is not None
        assert found.lower is not None
        assert found.upper is not None
        assert 0 <= found.lower <= found.distance <= found.upper
    assert far.lower is not None
    assert near.upper is not None
    assert far.lower > near.upper
    assert near.p_value is not None
    assert far.p_value is not None
    assert far.p_value < 0.01
    assert near.p_value > 0.1


def test_a_distance_without_days_is_the_same_and_has_no_interval() -> None:
    rng = np.random.default_rng(8)
    reference = _reference(_table(rng.normal(size=1_000), ["a", "b"] * 500))
    batch = pa.table({"x": rng.normal(size=300)})
    plain, dated = d.compare(reference, batch)[0], d.compare(reference, batch, days=np.arange(300) // 60)[0]
    assert (plain.lower, plain.upper) == (None, None)
    assert plain.distance == pytest.approx(dated.distance)


def test_new_categories_are_told_from_rare_ones() -> None:
    table = pa.table({"c": ["u"] * 600 + ["v"] * 399 + ["w"], "batch_id": ["a", "b"] * 500})
    reference = _reference(table, numeric=[], categorical=["c"])
    batch = pa.table({"c": ["u"] * 50 + ["w"] * 25 + ["x"] * 20 + [None] * 5})
    assert d.compare(reference, batch)[0].unseen == pytest.approx(0.20)


def _knots(strength: float, *, seed: int, num_rows: int = 2_000) -> np.ndarray:  # type: ignore[type-arg]
    """Wind read in whole knots, told in miles an hour."""
    return np.random.default_rng(seed).poisson(strength, num_rows) * 1.15078


def test_numbers_on_a_grid_have_a_word_for_new() -> None:
    reference = _reference(_table(_knots(9, seed=1), ["a", "b"] * 1_000))
    told, metric = (
        d.compare(reference, pa.table({"x": [*values, None, float("nan")]}))[0]
        for values in (_knots(6, seed=2), _knots(9, seed=3) * 0.44704)
    )
    assert told.unseen is not None
    assert told.unseen < 0.01
    assert metric.unseen is not None
    assert metric.unseen > 0.9


def test_numbers_without_a_grid_and_older_references_have_no_word_for_new() -> None:
    values = np.random.default_rng(4).normal(size=2_000)
    reference = _reference(_table(values, ["a", "b"] * 1_000))
    assert d.compare(reference, pa.table({"x": values * 2}))[0].unseen is None
    older = _reference(_table(_knots(9, seed=1), ["a", "b"] * 1_000))
    del older["features"]["x"]["grid"]
    assert d.compare(older, pa.table({"x": [3.3]}))[0].unseen is None


def test_a_feature_with_many_categories_has_no_word_for_new() -> None:
    table = pa.table({"c": [f"v{i}" for i in range(600)], "batch_id": ["a", "b"] * 300})
    reference = _reference(table, numeric=[], categorical=["c"])
    assert d.compare(reference, pa.table({"c": ["strange"] * 5}))[0].unseen is None
