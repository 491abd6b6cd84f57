"""A version in the gateway's own memory, warm."""

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clearway.kinds.scorers import open_scorer
from clearway.packaging.encoder import RowError
from clearway.packaging.package import MAX_GOLDEN_ROWS, Package
from clearway.packaging.scorer import Scorer

# Matrix kernels work in blocks of 1 to 12 rows; where they add up in another order, these sizes show it.
COMPANY_SIZES = (1, 2, 3, 5, 7, 11, 13, 17)
# Eighty calls take 25 ms; a model that needs a hundred times that is loaded without knowing, and gets no company.
MAX_CHECK_S = 2.5


@dataclass(frozen=True, slots=True)
class Loaded:
    """A version in memory, warm. `is_row_wise`: a row's score is the same to the bit whatever rows are beside it.
    `is_quick`: as of its scorer."""

    digest: str
    uri: str
    package: Package
    scorer: Scorer
    is_row_wise: bool
    is_quick: bool = True

    def score(self, rows: Sequence[dict[str, Any]]) -> list[float]:
        """One score per row. Raises: RowError for a row, DataError if the model has no finite answer."""
        return self.scorer.score_rows(rows).tolist()  # type: ignore[no-any-return]


def score_together(scorer: Scorer, group: Sequence[Sequence[dict[str, Any]]]) -> list[list[float] | Exception]:
    """Scores of several requests' rows by one call. A request whose rows are refused is left out of it, and if the call
    fails they are scored one by one: an error reaches the request that caused it and no other. Per request its scores,
    or what was raised."""
    try:
        scores = scorer.score(*scorer.encoder.encode_rows([row for rows in group for row in rows])).tolist()
    except RowError as error:
        if len(group) == 1:
            return [error]
        return _score_acceptable(scorer, group)
    except Exception as error:  # noqa: BLE001 - handed to whoever asked
        if len(group) == 1:
            return [error]
        return [found for rows in group for found in score_together(scorer, [rows])]
    found, start = list[list[float] | Exception](), 0
    for rows in group:
        end = start + len(rows)
        found.append(scores[start:end])
        start = end
    return found


def _score_acceptable(scorer: Scorer, group: Sequence[Sequence[dict[str, Any]]]) -> list[list[float] | Exception]:
    refused = dict[int, RowError]()
    for i, rows in enumerate(group):
        try:
            scorer.encoder.encode_rows(rows)
        except RowError as error:
            refused[i] = error
    rest = [rows for i, rows in enumerate(group) if i not in refused]
    scored = iter(score_together(scorer, rest) if rest else ())
    return [refused[i] if i in refused else next(scored) for i in range(len(group))]


def warm(uri: str, package: Package) -> Loaded:
    """Make the session and use it for one row and for many, so that no caller pays for first-use allocations."""
    scorer, rows = open_scorer(package, num_threads=1), package.golden["rows"]
    if scorer.is_quick:
        return Loaded(package.digest, uri, package, scorer, is_row_wise=_is_row_wise(scorer, rows))
    scorer.score_rows(rows[:1])
    return Loaded(package.digest, uri, package, scorer, is_row_wise=False, is_quick=False)


def _is_row_wise(scorer: Scorer, rows: list[dict[str, Any]]) -> bool:
    """Score golden rows in companies of many sizes; one row cannot show whether others matter."""
    if len(rows) == 1:
        scorer.score_rows(rows)
        return False
    rows = list(itertools.islice(itertools.cycle(rows), MAX_GOLDEN_ROWS))
    began = time.perf_counter()
    together = scorer.score_rows(rows)
    for size in COMPANY_SIZES:
        parts = []
        for i in range(0, len(rows), size):
            if time.perf_counter() - began > MAX_CHECK_S:
                return False
            parts.append(scorer.score_rows(rows[i : i + size]))
        if not np.array_equal(np.concatenate(parts), together):
            return False
    return True
