"""Where training ends and judging begins: the one definition that tune, train and evaluate share.

The newest `holdout_days` days that carry rows to be judged, counted back from the newest such day, are the holdout;
every such row of an earlier day is training. Days are the DAY column (UTC), so a day is never on both sides. Rows that
can be judged are those with a label; where a model has none, as one that reads text, all rows.
"""

from datetime import date, timedelta
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from clearway.contracts.errors import DataError
from clearway.infra.datasets import DAY, LABEL


class Split(NamedTuple):
    """Rows of a dataset, both parts in the order of the table; `holdout_start` is the holdout's first day."""

    train: pa.Table
    holdout: pa.Table
    holdout_start: date


def holdout_start(newest_day: date, *, holdout_days: int) -> date:
    """First day of the holdout, given the newest labelled day (the holdout's last)."""
    if holdout_days < 1:
        raise ValueError(f"holdout_days {holdout_days} must be at least 1")
    return newest_day - timedelta(days=holdout_days - 1)


def split_at(table: pa.Table, *, holdout_days: int) -> Split:
    """Split rows with DAY and LABEL; rows without a label belong to neither part.

    Raises: DataError if either part would be empty.
    """
    labelled = table.filter(pc.is_valid(table[LABEL])) if table[LABEL].null_count else table
    if not len(labelled):
        raise DataError(f"none of {len(table)} rows has a label; wait for labels to arrive")
    return split_days(labelled, holdout_days=holdout_days)


def split_days(rows: pa.Table, *, holdout_days: int) -> Split:
    """Split rows with DAY, every one of which can be judged. Raises: DataError if either part would be empty."""
    if not len(rows):
        raise DataError("a dataset of 0 rows cannot be split; use more data")
    start = holdout_start(pc.max(rows[DAY]).as_py(), holdout_days=holdout_days)
    is_held = pc.greater_equal(rows[DAY], pa.scalar(start, pa.date32()))
    num_train = len(rows) - pc.sum(is_held).as_py()
    if pc.all(is_held.slice(num_train)).as_py():  # rows in the order of time are cut, not copied
        train, holdout = rows.slice(0, num_train), rows.slice(num_train)
    else:
        train, holdout = rows.filter(pc.invert(is_held)), rows.filter(is_held)
    if not len(train):
        raise DataError(
            f"no row that can be judged is older than the holdout from {start} ({len(holdout)} rows); "
            "use more data or fewer holdout days"
        )
    return Split(train=train, holdout=holdout, holdout_start=start)


def time_fold(table: pa.Table, *, valid_share: float) -> tuple[pa.Table, pa.Table]:
    """(older days, newest days): the newest days that make up about `valid_share` of the rows, whole days only.

    Raises: DataError if the rows are of one day only.
    """
    counts = table[DAY].combine_chunks().value_counts()
    days = dict(zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True))
    ordered = sorted(days)
    if len(ordered) <= 1:
        raise DataError(f"{len(table)} rows of {len(ordered)} day(s) cannot be split by time; two days are needed")
    held, cut = 0, len(ordered)
    while cut > 1 and held < valid_share * len(table):
        cut -= 1
        held += days[ordered[cut]]
    is_new = pc.greater_equal(table[DAY], pa.scalar(ordered[cut], pa.date32()))
    return table.filter(pc.invert(is_new)), table.filter(is_new)
