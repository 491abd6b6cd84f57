"""How far one batch lies from the training period, feature by feature, with limits the training period sets itself.

Everything works on small histograms (at most 10 bins per feature, counts and sums), which add and subtract: a limit for
every feature needs one pass over the rows and then only features x bins x batches numbers. Formulas, their sources and
values checked by hand: docs/reference/drift.md.

Shapes: F features, B bins (or categories), N rows, T training batches.
"""

# ruff: noqa: N803, N806 - shape letters in names

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clearway.measures.batch_null import BatchNull, batch_null, p_value
from clearway.measures.bins import (
    CATEGORICAL,
    NUMERIC,
    TEXT,
    Bins,
    Floats,
    Ints,
    bin_rule,
    count_rows,
    numbers_of,
    stored_bins,
)
from clearway.measures.distance_interval import (
    MIN_DAYS,
    days_drawn,
    distance_interval,
    total_variation_draws,
    wasserstein_draws,
)
from clearway.measures.effect import weights
from clearway.measures.grid import points_of
from clearway.measures.jensen_shannon import jensen_shannon
from clearway.measures.kolmogorov_smirnov import kolmogorov_smirnov
from clearway.measures.psi import psi
from clearway.measures.season import season_batches
from clearway.measures.size import MIN_VALUES, Sizes, sizes_of, times_beyond
from clearway.measures.tally import ColumnTally, Entry, Tally, tally, tally_column
from clearway.measures.together import usual_separations
from clearway.measures.total_variation import total_variation
from clearway.measures.wasserstein import wasserstein

REFERENCE_VERSION = 3
# A feature's limit: this quantile of the distances between each training batch and the rest of the training period.
LIMIT_QUANTILE = 0.95
# Below a hundredth (of a standard deviation, or of the rows) a change is not worth a word, however quiet training was.
LIMIT_FLOOR = 0.01
# One batch has nothing to be compared with; two give each other a distance.
MIN_BATCHES = 2
# A batch cut short (the first or last of a period) is noisier than the rest and would widen every limit.
MIN_BATCH_SHARE = 0.5
# Values in the carried sample: with 86 columns about 130 kB of JSON, which every reader of the package has to load.
MAX_SAMPLE_VALUES = 18_000
MAX_SAMPLE_ROWS = 500
# The whole training period among seasons.
WHOLE = "whole"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """One feature of one batch against the reference.

    Args:
        distance: numeric: Wasserstein over the reference's standard deviation; categories, and tokens of texts: total
            variation. None when the batch or the reference has no value to compare.
        lower, upper: of the distance, 95 % together, the batch's days drawn anew; None for too few days.
        limit: what training batches themselves reached; None when the reference has too few batches.
        p_value: chance that one more batch like those of training lies this far away; None for too few batches.
        psi, jensen_shannon, kolmogorov_smirnov (at least, at most): for readers who know them; no decision reads them.
        unseen: share of values (of numbers, of those that are not zero) that training never held; None for a column
            with too many of them, without a grid, or with too few values to ask.
        size_factor: how many times larger or smaller than in any training batch values typically are, zeros apart; 1
            for no more; None for too few of them, or too few training batches.
        missing, missing_reference, missing_limit: shares of rows without a value.
        num_values: rows with a value in the batch.
    """

    name: str
    kind: str
    distance: float | None
    lower: float | None
    upper: float | None
    limit: float | None
    p_value: float | None
    psi: float | None
    jensen_shannon: float | None
    kolmogorov_smirnov: tuple[float, float] | None
    unseen: float | None
    size_factor: float | None
    missing: float
    missing_reference: float
    missing_limit: float | None
    num_values: int

    @property
    def is_over(self) -> bool | None:
        """Whether the distance exceeds the feature's own limit; None when nothing can be said."""
        if self.distance is None or self.limit is None:
            return None
        return self.distance > self.limit

    @property
    def excess(self) -> float:
        """Distance in units of its limit, the order in which people should look; 0 when unknown."""
        return self.distance / self.limit if self.distance is not None and self.limit else 0.0

    @property
    def is_going_missing(self) -> bool:
        """Whether clearly more rows lack a value than in any usual training batch."""
        return self.missing_limit is not None and self.missing - self.missing_reference > self.missing_limit


