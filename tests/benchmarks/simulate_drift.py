"""False alarms on windows in which nothing changed: our control beside the defaults of Evidently and NannyML.

    python tests/benchmarks/simulate_drift.py --features 50 --world rows [--windows 10000]

Two worlds. `rows`: every row is independent. `weeks`: each week moves every feature a little (a sixth of a standard
deviation, half of it shared through five causes), as weather does; no week differs from training more than training
weeks differ from each other. Training is ten weeks; a year of 39 windows shares one training period. Half of the
features are normal, half log-normal, 300 rows a week.

All see the same rows. Ours: p-values over batches, Benjamini-Hochberg or -Yekutieli over the features of a window,
LORD++ over the windows of a year, all at 0.1. Evidently 0.7: Kolmogorov-Smirnov at 5 % per column, or from 1,000
reference rows on the normed Wasserstein distance at 0.1; the data set drifts with half of its columns. NannyML 0.13:
Jensen-Shannon on Doane's bins above the mean plus three standard deviations of the training weeks. Theirs are computed
by their published formulas on the arrays; ours on arrays too, and compared with the package's own code once per run.
Prints one line of JSON.
"""
# ruff: noqa: T201

import argparse
import json
from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.special import stdtr
from scipy.stats import ks_2samp

from clearway.measures import batch_null as null
from clearway.measures.bins import NUM_BINS
from clearway.measures.distance import LIMIT_FLOOR, LIMIT_QUANTILE, build_reference, compare
from clearway.measures.false_discovery import Stream, benjamini_hochberg, benjamini_yekutieli

Floats = npt.NDArray[np.float64]

NUM_ROWS, NUM_WEEKS, YEAR = 300, 10, 39
WEEK_SPREAD, NUM_CAUSES = 1 / 6, 5
ALPHA = 0.1
KS_LEVEL, WASSERSTEIN_LIMIT, DATASET_SHARE, JS_SPREADS = 0.05, 0.1, 0.5, 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """`loads`: how much each cause moves each feature. [C, F]; None where rows are independent."""

    num_features: int
    loads: Floats | None

    def week(self, rng: np.random.Generator) -> Floats:
        """One week of rows. [F, N]"""
        rows = rng.normal(size=(self.num_features, NUM_ROWS))
        if self.loads is not None:
            shared, own = rng.normal(size=NUM_CAUSES), rng.normal(size=self.num_features)
            rows += WEEK_SPREAD * np.sqrt(0.5) * (shared @ self.loads + own)[:, None]
        rows[::2] = np.exp(rows[::2])
        return rows


def world_of(name: str, num_features: int, rng: np.random.Generator) -> World:
    if name == "rows":
        return World(num_features=num_features, loads=None)
    loads = rng.normal(size=(NUM_CAUSES, num_features))
    return World(num_features=num_features, loads=loads / np.sqrt((loads**2).sum(axis=0)))


def histograms(rows: Floats, edges: Floats) -> tuple[Floats, Floats]:
    """Rows per bin and sums of their values, [F, B] each; `edges` [F, B - 1]."""
    num_features, num_bins = len(edges), edges.shape[1] + 1
    bins = (rows[:, None, :] > edges[:, :, None]).sum(axis=1)
    cell = (bins + num_bins * np.arange(num_features)[:, None]).ravel()
    size = num_features * num_bins
    counts = np.bincount(cell, minlength=size).astype(np.float64)
    return counts.reshape(-1, num_bins), np.bincount(cell, rows.ravel(), size).reshape(-1, num_bins)


