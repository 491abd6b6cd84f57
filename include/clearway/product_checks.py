"""What no single field of product.yaml can know: whether its sections fit each other."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from clearway.product import ColumnType, Product
from clearway.product_monitor import CountedBy, Signal
from clearway.product_source import FilesSource
from clearway.product_tune import check_space
from clearway.strict_yaml import Where

# What only labels show, and what only texts do.
OF_LABELS, OF_TEXTS = {Signal.CALIBRATION, Signal.LOSS}, {Signal.SURPRISE}
LABEL_TYPES = (ColumnType.INT, ColumnType.FLOAT, ColumnType.BOOL)
# Beside the features themselves, what a validated row has: clearway.infra.datasets names them, and is not cheap.
ROW_COLUMNS = ("key", "event_time", "day")
# Arguments of Great Expectations that name columns.
COLUMN_ARGS = ("column", "column_A", "column_B", "column_list", "column_set")
# What Airflow itself takes in place of fields, in fields; other words (`@midnight`) croniter knows.
CRON_WORDS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@quarterly": "0 0 1 */3 *",
    "@yearly": "0 0 1 1 *",
}

# Where in product.yaml, and what is wrong there.
Mistake = tuple[Where, str]


def mistakes_of(spec: Product) -> Iterator[Mistake]:
    """Everything that would only be noticed by a stage, hours later, or never."""
    yield from _clocks(spec)
    yield from _files(spec)
    if missing := list(_label_place(spec)):
        yield from missing
        return
    yield from _label(spec)
    yield from _watch(spec)
    yield from _requests(spec)
    yield from _search(spec)
    yield from _features(spec)
    yield from _rules(spec)
    yield from _first_release(spec)
    yield from _schedule(spec)


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


def _label_place(spec: Product) -> Iterator[Mistake]:
    """The label's table is landed, with the label and the key of a row to predict."""
    if spec.label is None:
        return
    table = spec.tables.get(spec.label.table)
    if table is None:
        yield ("label", "table"), f"is {spec.label.table!r}, which is not in tables; allowed: {sorted(spec.tables)}"
        return
    columns = f"columns of {spec.label.table!r}: {sorted(table.columns)}"
    if spec.label.column not in table.columns:
        yield ("label", "column"), f"is {spec.label.column!r}; allowed: one of the {columns}"
    if spec.features.key not in table.columns:
        yield ("features", "key"), f"is {spec.features.key!r}, to join labels by; allowed: one of the {columns}"


def _requests(spec: Product) -> Iterator[Mistake]:
    text = spec.features.text
    asked = (text,) if text else spec.features.columns
    for name in spec.rollout.shadow.slices:
        if name not in asked:
            yield ("rollout", "shadow", "slices", name), f"is in no request; it has {', '.join(asked)}"


def _search(spec: Product) -> Iterator[Mistake]:
    try:
        check_space(spec.tune, spec.model)
    except ValueError as error:
        yield ("tune", "space"), f"does not fit the model: {error}"


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


def _features(spec: Product) -> Iterator[Mistake]:
    """What the model sees is neither the answer nor the name of the row."""
    features = spec.features
    if spec.label is not None and not features.columns:
        yield ("features", "numeric"), "is [], and so is categorical; name at least one column that the model sees"
    taken = {features.key: "the key of a row", features.time: "the time of a row"}
    if spec.label is not None:
        taken[spec.label.column] = "the label, which the model is to predict"
    for section in ("numeric", "categorical"):
        for name in getattr(features, section):
            if name in taken:
                yield ("features", section), f"holds {name!r}, {taken[name]}; allowed: any other column"


