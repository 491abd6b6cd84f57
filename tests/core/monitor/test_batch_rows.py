"""A batch that comes in pieces is measured like one that lies in memory."""

import numpy as np
import pyarrow as pa
import pytest

from clearway.infra.datasets import DAY
from clearway.infra.parquet import to_parquet
from clearway.measures.distance import build_reference
from clearway.monitor.batch_rows import BatchRows, even_places
from clearway.monitor.drift import measure_drift, measure_pieces

NUM_ROWS = 900


def week(number: int) -> pa.Table:
    rng = np.random.default_rng(number)
    days = pa.array(np.arange(NUM_ROWS) // 130 + 7 * number, pa.int32()).cast(pa.date32())
    columns = {f"x{i}": rng.normal(0.1 * number, 1, NUM_ROWS) for i in range(4)}
    return pa.table(columns | {"c": rng.choice(["u", "v"], NUM_ROWS), DAY: days, "batch_id": [str(number)] * NUM_ROWS})


@pytest.fixture
def stored(tmp_path) -> BatchRows:  # type: ignore[no-untyped-def]
    """Week 9 in two files, read a hundred rows at a time."""
    uris = []
    for name, part in (("a", week(9).slice(0, 350)), ("b", week(9).slice(350))):
        (tmp_path / name).write_bytes(to_parquet(part))
        uris.append((tmp_path / name).as_uri())
    return BatchRows(uris=tuple(uris), num_rows=NUM_ROWS, rows_per_piece=100)


def test_pieces_are_small_and_hold_every_row_once(stored: BatchRows) -> None:
    pieces = list(stored.pieces())
    assert max(len(piece) for piece in pieces) == 100
    assert pa.concat_tables(pieces).equals(week(9))


@pytest.mark.parametrize("max_rows", [1, 7, 899, 900, 5_000])
def test_rows_that_are_shown_lie_evenly_over_all_pieces(stored: BatchRows, max_rows: int) -> None:
    shown = stored.evenly(max_rows)
    assert shown.equals(week(9).take(pa.array(even_places(NUM_ROWS, max_rows))))
    assert len(shown) == min(max_rows, NUM_ROWS)


def test_what_is_measured_is_the_same(stored: BatchRows) -> None:
    training = pa.concat_tables([week(number) for number in range(8)])
    reference = build_reference(
        training, numeric=[f"x{i}" for i in range(4)], categorical=["c"], batch_column="batch_id", day_column=DAY
    )
    asked = {"ignore": (), "scores": None, "false_discovery_rate": 0.1}
    whole = measure_drift(reference, week(9), **asked)  # type: ignore[arg-type]
    pieces = measure_pieces(reference, stored.pieces(), num_rows=NUM_ROWS, **asked)  # type: ignore[arg-type]
    assert pieces.share_over == whole.share_over
    assert pieces.together == whole.together
    for one, other in zip(pieces.features, whole.features, strict=True):
        assert (one.name, one.is_over, one.missing) == (other.name, other.is_over, other.missing)
        assert (one.distance, one.lower, one.upper) == pytest.approx((other.distance, other.lower, other.upper))
