"""What has to be computed: which batches, from which history. Pure: references in, a plan out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from clearway.contracts.errors import ConfigError, DataError
from clearway.infra.raw_windows import LandedBatch
from clearway.product import Batch, Product


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """One batch and the landed history its features depend on.

    Args:
        start, end: interval of the batch, UTC.
        history: the batch itself, last, after the batches its look-back touches.
    """

    batch: LandedBatch
    start: datetime
    end: datetime
    history: tuple[LandedBatch, ...]

    def facts(self, *, function: str, spec: Product) -> dict[str, Any]:
        """What decides the features of this batch: they are recomputed when any of it changes.

        `function`: digest of the file with the feature function.
        """
        features = spec.features
        return {
            "batch_id": self.batch.batch_id,
            "columns": list(features.columns),
            "function": function,
            "history": [[b.batch_id, b.digest] for b in self.history],
            "lead_hours": features.lead_hours,
            "lookback_days": features.lookback_days,
            **({"text": features.text} if features.text else {}),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Neighbouring batches computed by one job, since they share their reference tables.

    Args:
        since: earliest instant whose rows the job may read, UTC.
        history: all batches to read, oldest first.
    """

    needs: tuple[Need, ...]
    since: datetime
    history: tuple[LandedBatch, ...]

    @property
    def start(self) -> datetime:
        return self.needs[0].start

    @property
    def end(self) -> datetime:
        return self.needs[-1].end


def needs_of(spec: Product, batches: Sequence[LandedBatch], *, start: datetime, landed: Iterable[str]) -> list[Need]:
    """One need per batch from `start` on.

    Args:
        batches: the raw window, oldest first.
        landed: ids of every batch in the ledger. A look-back batch that was landed must be in the window too, or the
            features would differ from those of a longer window. One that was never landed is a gap in the data.
    Raises: ConfigError naming the batch that the window lacks.
    """
    clock, features = spec.batch, spec.features
    by_id = {b.batch_id: b for b in batches}
    outside = set(landed) - set(by_id)
    needs = []
    for batch in batches:
        begin = clock.start_of(batch.batch_id)
        if begin < start:
            continue
        ids = _ids(clock, clock.back(begin, features.lookback_days), clock.end_of(begin))
        lacking = [i for i in ids if i in outside]
        if lacking:
            raise ConfigError(
                f"features of batch {batch.batch_id} look back {features.lookback_days} days, to batch {lacking[0]}, "
                f"which is landed but not in the raw window; ingest a window that starts there"
            )
        history = tuple(by_id[i] for i in ids if i in by_id)
        needs.append(Need(batch=batch, start=begin, end=clock.end_of(begin), history=history))
    return needs


def stretches_of(spec: Product, needs: Sequence[Need], *, references: Mapping[str, str]) -> list[Stretch]:
    """Put neighbours with equal reference tables together.

    Args:
        references: batch id → digest of its reference tables; each batch is computed with its own.
    """
    groups: list[list[Need]] = []
    for need in needs:
        is_neighbour = bool(groups) and groups[-1][-1].end == need.start
        if is_neighbour and references[groups[-1][-1].batch.batch_id] == references[need.batch.batch_id]:
            groups[-1].append(need)
        else:
            groups.append([need])
    return [_stretch(spec, group) for group in groups]


def rows_table(spec: Product) -> str:
    """Name of the table whose rows are predicted: it has the product's key and clock and is not the label table."""
    features, label_table = spec.features, spec.label and spec.label.table
    found = [
        name
        for name, table in spec.tables.items()
        if table.time == features.time and features.key in table.columns and name != label_table
    ]
    if len(found) != 1:
        raise ConfigError(
            f"tables {found} have the clock {features.time!r} and the key {features.key!r}; allowed: exactly one "
            f"besides the label table {label_table!r}"
        )
    return found[0]


def check_same_rows(batch_id: str, *, num_rows: int, num_keys: int, num_expected: int) -> None:
    """A feature function returns every row of the batch once. Raises: DataError."""
    if not num_rows == num_keys == num_expected:
        raise DataError(
            f"features of batch {batch_id} have {num_rows} rows with {num_keys} keys, the batch has {num_expected}; "
            "a join in the feature function drops or repeats rows"
        )


def _stretch(spec: Product, group: list[Need]) -> Stretch:
    history = {b.batch_id: b for need in group for b in need.history}
    since = group[0].start - timedelta(days=spec.features.lookback_days)
    return Stretch(needs=tuple(group), since=since, history=tuple(history[i] for i in sorted(history)))


def _ids(clock: Batch, start: datetime, end: datetime) -> list[str]:
    return [clock.batch_id(begin) for begin, _ in clock.intervals(start, end)]