def build_reference(
    table: pa.Table,
    *,
    numeric: Sequence[str],
    categorical: Sequence[str],
    batch_column: str,
    score_column: str | None = None,
    day_column: str | None = None,
    effects: Mapping[str, float] | None = None,
    texts: Sequence[str] = (),
) -> dict[str, Any]:
    """What a package carries about its training period; plain JSON with finite numbers, below 200 kB for 86 features,
    and about 110 kB more with seasons.

    Args:
        table: training rows; nulls, NaN and infinities count as missing.
        numeric, categorical, texts: the model's columns; of texts their tokens count.
        batch_column: names the batch of each row; limits come from leaving out one batch at a time.
        score_column: the model's own score for these rows, if there is one.
        day_column: dates of the rows; with a year of them there is a reference per season as well (`season`).
        effects: of each column on the model's predictions (`effect.effects`); None where there is no model.
    Returns: `features` (name → bins, counts, missing share, limits), `score` (the same for the score, or None),
        `effects`, `null_shares` (per training batch, share of features over limits that the other batches set),
        `seasons` (the same per season), both once more as they count `by_effect`, `sample` (column → values of some
        rows), `usual_separations` (of training batches from that sample), `num_rows`, `num_batches`, `version`.
    Raises: ValueError for an empty table.
    """
    counted = count_reference(
        table,
        numeric=numeric,
        categorical=categorical,
        batch_column=batch_column,
        score_column=score_column,
        day_column=day_column,
        texts=texts,
    )
    return weigh_reference(counted, effects)


def count_reference(
    table: pa.Table,
    *,
    numeric: Sequence[str],
    categorical: Sequence[str],
    batch_column: str,
    score_column: str | None = None,
    day_column: str | None = None,
    texts: Sequence[str] = (),
) -> dict[str, Any]:
    """The part of `build_reference` that no model is needed for, and what `weigh_reference` makes the rest of: `over`,
    per season and for WHOLE the features that each training batch has over the limits of the others. [F, T]"""
    if not len(table):
        raise ValueError("drift reference needs training rows, the table has 0; pass the rows the model was trained on")
    batch_N = _batch_codes(table.column(batch_column))
    seasons = season_batches(_days(table.column(day_column)), batch_N) if day_column else {}
    kinds = dict.fromkeys(numeric, NUMERIC) | dict.fromkeys(categorical, CATEGORICAL) | dict.fromkeys(texts, TEXT)
    built = {name: _feature(table.column(name), kind, batch_N, seasons) for name, kind in kinds.items()}
    score = _feature(table.column(score_column), NUMERIC, batch_N, {})[0] if score_column else None
    sample, chosen = _sample(table, numeric=numeric, categorical=categorical)
    return {
        "version": REFERENCE_VERSION,
        "num_rows": len(table),
        "num_batches": int(batch_N.max()) + 1,
        "features": {name: entry for name, (entry, _) in built.items()},
        "score": score,
        "over": {of: [_over_others(distances[of]) for _, distances in built.values()] for of in (WHOLE, *seasons)},
        "sample": sample,
        "usual_separations": _usual(sample, chosen, table, batch_N),
    }


def weigh_reference(counted: Mapping[str, Any], effects: Mapping[str, float] | None) -> dict[str, Any]:
    """The reference that `build_reference` describes, of what `count_reference` found."""
    reference = dict(counted) | {"effects": dict(effects) if effects else None}
    over = reference.pop("over")
    names = reference["features"]
    counts = {"": weights([None] * len(names)), "_by_effect": weights([(effects or {}).get(name) for name in names])}
    for how, weights_F in counts.items():
        shares = {of: _null_shares(over_FT, weights_F) for of, over_FT in over.items()}
        reference |= {f"null_shares{how}": shares.pop(WHOLE), f"seasons{how}": shares}
    return reference


def compare(
    reference: dict[str, Any], table: pa.Table, *, ignore: Sequence[str] = (), days: npt.ArrayLike | None = None
) -> tuple[Drift, ...]:
    """Every feature of `reference` but those in `ignore`, measured on the rows of `table`; largest excess first.

    Args: days: of each row, any whole numbers; with them distances get intervals. [N]
    """
    entries = {name: entry for name, entry in reference["features"].items() if name not in ignore}
    return compare_tally(entries, tally(entries, table, days=days))


def compare_tally(entries: Mapping[str, Entry], counted: Tally) -> tuple[Drift, ...]:
    """Every feature of a batch that was counted; largest excess first. `entries`: their parts of the reference."""
    num_days = len(counted.days)
    draws_RD = days_drawn(num_days) if num_days >= MIN_DAYS else None
    found = [_drift(name, entry, counted.columns[name], draws_RD) for name, entry in entries.items()]
    return tuple(sorted(found, key=lambda d: (-d.excess, d.name)))


