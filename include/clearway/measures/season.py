"""The same season of earlier years: where training spans a year, a batch is held against the batches of its own season.

What comes back every year is no drift, and what a season has never been is, however usual it is in another one.
"""

# ruff: noqa: N803, N806 - shape letters in names

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

# Meteorological: three whole months each. Shorter ones would hold too few weeks to set limits, longer ones two seasons.
SEASONS = ("winter", "spring", "summer", "autumn")
MONTHS_EACH = 3
# First and last training day lie at least this far apart, so that every season has been there once before.
MIN_SPAN_DAYS = 365
# As many as a p-value over batches needs; see `batch_null`.
MIN_BATCHES = 4


def season_of(day: int) -> str:
    """Of a day since 1970: December to February is winter, wherever the product lives; only the grouping counts."""
    month = int(np.datetime64(day, "D").astype("datetime64[M]").astype(np.int64)) % 12 + 1
    return SEASONS[month % 12 // MONTHS_EACH]


def season_batches(day_N: Ints, batch_N: Ints) -> dict[str, Ints]:
    """Training batches by the season of their first day; {} for less than a year, no entry for a season of too few.

    Args: day_N: days since 1970; batch_N: batch of each row, from 0 on.
    """
    if day_N.max() - day_N.min() < MIN_SPAN_DAYS:
        return {}
    first_T = np.full(int(batch_N.max()) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first_T, batch_N, day_N)
    season_T = np.asarray([season_of(int(day)) for day in first_T])
    found = {season: np.flatnonzero(season_T == season) for season in SEASONS}
    return {season: batches for season, batches in found.items() if len(batches) >= MIN_BATCHES}


def in_season(reference: Mapping[str, Any], day: int) -> dict[str, Any]:
    """The reference for a batch that begins with `day`: of its season where there is one, else of all of training.

    Args: reference: of `clearway.measures.distance.build_reference`; one without seasons comes back as it is.
    """
    null_shares = (reference.get("seasons") or {}).get(season_of(day))
    if null_shares is None:
        return dict(reference)
    season = season_of(day)
    features = {name: entry | entry["seasons"][season] for name, entry in reference["features"].items()}
    by_effect = (reference.get("seasons_by_effect") or {}).get(season)
    return dict(reference) | {
        "features": features,
        "null_shares": null_shares,
        "null_shares_by_effect": by_effect,
    }
