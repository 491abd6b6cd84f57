"""Evidently's drift report, for people: a declared sample of the batch beside the sample the package carries.

No decision reads it; it shows shapes. Evidently costs 3 s of CPU to import and about 0.1 s per column, so the report
comes last and is kept to the columns that drifted most.
"""

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from clearway.measures.bins import NUMERIC
from clearway.monitor.drift_part import DriftPart, FeatureDrift

# About 1 s of CPU for the report itself; further columns are in the table above it.
MAX_COLUMNS = 8
# Same distances as ours where Evidently has them without a permutation test (its total variation takes 3 s a column).
NUMERIC_METHOD, CATEGORICAL_METHOD = "wasserstein", "jensenshannon"
# Evidently's default threshold for jensenshannon; our limit is a total variation and would not fit.
CATEGORICAL_THRESHOLD = 0.1


def drift_page(drift: DriftPart, sample: Mapping[str, Sequence[Any]], rows: pa.Table) -> str:
    """HTML page. Raises: ValueError when no column has values on both sides.

    Args:
        sample: rows of the training period (reference["sample"]).
        rows: of the batch, evenly spaced; all of them are shown.
    """
    shown = _choose(drift.features, sample, rows)
    if not shown:
        raise ValueError("no column has values both in the training sample and in the batch; nothing can be drawn")
    names = [f.name for f in shown]
    current = rows.select(names)
    with warnings.catch_warnings():
        # Evidently 0.7 uses numpy.core and a deprecated litestar call at import; neither is ours to mend.
        warnings.simplefilter("ignore", DeprecationWarning)
        return _render(shown, {n: list(sample[n]) for n in names}, current)


def _choose(
    features: Sequence[FeatureDrift], sample: Mapping[str, Sequence[Any]], rows: pa.Table
) -> list[FeatureDrift]:
    """Largest excess first, counted features before ignored ones; a column without values on one side is left out."""
    ranked = sorted(features, key=lambda f: f.is_ignored)
    drawable = (f for f in ranked if f.name in sample and any(v is not None for v in sample[f.name]))
    return [f for f in drawable if rows[f.name].null_count < len(rows)][:MAX_COLUMNS]


def _render(shown: Sequence[FeatureDrift], sample: Mapping[str, list[Any]], current: pa.Table) -> str:
    os.environ["DO_NOT_TRACK"] = "1"  # read by Evidently when it is imported
    import pandas as pd  # type: ignore[import-untyped]
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    numeric = [f.name for f in shown if f.kind == NUMERIC]
    definition = DataDefinition(
        numerical_columns=numeric, categorical_columns=[f.name for f in shown if f.kind != NUMERIC]
    )
    preset = DataDriftPreset(
        num_method=NUMERIC_METHOD,
        cat_method=CATEGORICAL_METHOD,
        cat_threshold=CATEGORICAL_THRESHOLD,
        per_column_threshold={f.name: f.limit for f in shown if f.kind == NUMERIC and f.limit is not None},
    )
    frames = (pd.DataFrame(sample), current.to_pandas())
    datasets = [Dataset.from_pandas(_typed(f, numeric), data_definition=definition) for f in frames]
    snapshot = Report([preset]).run(datasets[1], datasets[0])
    return str(snapshot.get_html_str(as_iframe=False))


def _typed(frame: Any, numeric: Sequence[str]) -> Any:
    """Numbers as float64, everything else as plain strings with None for missing."""
    for name in frame.columns:
        if name in numeric:
            frame[name] = frame[name].astype("float64")
        else:
            frame[name] = frame[name].astype("object").where(frame[name].notna(), None)
    return frame