def compare_column(name: str, entry: Entry, column: pa.ChunkedArray) -> Drift:
    """One column against its entry of the reference, without an interval."""
    one_day = np.zeros(len(column), dtype=np.int64)
    return _drift(name, entry, tally_column(entry, column, one_day, num_days=1), None)


def _drift(name: str, entry: Entry, counted: ColumnTally, draws_RD: Floats | None) -> Drift:
    current, reference = counted.bins.total(), stored_bins(entry)
    p, q = reference.counts[0], current.counts[0]
    has_values = bool(p.sum() and q.sum())
    distance = _distance(entry["kind"], reference, current, scale=entry["sd"]) if has_values else None
    lower, upper = _interval(distance, entry, reference, counted.bins, draws_RD)
    return Drift(
        name=name,
        kind=entry["kind"],
        distance=distance,
        lower=lower,
        upper=upper,
        limit=entry["limit"],
        p_value=p_value(distance, BatchNull(*null)) if distance is not None and (null := entry.get("null")) else None,
        psi=psi(p, q) if has_values else None,
        jensen_shannon=jensen_shannon(p, q) if has_values else None,
        kolmogorov_smirnov=kolmogorov_smirnov(p, q) if has_values and entry["kind"] == NUMERIC else None,
        unseen=counted.unseen if entry["kind"] != NUMERIC or counted.num_asked >= MIN_VALUES else None,
        size_factor=times_beyond(counted.num_sized, counted.log_sum, usual) if (usual := entry.get("size")) else None,
        missing=current.missing_share,
        missing_reference=entry["missing"],
        missing_limit=entry["missing_limit"],
        num_values=round(q.sum()),  # texts add up to rows but for rounding
    )


def _interval(
    distance: float | None, entry: Entry, reference: Bins, per_day: Bins, draws_RD: Floats | None
) -> tuple[float | None, float | None]:
    if distance is None or draws_RD is None:
        return None, None
    if entry["kind"] != NUMERIC or entry["sd"] == 0:
        draws = total_variation_draws(reference.counts[0], per_day.counts, draws_RD)
    else:
        draws = wasserstein_draws(reference.counts[0], reference.means, per_day.counts, per_day.sums, draws_RD) / float(
            entry["sd"]
        )
    return distance_interval(distance, draws, num_days=draws_RD.shape[1]) or (None, None)


def _distance(kind: str, reference: Bins, current: Bins, *, scale: float) -> float:
    """The distance the alarm reads. A feature that never varied has no unit: the share of rows that left it counts."""
    if kind != NUMERIC or scale == 0:
        return total_variation(reference.counts[0], current.counts[0])
    return wasserstein(reference.counts[0], reference.means, current.counts[0], current.means) / scale


def _feature(
    column: pa.ChunkedArray, kind: str, batch_N: Ints, seasons: Mapping[str, Ints]
) -> tuple[dict[str, Any], dict[str, list[float | None]]]:
    """The reference entry of one feature, and its leave-one-out distances by season and of WHOLE. [T]"""
    entry = bin_rule(column, kind)
    bins = count_rows(column, entry, batch_N, num_batches=int(batch_N.max()) + 1)
    distances = {WHOLE: _left_out(bins, kind, scale=entry["sd"])}
    distances |= {s: _left_out(bins.of(batches), kind, scale=entry["sd"]) for s, batches in seasons.items()}
    grid, sizes = _grid_and_sizes(column, batch_N, spread=entry["sd"]) if kind == NUMERIC else (None, None)
    of_seasons = {
        s: _described(bins.of(batches), kind, distances[s]) | {"size": sizes.of(batches).usual() if sizes else None}
        for s, batches in seasons.items()
    }
    entry |= _described(bins, kind, distances[WHOLE]) | {"grid": grid, "size": sizes.usual() if sizes else None}
    return entry | ({"seasons": of_seasons} if of_seasons else {}), distances


def _described(bins: Bins, kind: str, distances: list[float | None]) -> dict[str, Any]:
    """What an entry says of a set of batches. `distances`: of each from the others. [T]"""
    total = bins.total()
    known = [d for d in distances if d is not None]
    shares = [abs(bins.only(t).missing_share - total.missing_share) for t in range(len(distances))]
    return {
        "counts": [float(f"{c:.9g}") if kind == TEXT else int(c) for c in total.counts[0]],
        "means": [float(f"{m:.9g}") for m in total.means] if kind == NUMERIC else [],
        "missing": total.missing_share,
        "limit": _limit(known),
        "null": batch_null(known),
        "missing_limit": _limit(shares),
    }