def distances(before: tuple[Floats, Floats], now: tuple[Floats, Floats], spread: Floats) -> Floats:
    """Wasserstein over the training standard deviation, per feature. [F]"""
    at = np.concatenate([np.divide(s, c, out=np.zeros_like(s), where=c > 0) for c, s in (before, now)], axis=1)
    steps = np.concatenate(
        [before[0] / before[0].sum(1, keepdims=True), -now[0] / now[0].sum(1, keepdims=True)], axis=1
    )
    order = np.argsort(at, axis=1, kind="stable")
    at, steps = np.take_along_axis(at, order, 1), np.take_along_axis(steps, order, 1)
    return np.asarray(np.sum(np.abs(np.cumsum(steps, 1)[:, :-1]) * np.diff(at, axis=1), axis=1) / spread)


class Trained:
    """Ten weeks, as all three see them."""

    def __init__(self, world: World, rng: np.random.Generator) -> None:
        self.weeks = [world.week(rng) for _ in range(NUM_WEEKS)]
        self.rows = np.concatenate(self.weeks, axis=1)
        self.spread = self.rows.std(axis=1)
        self.edges = np.quantile(self.rows, np.arange(1, NUM_BINS) / NUM_BINS, axis=1).T
        parts = [histograms(week, self.edges) for week in self.weeks]
        self.total = sum(c for c, _ in parts), sum(s for _, s in parts)
        left_out = [distances((self.total[0] - c, self.total[1] - s), (c, s), self.spread) for c, s in parts]
        logs = np.log(np.maximum(left_out, null.LEAST_DISTANCE))
        self.mean, self.log_spread = logs.mean(0), np.maximum(logs.std(0, ddof=1), null.LEAST_SPREAD)
        self.limit = np.maximum(LIMIT_FLOOR, np.quantile(left_out, LIMIT_QUANTILE, axis=0))
        self.sorted = np.sort(self.rows, axis=1)
        self.doane = [np.histogram_bin_edges(row, bins="doane") for row in self.rows]
        self.doane_shares = [np.histogram(r, e)[0] / len(r) for r, e in zip(self.rows, self.doane, strict=True)]
        reached = np.asarray([jensen_shannons(self, week) for week in self.weeks])
        self.js_limit = reached.mean(0) + JS_SPREADS * reached.std(0)

    def ours(self, rows: Floats) -> tuple[Floats, Floats]:
        """Distances and p-values. [F]"""
        found = distances(self.total, histograms(rows, self.edges), self.spread)
        deviation = np.log(np.maximum(found, null.LEAST_DISTANCE)) - self.mean
        quantile = deviation / (self.log_spread * np.sqrt(1 + 1 / NUM_WEEKS))
        return found, np.asarray(stdtr(NUM_WEEKS - 1, -quantile))


def ks_limit() -> float:
    """Smallest D that SciPy's exact test calls significant for these sizes (its p depends on D alone)."""
    before = np.arange(NUM_WEEKS * NUM_ROWS, dtype=np.float64)
    for moved in range(1, NUM_ROWS):
        now = np.linspace(0, len(before) - 1, NUM_ROWS)
        now[:moved] = len(before)
        found = ks_2samp(before, now)
        if found.pvalue < KS_LEVEL:
            return float(found.statistic)
    raise AssertionError("no distance is significant; the sizes are wrong")


def ks_distances(trained: Trained, rows: Floats) -> Floats:
    """Exact D per feature. [F]"""
    found = []
    for before, now in zip(trained.sorted, np.sort(rows, axis=1), strict=True):
        below = np.searchsorted(before, now) / len(before)
        steps = np.arange(len(now) + 1) / len(now)
        found.append(max(np.max(below - steps[:-1]), np.max(steps[1:] - below)))
    return np.asarray(found)


def jensen_shannons(trained: Trained, rows: Floats) -> Floats:
    """As NannyML makes it: Doane's bins of the reference, what lies outside as one more bin. [F]"""
    found = []
    for edges, before, now in zip(trained.doane, trained.doane_shares, rows, strict=True):
        inside = before, np.histogram(now, edges)[0] / len(now)
        p, q = (np.append(side, max(0.0, 1 - side.sum())) for side in inside)
        middle = (p + q) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            parts = [np.where(s > 0, s * np.log2(s / middle), 0.0).sum() for s in (p, q)]
        found.append(np.sqrt(max(0.0, sum(parts) / 2)))
    return np.asarray(found)


