"""What a package carries about the weeks its model was trained on."""

from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest

from clearway.infra.datasets import BATCH, DAY
from clearway.packaging.encoder import Encoder
from clearway.tabular.contents import rows_reference, training_reference

ROWS_PER_WEEK = 20


@pytest.mark.parametrize(("num_weeks", "seasons"), [(20, 0), (70, 4)], ids=["months", "more than a year"])
def test_seasons_are_carried_where_training_has_seen_them(num_weeks: int, seasons: int) -> None:
    rng, num_rows = np.random.default_rng(0), num_weeks * ROWS_PER_WEEK
    days = [date(2020, 1, 6) + timedelta(weeks=i // ROWS_PER_WEEK) for i in range(num_rows)]
    columns = {"x": rng.normal(size=num_rows), "c": rng.choice(["u", "v"], num_rows)}
    table = pa.table(columns | {DAY: pa.array(days, pa.date32()), BATCH: [str(day) for day in days]})
    encoder = Encoder.fit(table, numeric=("x",), categorical=("c",), min_count=1)
    reference = training_reference(rows_reference(table, encoder), table, rng.random(num_rows).astype(np.float32))
    assert len(reference["seasons"]) == seasons
    assert reference["num_batches"] == num_weeks
    assert reference["score"]["counts"]