def _rules(spec: Product) -> Iterator[Mistake]:
    """Rules about columns name columns that there are."""
    text = (spec.features.text,) if spec.features.text else ()
    known = (*ROW_COLUMNS, *spec.features.columns, *text)
    allowed = f"allowed: {', '.join(known)}"
    for name in spec.validate_.completeness:
        if name not in known:
            yield ("validate", "completeness", name), f"is a bound for no column of a row; {allowed}"
    for index, expectation in enumerate(spec.validate_.expectations):
        where = ("validate", "expectations", index)
        for arg in COLUMN_ARGS:
            for name in _names(expectation.args.get(arg)):
                if name not in known:
                    yield (*where, "args", arg), f"is {name!r}, which is no column of a row; {allowed}"
        low, high = expectation.args.get("min_value"), expectation.args.get("max_value")
        if isinstance(low, int | float) and isinstance(high, int | float) and low > high:
            yield (*where, "args"), f"has min_value {low} above max_value {high}, so nothing passes; swap them"
    for name in spec.monitor.ignore:
        if name not in spec.features.columns:
            allowed = ", ".join(spec.features.columns)
            yield ("monitor", "ignore"), f"holds {name!r}, which is no feature; allowed: {allowed}"
    if spec.label is not None and spec.features.columns and set(spec.monitor.ignore) >= set(spec.features.columns):
        yield ("monitor", "ignore"), "holds every feature, so no drift is ever seen; leave at least one out"


def _names(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _first_release(spec: Product) -> Iterator[Mistake]:
    """Its end lies on the clock, where there is data, and leaves days to train on."""
    batch, release = spec.batch, spec.release
    where = ("release", "first_end")
    soonest = batch.end_of(batch.first)
    if batch.last is not None and batch.last < batch.first:
        yield ("batch", "last"), f"is {batch.last.date()}, before batch.first {batch.first.date()}; swap them"
        return
    if release.first_end < soonest:
        text = f"is {release.first_end.date()}, before the end of the first batch; allowed: {soonest.date()} or later"
        yield where, text
        return
    if batch.last is not None and release.first_end > (end := batch.end_of(batch.last)):
        text = f"is {release.first_end.date()}, after the end of the last batch; allowed: {end.date()} or earlier"
        yield where, text
        return
    nearest = batch.intervals(batch.first, release.first_end)[-1][1]
    if nearest != release.first_end:
        text = f"is {release.first_end.isoformat()}, inside a {batch.every}; allowed: {nearest.date()} or "
        yield where, f"{text}{batch.end_of(nearest).date()}"
    yield from _first_days(spec)


def _first_days(spec: Product) -> Iterator[Mistake]:
    num_days = (spec.release.first_end - spec.batch.first).days
    if spec.features.lookback_days >= num_days:
        text = f"is {spec.features.lookback_days}, and the first release has {num_days} days of data in all; allowed: "
        yield ("features", "lookback_days"), f"{text}less than {num_days}, or a later release.first_end"
    delay_days = spec.tables[spec.label.table].delay_days if spec.label is not None else 0
    if spec.release.holdout_days >= num_days - delay_days:
        text = f"is {spec.release.holdout_days}, and of the {num_days} days before release.first_end labels are known"
        text = f"{text} for {max(0, num_days - delay_days)}, so none is left to train on"
        yield ("release", "holdout_days"), f"{text}; take fewer, or a later release.first_end"


def _schedule(spec: Product) -> Iterator[Mistake]:
    schedule = spec.release.schedule
    if schedule is not None and not is_cron(schedule, after=spec.release.first_end):
        text = f"is {schedule!r}; allowed: five fields of cron, as '0 6 * * 1', or one of {', '.join(CRON_WORDS)}"
        yield ("release", "schedule"), text


def is_cron(text: str, *, after: datetime) -> bool:
    """Whether Airflow takes this for a schedule, and it comes at least once `after`; both ask croniter."""
    from croniter import CroniterError, croniter  # type: ignore[import-untyped]  # noqa: PLC0415 - few have a schedule

    try:
        croniter(CRON_WORDS.get(text, text), after).get_next()
    except CroniterError:
        return False
    return True