def _grid_and_sizes(column: pa.ChunkedArray, batch_N: Ints, *, spread: float) -> tuple[list[int] | None, Sizes]:
    values_N = numbers_of(column)
    is_present = np.isfinite(values_N)
    values, batches, num_batches = values_N[is_present], batch_N[is_present], int(batch_N.max()) + 1
    return points_of(values, batches, spread=spread), sizes_of(values, batches, num_batches=num_batches, spread=spread)


def _usual(sample: dict[str, list[Any]], chosen: Ints, table: pa.Table, batch_N: Ints) -> list[float]:
    return usual_separations(sample, batch_N[chosen].tolist(), table, batch_N) if sample else []


def _left_out(bins: Bins, kind: str, *, scale: float) -> list[float | None]:
    """Distance of each whole training batch from all others; None for a batch cut short or without values. [T]"""
    rows_T = np.rint(bins.counts.sum(axis=1) + bins.missing)  # texts add up to rows but for rounding
    is_whole = rows_T >= MIN_BATCH_SHARE * np.median(rows_T)
    distances: list[float | None] = []
    for batch in range(len(rows_T)):
        one, rest = bins.only(batch), bins.without(batch)
        can_compare = is_whole[batch] and one.counts.sum() and rest.counts.sum()
        distances.append(_distance(kind, rest, one, scale=scale) if can_compare else None)
    return distances


def _limit(distances: list[float]) -> float | None:
    if len(distances) < MIN_BATCHES:
        return None
    return max(LIMIT_FLOOR, float(np.quantile(distances, LIMIT_QUANTILE)))


def _null_shares(over_FT: list[list[bool | None]], weights_F: Floats) -> list[float]:
    """Per training batch: share of features over the limit that the others set. What "no drift" looks like. [T]"""
    shares = []
    for over_F in zip(*over_FT, strict=True):
        known = [(over, float(weight)) for over, weight in zip(over_F, weights_F, strict=True) if over is not None]
        if known:
            shares.append(sum(weight for over, weight in known if over) / sum(weight for _, weight in known))
    return shares


def _over_others(distances: list[float | None]) -> list[bool | None]:
    """Per batch: whether its distance is over the limit that the others set. [T]"""
    over: list[bool | None] = []
    for batch, own in enumerate(distances):
        limit = _limit([d for t, d in enumerate(distances) if t != batch and d is not None])
        over.append(None if own is None or limit is None else own > limit)
    return over


def _days(column: pa.ChunkedArray) -> Ints:
    days: Ints = column.cast(pa.int32()).to_numpy().astype(np.int64)
    return days


def _batch_codes(column: pa.ChunkedArray) -> Ints:
    text = column.cast(pa.string())
    names = pa.array(sorted(pc.unique(text).to_pylist()), pa.string())
    codes: Ints = pc.index_in(text, value_set=names).to_numpy().astype(np.int64)
    return codes


def _sample(
    table: pa.Table, *, numeric: Sequence[str], categorical: Sequence[str]
) -> tuple[dict[str, list[Any]], Ints]:
    """Evenly spaced rows and their places, so that the same table always gives the same sample."""
    columns = [*numeric, *categorical]
    num_rows = min(len(table), MAX_SAMPLE_ROWS, max(1, MAX_SAMPLE_VALUES // max(1, len(columns))))
    chosen = np.linspace(0, len(table) - 1, num_rows).astype(np.int64)
    rows = table.select(columns).take(pa.array(chosen))
    sample: dict[str, list[Any]] = {name: _rounded(numbers_of(rows.column(name))) for name in numeric}
    return sample | {name: rows.column(name).cast(pa.string()).to_pylist() for name in categorical}, chosen


def _rounded(values_N: Floats) -> list[float | None]:
    """To about a thousandth of their spread, which no picture shows; keeps the JSON small. None for no finite value."""
    held = values_N[np.isfinite(values_N)]
    spread = float(held.std()) if held.size else 0.0
    digits = 2 - int(np.floor(np.log10(spread))) if spread > 0 else 6
    return [round(float(v), digits) if np.isfinite(v) else None for v in values_N]
