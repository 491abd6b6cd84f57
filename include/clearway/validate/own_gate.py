"""Our own gate, before Great Expectations speaks: pure, from counts to checks.

It exists because the suite alone passes empty tables, all-NaN columns and infinities (measured on 1.24.1).
"""

from collections.abc import Iterator
from datetime import UTC, datetime

from clearway.contracts.verdict import Check, Verdict, at_least, at_most
from clearway.infra.clock import format_instant, parse_instant
from clearway.infra.datasets import DAY, KEY, TIME, DatasetDocument
from clearway.product import Product
from clearway.validate.scan import Column, Scan

RESERVED = (KEY, TIME, DAY)


def own_checks(scan: Scan, document: DatasetDocument, product: Product) -> tuple[Check, ...]:
    """Every rule, passed or not, in a fixed order."""
    return (
        *_schema(scan, product),
        *_rows(scan, product),
        *_keys_and_days(scan, document, product),
        *_values(scan, product),
        *(_label(scan) if product.label is not None else ()),
    )


def _claim(name: str, holds: bool, reason: str, *, value: float | None = None) -> Check:
    return Check(name=name, verdict=Verdict.PASS if holds else Verdict.FAIL, value=value, reason=reason)


def _schema(scan: Scan, product: Product) -> Iterator[Check]:
    found = [c.name for c in scan.columns]
    text = product.features.text
    wanted = [*product.features.columns, *([text] if text else [])]
    model_columns = [name for name in found if name not in RESERVED]
    missing = sorted({*RESERVED, *wanted} - set(found))
    extra = sorted(set(model_columns) - set(wanted))
    yield _claim("schema_columns", not missing and not extra, f"missing {missing}, not declared {extra}")
    is_ordered = [n for n in model_columns if n in wanted] == [n for n in wanted if n in model_columns]
    yield _claim(
        "schema_order",
        is_ordered and not scan.other_orders,
        f"features in declared order: {is_ordered}; batches with other columns: {list(scan.other_orders)}",
    )
    denied = sorted(set(found) & (set(product.features.deny) - set(RESERVED)))
    yield _claim("schema_deny", not denied, f"columns that were not known at prediction time: {denied}")
    wrong = [f"{c.name} is {'/'.join(c.types)}" for c in scan.columns if not _type_fits(c, product)]
    yield _claim("schema_types", not wrong, f"columns with another type: {wrong}")


def _type_fits(column: Column, product: Product) -> bool:
    if len(column.types) != 1:
        return False
    kind = column.types[0]
    if column.name in product.features.numeric:
        return kind in {"float", "double", "halffloat"} or "int" in kind
    if column.name in {*product.features.categorical, product.features.text, KEY}:
        return kind in {"string", "large_string"} or kind.startswith("dictionary<values=string")
    if column.name == TIME:
        return kind.startswith("timestamp") and "tz=" in kind
    return column.name != DAY or kind == "date32[day]"


def _rows(scan: Scan, product: Product) -> Iterator[Check]:
    yield at_least("rows", float(scan.num_rows), float(product.validate_.min_rows))
    yield _claim(
        "rows_as_recorded",
        scan.num_rows == scan.expected_rows,
        f"{scan.num_rows} rows in the files, {scan.expected_rows} in the dataset's document",
    )


def _keys_and_days(scan: Scan, document: DatasetDocument, product: Product) -> Iterator[Check]:
    yield at_most("duplicate_keys", float(scan.num_duplicate_keys), 0.0)
    yield at_most("wrong_days", float(scan.num_wrong_days), 0.0, reason=f"{DAY} is the UTC day of {TIME}")
    if scan.first is None or scan.last is None:
        yield Check(name="time_range", verdict=Verdict.ERROR, reason="no row has a time; no range can be measured")
        return
    first, last, as_of = _utc(scan.first), _utc(scan.last), parse_instant(document.as_of)
    starts = [product.batch.start_of(piece.batch_id) for piece in document.features]
    holds = starts[0] <= first and last < max(product.batch.end_of(starts[-1]), as_of)
    yield _claim(
        "time_range",
        holds,
        f"rows from {format_instant(first)} to {format_instant(last)}, batches from {format_instant(starts[0])}, "
        f"as of {format_instant(as_of)}",
    )


def _utc(instant: datetime) -> datetime:
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


def _values(scan: Scan, product: Product) -> Iterator[Check]:
    rules = product.validate_
    for column in scan.columns:
        declared = rules.completeness.get(column.name, rules.min_completeness)
        bound = 1.0 if column.name in RESERVED else declared
        share = 1.0 - column.num_missing / scan.num_rows if scan.num_rows else None
        yield at_least(
            f"completeness[{column.name}]", share, bound, reason="share of rows that are neither null nor NaN"
        )
        yield at_most(f"infinite[{column.name}]", float(column.num_infinite), 0.0)


def _label(scan: Scan) -> Iterator[Check]:
    yield at_most("strange_labels", float(scan.num_strange_labels), 0.0, reason="labels are 0 or 1")
    if not scan.num_labelled:
        yield Check(
            name="both_classes",
            verdict=Verdict.PASS,
            reason="no label has arrived yet; nothing to train on, nothing to check",
            is_decisive=False,
        )
        return
    both = 0 < scan.num_positive < scan.num_labelled
    yield _claim("both_classes", both, f"{scan.num_positive} of {scan.num_labelled} labels are 1")
