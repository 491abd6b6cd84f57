"""The Spark part: read one stretch of raw batches, call the product's feature function, write one folder per batch.

Addresses are URIs (`file://`, `s3://`), so the same file runs on a laptop and on a cluster.
"""

import traceback
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from pyspark.errors import (
    AnalysisException,
    ArithmeticException,
    IllegalArgumentException,
    NumberFormatException,
    PySparkException,
    SparkRuntimeException,
)
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - its usual name

from clearway.contracts.errors import ClearwayError, ConfigError, DataError, Unavailable
from clearway.infra.snapshots import Snapshot
from clearway.preprocess.plan import Stretch, rows_table
from clearway.preprocess.text import tokens_of
from clearway.product import LoadedProduct, Product

# What both engines raise for values that an expression cannot take; anything else may be the engine's own trouble.
WRONG_DATA = (
    AnalysisException,
    ArithmeticException,
    IllegalArgumentException,
    NumberFormatException,
    SparkRuntimeException,
)
FULL_DISK = "No space left on device"  # what both engines hand on from the system
BATCH_ID = "batch_id"
ROWS = "rows"


def write_features(
    session: SparkSession, product: LoadedProduct, stretch: Stretch, *, batches: Mapping[str, Snapshot], target: str
) -> None:
    """Features of every batch in `stretch`, as Parquet below `target`, partitioned by BATCH_ID.

    Args:
        batches: snapshots of the stretch's history, by batch id.
        target: an address nobody else writes to.
    Raises: ConfigError if the function does not return a declared column; Unavailable on a full disk.
    """
    tables = read_tables(session, product.spec, stretch, batches=batches)
    features = features_of(product, tables)
    # Nothing but a fresh folder is ever written to: overwriting single partitions is not the same on both engines.
    try:
        features.write.partitionBy(BATCH_ID).parquet(target, compression="lz4")
    except PySparkException as error:
        if FULL_DISK in str(error):
            raise Unavailable(
                f"Spark cannot write below {target}: {FULL_DISK}; free some, then run it again"
            ) from error
        _explain(product, tables, error)
        raise


def features_of(product: LoadedProduct, tables: dict[str, DataFrame]) -> DataFrame:
    """Key, clock, declared features and batch of `tables["rows"]`, in declared types."""
    spec = product.spec
    made = _made(product, tables)
    numbers = (F.col(name).cast("double").alias(name) for name in spec.features.numeric)
    texts = (F.col(name).cast("string").alias(name) for name in spec.features.categorical)
    documents = [] if spec.features.text is None else [F.col(spec.features.text), tokens_of(spec.features.text)]
    return made.select(
        spec.features.key, spec.features.time, *numbers, *texts, *documents, _batch_id(spec).alias(BATCH_ID)
    )


def _made(product: LoadedProduct, tables: dict[str, DataFrame]) -> DataFrame:
    """What the product's function returns. Raises: ConfigError if it fails, or returns no DataFrame."""
    path = product.spec.features.function
    try:
        made = product.function(path)(tables)
    except (ClearwayError, PySparkException):
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if Path(frame.filename).parent == product.folder]
        where = f", line {lines[-1]}" if lines else ""
        raise ConfigError(
            f"{path} of {product.name!r} raised {type(error).__name__}: {error}{where}; it is handed the tables "
            f"{sorted(tables)}; correct it"
        ) from error
    if not isinstance(made, DataFrame):
        raise ConfigError(
            f"{path} of {product.name!r} returned a {type(made).__name__}; allowed: a Spark DataFrame; return the rows "
            "with their features"
        )
    return made


def _explain(product: LoadedProduct, tables: dict[str, DataFrame], error: PySparkException) -> None:
    """Raises: ConfigError if the failure is a feature that was declared and not made, DataError if it is in the data.

    Asked only after a failure: resolving the columns of a wide plan costs as much as computing a small batch.
    """
    spec = product.spec
    try:
        names = set(_made(product, tables).columns)
    except AnalysisException as wrong:
        raise ConfigError(
            f"{spec.features.function} of {product.name!r} cannot be computed: {wrong}; correct it"
        ) from wrong
    absent = sorted({spec.features.key, spec.features.time, *spec.features.columns} - names)
    if absent:
        raise ConfigError(
            f"{spec.features.function} of {product.name!r} does not return columns {absent}; make them, or take them "
            "out of product.yaml"
        ) from error
    if isinstance(error, WRONG_DATA):
        raise DataError(
            f"{spec.features.function} of {product.name!r} fails on the rows at hand: {error}; allowed: numbers under "
            "numeric, null where there is none (F.try_divide); correct the function or product.yaml"
        ) from error


def read_tables(
    session: SparkSession, spec: Product, stretch: Stretch, *, batches: Mapping[str, Snapshot]
) -> dict[str, DataFrame]:
    """Landed tables of a stretch: rows since its look-back, reference tables once, the rows to predict as ROWS.

    The label table is not among them: what the function cannot see it cannot leak.
    """
    tables = {}
    for name, table in spec.tables.items():
        if spec.label is not None and name == spec.label.table:
            continue
        # A reference table lands whole with every batch, and is the same throughout a stretch.
        ids = [b.batch_id for b in stretch.history] if table.time else [stretch.needs[-1].batch.batch_id]
        frame = _read(session, [batches[i].file_uri(f"{name}.parquet") for i in ids])
        tables[name] = frame.where(F.col(table.time) >= F.lit(stretch.since)) if table.time else frame
    time = spec.features.time
    tables[ROWS] = tables[rows_table(spec)].where(_is_between(time, stretch.start, stretch.end))
    return tables


def _read(session: SparkSession, uris: Sequence[str]) -> DataFrame:
    return session.read.parquet(*uris)


def _is_between(time: str, start: datetime, end: datetime) -> Column:
    return (F.col(time) >= F.lit(start)) & (F.col(time) < F.lit(end))


def _batch_id(spec: Product) -> Column:
    """The batch clock in Spark: start of the day, Monday, or first of the month, as a date."""
    return F.date_format(F.date_trunc(spec.batch.every, F.col(spec.features.time)), "yyyy-MM-dd")
