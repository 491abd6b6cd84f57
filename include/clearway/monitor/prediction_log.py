"""What was really served: the prediction log of some batches, one row per key."""

from collections.abc import Iterable

import pyarrow as pa

from clearway.infra.layout import Layout
from clearway.infra.parquet import from_parquet
from clearway.infra.storage import Storage

COLUMNS = ("key", "score", "model_digest", "event_time", "logged_at")
EMPTY = pa.schema(
    [
        ("key", pa.string()),
        ("score", pa.float64()),
        ("model_digest", pa.string()),
        ("event_time", pa.timestamp("us", tz="UTC")),
        ("logged_at", pa.timestamp("us", tz="UTC")),
    ]
)


def read_predictions(storage: Storage, layout: Layout, batch_ids: Iterable[str]) -> pa.Table:
    """Logged predictions of whole batches: COLUMNS, one row per key, the one served first, sorted by key.

    A caller that asked twice acted on the first answer, so that is the one labels are held against.
    """
    tables = []
    for batch_id in batch_ids:
        uris = [uri for uri in storage.list(layout.predictions(batch_id)) if uri.endswith(".parquet")]
        tables += [from_parquet(storage.read(uri)).select(COLUMNS) for uri in uris]
    if not tables:
        return EMPTY.empty_table()
    return first_served(pa.concat_tables(tables, promote_options="permissive"))


def first_served(log: pa.Table) -> pa.Table:
    """One row per key: the earliest `logged_at`; ties by digest and score, so that file order does not matter."""
    order = [(name, "ascending") for name in ("key", "logged_at", "model_digest", "score")]
    ordered = log.filter(log["key"].is_valid()).sort_by(order)
    key = ordered["key"].combine_chunks()
    if len(key) < 2:  # noqa: PLR2004 - nothing to be twice
        return ordered
    is_first = pa.compute.not_equal(key.slice(1), key.slice(0, len(key) - 1))
    return ordered.filter(pa.concat_arrays([pa.array([True]), is_first]))
