"""Turn what the engine wrote into one sorted file per batch, the same bytes whatever the engine, and publish it."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from clearway.contracts.errors import DataError
from clearway.infra.datasets import DAY, FEATURES_FILE, KEY, TIME, TOKENS, TOKENS_FILE
from clearway.infra.faults import fault
from clearway.infra.layout import Layout
from clearway.infra.parquet import from_parquet, to_parquet
from clearway.infra.snapshots import Snapshot, current, new_attempt, publish, seal
from clearway.infra.storage import Storage, join
from clearway.preprocess.plan import Need, check_same_rows
from clearway.product import Product


def feature_schema(spec: Product) -> pa.Schema:
    """Columns of a feature file, in order."""
    fixed = [pa.field(KEY, pa.string()), pa.field(TIME, pa.timestamp("us", tz="UTC")), pa.field(DAY, pa.date32())]
    numbers = [pa.field(name, pa.float64()) for name in spec.features.numeric]
    texts = (*spec.features.categorical, *([spec.features.text] if spec.features.text else []))
    return pa.schema([*fixed, *numbers, *(pa.field(name, pa.string()) for name in texts)])


def seal_batch(
    storage: Storage,
    layout: Layout,
    spec: Product,
    need: Need,
    *,
    written: str,
    num_expected: int,
    facts: dict[str, Any],
) -> Snapshot:
    """Publish the features of one batch.

    Args:
        written: folder with the engine's Parquet files of this batch.
        num_expected: rows of the batch. Raises: DataError if the features have others.
    """
    table = tidy(spec, read_folder(storage, written), batch_id=need.batch.batch_id)
    num_keys = len(table[KEY].unique())
    check_same_rows(need.batch.batch_id, num_rows=len(table), num_keys=num_keys, num_expected=num_expected)
    base = layout.features(need.batch.batch_id)
    attempt = new_attempt(base)
    if spec.features.text is not None:
        storage.write(join(attempt, TOKENS_FILE), _shard(table, batch_id=need.batch.batch_id))
        table = table.drop_columns([TOKENS])
    storage.write(join(attempt, FEATURES_FILE), to_parquet(table))
    snapshot = seal(storage, attempt, num_rows={FEATURES_FILE: len(table)}, facts=facts)
    fault("preprocess.after_seal")
    publish(storage, base, snapshot)
    return snapshot


def known(storage: Storage, layout: Layout, need: Need, facts: dict[str, Any]) -> Snapshot | None:
    """Published features of this batch if they were made from the same history by the same function."""
    snapshot = current(storage, layout.features(need.batch.batch_id))
    return snapshot if snapshot is not None and snapshot.manifest.facts == facts else None


def read_folder(storage: Storage, folder: str) -> pa.Table:
    """All Parquet files of a folder as one table. Raises: DataError if there are none."""
    uris = [uri for uri in storage.list(folder) if uri.endswith(".parquet")]
    if not uris:
        raise DataError(f"the feature job wrote nothing to {folder}; its rows lie outside the batch, check their clock")
    return pa.concat_tables([from_parquet(storage.read(uri)) for uri in uris])


def tidy(spec: Product, table: pa.Table, *, batch_id: str) -> pa.Table:
    """Fixed names, types and order of rows and columns. Raises: DataError for a number that is not finite."""
    time = pc.cast(table[spec.features.time], pa.timestamp("us", tz="UTC"))
    fixed = {KEY: table[spec.features.key], TIME: time, DAY: pc.cast(time, pa.date32())}
    schema = feature_schema(spec)
    if spec.features.text is not None:
        schema = schema.append(pa.field(TOKENS, pa.large_binary()))
    columns = fixed | {name: table[name] for name in schema.names if name not in fixed}
    for name in spec.features.numeric:
        if pc.all(pc.is_finite(columns[name])).as_py() is False:
            raise DataError(
                f"feature {name!r} of batch {batch_id} holds NaN or infinity; return null where there is no number"
            )
    tidied = pa.table(columns).cast(schema)
    return tidied.sort_by([(TIME, "ascending"), (KEY, "ascending")])


def _shard(table: pa.Table, *, batch_id: str) -> bytes:
    """The tokens of all rows, one document behind the other. Raises: DataError for a row without text."""
    if table[TOKENS].null_count:
        key = table[KEY].filter(pc.is_null(table[TOKENS]))[0].as_py()
        raise DataError(
            f"row {key!r} of batch {batch_id} has no text; leave such rows out of the delivery, or make it empty text"
        )
    return b"".join(table[TOKENS].to_pylist())