def exact_wassersteins(trained: Trained, rows: Floats) -> Floats:
    """Of all rows, over the reference's standard deviation. [F] Both sides resampled to a common grid of quantiles,
    which is exact since one size divides the other."""
    now = np.repeat(np.sort(rows, axis=1), NUM_WEEKS, axis=1)
    return np.asarray(np.abs(now - trained.sorted).mean(axis=1) / trained.spread)


def check(trained: Trained, rows: Floats) -> float:
    """Largest difference of distance and p-value between this file and the package's own code."""
    names = [f"x{i}" for i in range(len(rows))]
    week = np.repeat([f"w{i:02d}" for i in range(NUM_WEEKS)], NUM_ROWS)
    table = pa.table(dict(zip(names, trained.rows, strict=True)) | {"batch_id": week})
    reference = build_reference(table, numeric=names, categorical=[], batch_column="batch_id")
    found = {d.name: d for d in compare(reference, pa.table(dict(zip(names, rows, strict=True))))}
    mine = trained.ours(rows)
    theirs = ([found[n].distance for n in names], [found[n].p_value for n in names])
    return max(float(np.abs(np.asarray(a, dtype=float) - b).max()) for a, b in zip(theirs, mine, strict=True))


def simulate(world: World, num_windows: int, rng: np.random.Generator) -> dict[str, float]:
    """Shares of windows (and of years) with a false alarm."""
    count: Counter[str] = Counter()
    ks = ks_limit()
    num_years = -(-num_windows // YEAR)
    for year in range(num_years):
        trained, stream = Trained(world, rng), Stream()
        if year == 0:
            count["largest difference to the package's code"] = check(trained, world.week(rng))  # type: ignore[assignment]
        for _ in range(YEAR):
            rows = world.week(rng)
            distance, p = trained.ours(rows)
            adjusted = benjamini_hochberg(p.tolist())
            stream = stream.after(float(adjusted.min()), alpha=ALPHA)
            flags = {
                "ours, BH: any feature": adjusted.min() <= ALPHA,
                "ours, BY: any feature": benjamini_yekutieli(p.tolist()).min() <= ALPHA,
                "ours, LORD++: window": stream.is_discovery,
                "ours, share over limit > 0.5": (distance > trained.limit).mean() > DATASET_SHARE,
            }
            theirs = {
                "Evidently, KS": ks_distances(trained, rows) >= ks,
                "Evidently, Wasserstein": exact_wassersteins(trained, rows) >= WASSERSTEIN_LIMIT,
                "NannyML, JS": jensen_shannons(trained, rows) > trained.js_limit,
            }
            for name, flagged in theirs.items():
                flags |= {f"{name}: any feature": flagged.any(), f"{name}: half": flagged.mean() >= DATASET_SHARE}
                count[f"{name}: features"] += flagged.mean()
            count.update({name: int(held) for name, held in flags.items()})
        count["years with a LORD++ discovery"] += bool(stream.discoveries)
    difference = count.pop("largest difference to the package's code")
    years = count.pop("years with a LORD++ discovery") / num_years
    shares = {name: round(total / (num_years * YEAR), 4) for name, total in sorted(count.items())}
    return shares | {"ours, LORD++: year": round(years, 4), "difference to the package's code": difference}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, default=50)
    parser.add_argument("--world", choices=("rows", "weeks"), default="rows")
    parser.add_argument("--windows", type=int, default=10_000)
    args = parser.parse_args()
    rng = np.random.default_rng([args.features, args.world == "weeks"])
    world = world_of(args.world, args.features, rng)
    facts = {"features": args.features, "world": args.world, "windows": -(-args.windows // YEAR) * YEAR}
    print(json.dumps(facts | simulate(world, args.windows, rng)))


if __name__ == "__main__":
    main()
