"""The product `town`: numbers, one category and a label that comes a week late; nothing of it lies on disk."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from clearway.product import LoadedProduct, Product

FIRST = datetime(2013, 1, 7, tzinfo=UTC)


def town_product(
    numeric: tuple[str, ...],
    *,
    num_training: int,
    batch: dict[str, Any] | None = None,
    release: dict[str, Any] | None = None,
    monitor: dict[str, Any] | None = None,
) -> LoadedProduct:
    """With `num_training` weeks before its first release; `batch`, `release`, `monitor`: more of these sections."""
    columns = {"key": "string", "at": "timestamp", "late": "int"}
    spec = {
        "name": "town",
        "title": "Town",
        "description": "d",
        "owners": ["o"],
        "risk_tier": "low",
        "source": {"kind": "package", "package": "p", "files": {"labels": "l.csv"}},
        "tables": {"labels": {"columns": columns, "time": "at", "delay_days": 7, "key": ["key"]}},
        "batch": {"every": "week", "first": FIRST} | (batch or {}),
        "label": {"table": "labels", "column": "late"},
        "features": {
            "function": "features.py:build",
            "key": "key",
            "time": "at",
            "lookback_days": 0,
            "numeric": numeric,
            "categorical": ["c"],
        },
        "validate": {"expectations": [{"expect": "column_values_to_not_be_null", "args": {"column": "key"}}]},
        "gates": {"auc_floor": 0.6, "auc_ceiling": 0.99},
        "release": {"first_end": FIRST + timedelta(weeks=num_training)} | (release or {}),
        "monitor": monitor or {},
    }
    return LoadedProduct(spec=Product.model_validate(spec), folder=Path("/nowhere"), digest="0" * 64)
