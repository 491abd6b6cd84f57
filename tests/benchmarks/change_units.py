"""A column of flights delivered in another unit, week by week through the year: is it held for a person?

    python tests/benchmarks/change_units.py --home /tmp/year

Four champions, of which each is watched until the next one comes; every week but a champion's first is delivered once
with each column changed. Held: within its limit the week before and now `sudden_excess` times beyond it, or known
values the week before and strange ones now. Also how far each column jumped by itself in the year at most, and the most
of its values that were new. The year is landed on the first call.
"""
# ruff: noqa: T201

import argparse
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from clearway.infra.datasets import BATCH
from clearway.infra.environment import Environment
from clearway.launch.backtest.year import Year, read_year
from clearway.measures.distance import Drift, build_reference, compare_column
from clearway.monitor.carried import JUMP_FROM, KNOWN_UNSEEN, STRANGE_UNSEEN
from clearway.product import LoadedProduct
from clearway.product_yaml import find_product

# New unit over old: miles in km, minutes in hours, years in months, inches of rain in mm, hPa in inches of mercury, …
FACTORS = {
    "distance": 1.609344,
    "block_min": 1 / 60,
    "dep_minute": 1 / 60,
    "plane_age": 12.0,
    "pressure": 0.02953,
    "precip": 25.4,
    "visib": 1.609344,
    "wind_speed": 0.44704,
    "origin_delay_24h": 1 / 60,
    "carrier_delay_168h": 1 / 60,
}
# Carriers get each other's codes, one on.
CODES = "carrier"
CHAMPION_AGES = (0, 9, 17, 25)


def changed(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column as it would come."""
    if name != CODES:
        return pc.multiply(column.cast(pa.float64()), FACTORS[name])
    codes = sorted(pc.unique(column).to_pylist())
    following = dict(zip(codes, [*codes[1:], codes[0]], strict=True))
    return pa.chunked_array([pa.array([following[code] for code in column.to_pylist()])])


def is_far(before: Drift, now: Drift, bound: float) -> bool:
    """Within its limit, then far beyond it."""
    return before.excess <= JUMP_FROM and now.excess >= bound


def is_strange(before: Drift, now: Drift) -> bool:
    """Known values, then others."""
    return (1.0 if before.unseen is None else before.unseen) <= KNOWN_UNSEEN and (now.unseen or 0.0) >= STRANGE_UNSEEN


def watch(year: Year, product: LoadedProduct, champion: int, last: int) -> tuple[dict[str, Any], ...]:
    """Per column and week: held for its distance, held at all, how far the delivered column jumped by itself, and the
    share of its values that was new."""
    names, bound = [*FACTORS, CODES], product.spec.monitor.sudden_excess
    is_training = year.training_rows(champion, holdout_days=product.spec.release.holdout_days)
    reference = build_reference(
        year.rows.filter(pa.array(is_training)).select([*names, BATCH]),
        numeric=list(FACTORS),
        categorical=[CODES],
        batch_column=BATCH,
    )
    far, held, jumps, new = (defaultdict[str, list[float]](list) for _ in range(4))
    before: dict[str, Drift] = {}
    for week in range(champion + 1, last + 1):
        rows = year.rows.filter(pa.array(year.week == week))
        for name, entry in reference["features"].items():
            now = compare_column(name, entry, rows[name])
            if name in before:
                other = compare_column(name, entry, changed(name, rows[name]))
                far[name].append(is_far(before[name], other, bound))
                held[name].append(far[name][-1] or is_strange(before[name], other))
                jumps[name].append(now.excess if before[name].excess <= JUMP_FROM else 0.0)
                new[name].append(now.unseen or 0.0)
            before[name] = now
    return far, held, jumps, new


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True)
    env = Environment.load()
    product = find_product(env.products, "flights")
    year = read_year(env, product, parser.parse_args().home.resolve())
    champions = [year.first_week - 1 + age for age in CHAMPION_AGES]
    totals = tuple(defaultdict[str, list[float]](list) for _ in range(4))
    for champion, last in zip(champions, [*champions[1:], year.num_weeks - 1], strict=True):
        for total, part in zip(totals, watch(year, product, champion, last), strict=True):
            for name, values in part.items():
                total[name] += values
    for name in (*FACTORS, CODES):
        far, held, jumps, new = (total[name] for total in totals)
        print(f"| {name} | {sum(far)} | {sum(held)} of {len(held)} | {max(jumps):.1f} | {max(new):.3f} |")


if __name__ == "__main__":
    main()
