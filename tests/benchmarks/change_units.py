"""A column of flights delivered in another unit, week by week through the year: is it held for a person?

    python tests/benchmarks/change_units.py --home /tmp/year            every week of the year, four champions
    python tests/benchmarks/change_units.py --home /tmp/year --places 50  the places of planted_faults.py
    python tests/benchmarks/change_units.py --home /tmp/year --calm     nothing changed, every champion of the year

Four champions, of which each is watched until the next one comes; every week but a champion's first is delivered once
with each column changed. Held: within its limit the week before and now `sudden_excess` times beyond it, or known
values when last seen and strange ones now, or of its size when last seen and now of another. Also how far each column
jumped by itself in the year at most, the most of its values that were new, and the largest factor by which its size was
beyond those of training. A place is one week in which the fault begins, beside a champion four to six weeks old.
`--calm`: every column of numbers that counts as it was, beside every champion, in every later week. The year is landed
on the first call.
"""
# ruff: noqa: T201

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from planted_faults import places

from clearway.infra.datasets import BATCH
from clearway.infra.environment import Environment
from clearway.launch.backtest.year import Year, read_year
from clearway.measures.distance import Drift, build_reference, compare_column
from clearway.monitor.carried import JUMP_FROM, KNOWN_UNSEEN, OTHER_SIZE, SAME_SIZE, STRANGE_UNSEEN
from clearway.product import LoadedProduct
from clearway.product_yaml import find_product

# New unit over old: miles in km, minutes in hours, years in months, inches of rain in mm, hPa in inches of mercury,
# percent as a share, …
FACTORS = {
    "distance": 1.609344,
    "block_min": 1 / 60,
    "dep_minute": 1 / 60,
    "plane_age": 12.0,
    "pressure": 0.02953,
    "precip": 25.4,
    "precip_6h": 25.4,
    "visib": 1.609344,
    "wind_speed": 0.44704,
    "humid": 1 / 100,
    "origin_delay_24h": 1 / 60,
    "pair_delay_6h": 1 / 60,
    "tail_delay_24h": 1 / 60,
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


def is_strange(before: float | None, now: Drift) -> bool:
    """Known values, then others. `before`: when last seen."""
    return before is not None and before <= KNOWN_UNSEEN and (now.unseen or 0.0) >= STRANGE_UNSEEN


def is_resized(before: float | None, now: Drift) -> bool:
    """Of its size, then of another. `before`: when last seen."""
    return before is not None and before <= SAME_SIZE and (now.size_factor or 0.0) >= OTHER_SIZE


class Seen(NamedTuple):
    """One column in one week: held for its distance, for its values, for its size, if it had changed; how far the
    column jumped by itself, the share of its values that was new, the factor of its size, and whether that alone would
    have held it."""

    name: str
    week: int
    far: bool
    strange: bool
    resized: bool
    jump: float
    new: float
    factor: float
    held_as_it_was: bool


def watch(
    year: Year, product: LoadedProduct, names: Sequence[str], *, champion: int, weeks: range, is_changed: bool = True
) -> Iterator[Seen]:
    """Every column in every week but the first."""
    bound = product.spec.monitor.sudden_excess
    is_training = year.training_rows(champion, holdout_days=product.spec.release.holdout_days)
    reference = build_reference(
        year.rows.filter(pa.array(is_training)).select([*names, BATCH]),
        numeric=[name for name in names if name != CODES],
        categorical=[name for name in names if name == CODES],
        batch_column=BATCH,
    )
    before: dict[str, Drift] = {}
    sizes: dict[str, float] = {}
    shares: dict[str, float] = {}
    for week in weeks:
        rows = year.rows.filter(pa.array(year.week == week))
        for name, entry in reference["features"].items():
            now = compare_column(name, entry, rows[name])
            if name in before:
                last, size, share = before[name], sizes.get(name), shares.get(name)
                other = compare_column(name, entry, changed(name, rows[name])) if is_changed else now
                yield Seen(
                    name=name,
                    week=week,
                    far=is_far(last, other, bound),
                    strange=is_strange(share, other),
                    resized=is_resized(size, other),
                    jump=now.excess if last.excess <= JUMP_FROM else 0.0,
                    new=now.unseen or 0.0,
                    factor=now.size_factor or 1.0,
                    held_as_it_was=is_far(last, now, bound) or is_strange(share, now) or is_resized(size, now),
                )
            before[name] = now
            sizes |= {name: now.size_factor} if now.size_factor is not None else {}
            shares |= {name: now.unseen} if now.unseen is not None else {}


def every_week(year: Year, product: LoadedProduct) -> Iterator[Seen]:
    champions = [year.first_week - 1 + age for age in CHAMPION_AGES]
    for champion, last in zip(champions, [*champions[1:], year.num_weeks - 1], strict=True):
        yield from watch(year, product, [*FACTORS, CODES], champion=champion, weeks=range(champion + 1, last + 1))


def at_places(year: Year, product: LoadedProduct, num_places: int) -> Iterator[Seen]:
    """Where a fault of planted_faults.py begins."""
    for place in places("unit_change", year, num_places):
        weeks = range(place.champion + 1, place.begin + 1)
        found = watch(year, product, [*FACTORS, CODES], champion=place.champion, weeks=weeks)
        yield from (seen for seen in found if seen.week == place.begin)


def calm(year: Year, product: LoadedProduct) -> Iterator[Seen]:
    names = [name for name in product.spec.features.numeric if name not in product.spec.monitor.ignore]
    for champion in year.model_weeks:
        weeks = range(champion + 1, year.num_weeks)
        yield from watch(year, product, names, champion=champion, weeks=weeks, is_changed=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--places", type=int, default=0)
    parser.add_argument("--calm", action="store_true")
    args, env = parser.parse_args(), Environment.load()
    product = find_product(env.products, "flights")
    year = read_year(env, product, args.home.resolve())
    if args.calm:
        found = list(calm(year, product))
        held = sum(seen.held_as_it_was for seen in found)
        largest, newest = (max(found, key=lambda seen: getattr(seen, what)) for what in ("factor", "new"))
        print(f"{len(found)} columns and weeks, {held} held; largest factor {largest.factor:.2f} ({largest.name},")
        print(f"{year.batch_ids[largest.week]}), 99.9 % below {np.quantile([s.factor for s in found], 0.999):.2f};")
        print(f"most new values {newest.new:.2f} ({newest.name}, {year.batch_ids[newest.week]})")
        return
    found = list(at_places(year, product, args.places) if args.places else every_week(year, product))
    for name in (*FACTORS, CODES):
        own = [seen for seen in found if seen.name == name]
        before = sum(seen.far or seen.strange for seen in own)
        now = sum(seen.far or seen.strange or seen.resized for seen in own)
        most = (max(getattr(seen, what) for seen in own) for what in ("jump", "new", "factor"))
        counts = f"{sum(seen.far for seen in own)} | {before} | {now} of {len(own)}"
        print(f"| {name} | {counts} | {' | '.join(f'{value:.2f}' for value in most)} |")


if __name__ == "__main__":
    main()
