"""What no single field of product.yaml can know: whether its sections fit each other."""

from collections.abc import Iterator

from clearway.product import ColumnType, Product
from clearway.product_monitor import CountedBy, Signal
from clearway.product_source import FilesSource
from clearway.strict_yaml import Where

# What only labels show, and what only texts do.
OF_LABELS, OF_TEXTS = {Signal.CALIBRATION, Signal.LOSS}, {Signal.SURPRISE}
LABEL_TYPES = (ColumnType.INT, ColumnType.FLOAT, ColumnType.BOOL)

# Where in product.yaml, and what is wrong there.
Mistake = tuple[Where, str]


def mistakes_of(spec: Product) -> Iterator[Mistake]:
    """Everything that would only be noticed by a stage, hours later, or never."""
    yield from _clocks(spec)
    yield from _files(spec)
    yield from _label(spec)
    yield from _watch(spec)
    if spec.label is not None and not spec.features.columns:
        yield ("features", "numeric"), "is [], and so is categorical; name at least one column that the model sees"
    if not spec.batch.intervals(spec.batch.first, spec.release.first_end):
        soonest = spec.batch.end_of(spec.batch.first).date()
        text = f"is {spec.release.first_end.date()}, before the end of the first batch; allowed: {soonest} or later"
        yield ("release", "first_end"), text


def _clocks(spec: Product) -> Iterator[Mistake]:
    for name, table in spec.tables.items():
        for column in dict.fromkeys(c for c in (table.time, *table.events) if c is not None):
            if table.columns[column] is not ColumnType.TIMESTAMP:
                text = f"is {table.columns[column].value!r}, and rows are placed in time by it; declare a timestamp"
                yield ("tables", name, "columns", column), text


def _files(spec: Product) -> Iterator[Mistake]:
    """Without a `shape` function the files are the tables themselves."""
    if not isinstance(spec.source, FilesSource) or spec.shape is not None:
        return
    for name in spec.source.files:
        if name not in spec.tables:
            yield ("source", "files", name), f"is no table; allowed: {sorted(spec.tables)}"
    for name in spec.tables:
        if name not in spec.source.files:
            yield ("source", "files"), f"has no file for table {name!r}; add one, or a `shape` that makes the table"


def _label(spec: Product) -> Iterator[Mistake]:
    if spec.label is None:
        return
    found = spec.tables[spec.label.table].columns[spec.label.column]
    if found not in LABEL_TYPES:
        text = f"is {found.value!r}, and a label is 0 or 1; allowed: {', '.join(t.value for t in LABEL_TYPES)}"
        yield ("tables", spec.label.table, "columns", spec.label.column), text


def _watch(spec: Product) -> Iterator[Mistake]:
    """A trigger that can never speak, a count that nobody makes."""
    reads_text = spec.features.text is not None
    never = OF_LABELS if reads_text else OF_TEXTS
    if "triggers" in spec.monitor.model_fields_set:
        for place, group in enumerate(spec.monitor.triggers):
            if never & set(group):
                names = ", ".join(sorted(signal.value for signal in never & set(group)))
                text = f"needs {names}, which a {spec.model.kind} model never shows; leave it out"
                yield ("monitor", "triggers", place), text
    if reads_text and spec.monitor.counted_by is CountedBy.SPARK:
        yield ("monitor", "counted_by"), "is 'spark', which counts no tokens; allowed for a language model: pieces"
