"""Our own gate on files that really lie on disk: every planted fault is named by its own check."""

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearway.contracts.verdict import Check, Verdict, judge
from clearway.infra.datasets import open_dataset
from clearway.infra.environment import Environment
from clearway.infra.layout import Layout
from clearway.infra.storage import open_storage
from clearway.product import LoadedProduct
from clearway.validate.own_gate import own_checks
from clearway.validate.scan import Scan, scan

Columns = dict[str, pa.Array]


@pytest.fixture
def gate(env: Environment, product: LoadedProduct, make_dataset) -> Callable[..., tuple[Scan, dict[str, Check]]]:
    """Write a dataset, scan it, judge it."""
    storage, layout = open_storage(env.store_root), Layout(env.store_root, product.name)

    def judge_it(edit=lambda columns, _: columns, **options):
        document = open_dataset(storage, make_dataset(edit, **options))
        seen = scan(storage, layout, document, label=("labels", "key", "late15"))
        return seen, {c.name: c for c in own_checks(seen, document, product.spec)}

    return judge_it


def _failed(checks: dict[str, Check]) -> list[str]:
    return sorted(c.name for c in checks.values() if c.is_decisive and c.verdict is not Verdict.PASS)


def test_a_sound_dataset_passes_every_check(gate, product: LoadedProduct) -> None:
    seen, checks = gate()
    assert judge(checks.values()).verdict is Verdict.PASS
    assert seen.num_rows == seen.expected_rows == 800
    # Two of three rows of the labelled week have an answer, half of them 1.
    assert (seen.num_labelled, seen.num_positive) == (267, 133)
    # Each column is checked for completeness and for infinities, on top of the eleven rules on the whole.
    assert len(checks) == 2 * (3 + len(product.spec.features.columns)) + 11


def _set(name: str, value: object, *, rows: int = 1) -> Callable[[Columns, str], Columns]:
    def edit(columns: Columns, _: str) -> Columns:
        values = columns[name].to_pylist()
        values[:rows] = [value] * rows
        return columns | {name: pa.array(values, columns[name].type)}

    return edit


@pytest.mark.parametrize(
    ("edit", "failed"),
    [
        pytest.param(_set("temp", math.inf), ["infinite[temp]"], id="infinity"),
        pytest.param(_set("temp", -math.inf), ["infinite[temp]"], id="minus infinity"),
        pytest.param(_set("temp", math.nan, rows=100), ["completeness[temp]"], id="NaN counts as missing"),
        pytest.param(_set("temp", None, rows=100), ["completeness[temp]"], id="null counts as missing"),
        pytest.param(_set("temp", math.nan, rows=400), ["completeness[temp]"], id="all NaN"),
        pytest.param(_set("key", "same"), ["duplicate_keys"], id="one key in two batches"),
        pytest.param(_set("key", None), ["completeness[key]", "duplicate_keys"], id="no key"),
        pytest.param(
            _set("day", datetime(2013, 3, 3, tzinfo=UTC).date()), ["wrong_days"], id="day is not that of the time"
        ),
        pytest.param(lambda c, _: c | {"dep_delay": c["temp"]}, ["schema_columns", "schema_deny"], id="denied column"),
        pytest.param(lambda c, _: c | {"extra": c["temp"]}, ["schema_columns"], id="extra column"),
        pytest.param(lambda c, _: {k: v for k, v in c.items() if k != "temp"}, ["schema_columns"], id="dropped column"),
        pytest.param(
            lambda c, _: {"Temp" if k == "temp" else k: v for k, v in c.items()}, ["schema_columns"], id="case changed"
        ),
        pytest.param(lambda c, _: dict(reversed(c.items())), ["schema_order"], id="reordered"),
        pytest.param(
            lambda c, b: dict(reversed(c.items())) if b == "2013-01-07" else c,
            ["schema_order"],
            id="one batch reordered",
        ),
        pytest.param(lambda c, _: c | {"temp": c["temp"].cast(pa.string())}, ["schema_types"], id="number to text"),
        pytest.param(
            lambda c, b: c | ({"temp": c["temp"].cast(pa.float32())} if b == "2013-01-07" else {}),
            ["schema_types"],
            id="one batch narrowed",
        ),
        pytest.param(
            lambda c, _: c | {"event_time": c["event_time"].cast(pa.timestamp("us"))}, ["schema_types"], id="zone lost"
        ),
        pytest.param(lambda c, _: {k: v[:200] for k, v in c.items()}, ["rows"], id="too few rows"),
    ],
)
def test_a_planted_fault_is_named(gate, edit, failed: list[str]) -> None:
    _, checks = gate(edit)
    assert _failed(checks) == failed
    assert judge(checks.values()).verdict is Verdict.FAIL


def test_no_rows_at_all_is_no_pass(gate) -> None:
    _, checks = gate(lambda c, _: {k: v[:0] for k, v in c.items()}, labels=())
    assert checks["rows"].verdict is Verdict.FAIL
    assert checks["time_range"].verdict is Verdict.ERROR
    assert checks["completeness[temp]"].verdict is Verdict.ERROR


@pytest.mark.parametrize("shift_days", [-30, 30])
def test_rows_outside_the_window_are_refused(gate, shift_days: int) -> None:
    shift = timedelta(days=shift_days)

    def edit(columns: Columns, _: str) -> Columns:
        times = [t + shift for t in columns["event_time"].to_pylist()]
        return columns | {
            "event_time": pa.array(times, pa.timestamp("us", tz="UTC")),
            "day": pa.array([t.date() for t in times], pa.date32()),
        }

    assert _failed(gate(edit)[1]) == ["time_range"]


@pytest.mark.parametrize(
    ("labels", "failed"),
    [((0.0,), ["both_classes"]), ((1.0,), ["both_classes"]), ((0.0, 1.0, 2.0), ["strange_labels"])],
)
def test_labels_are_zeros_and_ones_and_both(gate, labels: tuple[float, ...], failed: list[str]) -> None:
    assert _failed(gate(labels=labels)[1]) == failed


def test_labels_that_have_not_arrived_are_no_fault(gate) -> None:
    _, checks = gate(labels=())
    assert judge(checks.values()).verdict is Verdict.PASS
    assert not checks["both_classes"].is_decisive


@given(
    st.lists(
        st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True), st.sampled_from([0.0, -0.0, 5e-324])),
        min_size=1,
        max_size=40,
    )
)
def test_missing_and_infinite_values_are_counted_as_written(values: list[float | None]) -> None:
    from clearway.validate.scan import _count

    missing, infinite = _count(pa.array(values, pa.float64()))
    assert missing == sum(v is None or math.isnan(v) for v in values)
    assert infinite == sum(v is not None and math.isinf(v) for v in values)


def test_a_whole_number_column_has_no_infinities_and_counts_nulls() -> None:
    from clearway.validate.scan import _count

    assert _count(pa.array([1, None, 3], pa.int64())) == (1, 0)
    assert _count(pa.array(["a", None], pa.string())) == (1, 0)
