"""What the server is asked, feature by feature: rows per bin of the histograms that a model's package carries.

With the package's own counts beside them, /metrics alone says how far callers have moved from the training period.
The values of answered rows wait, packed, until BATCH_ROWS have come or until somebody reads, and are counted together,
since the calls that count one row cost as much as those that count hundreds. Rows themselves are let go at once: kept,
they cost more than all the counting, because each new request would find the caches cold, and a row may hold a text of
a megabyte. Lives on the event loop, and loses nothing there.

Shapes: N rows, F numeric features, B inner edges, C categorical features.
"""

# ruff: noqa: N803, N806 - shape letters in names

import math
from array import array
from collections.abc import Callable, Container, Sequence
from operator import getitem, itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from clearway.packaging.encoder import Encoder
from clearway.packaging.package import Package
from clearway.serve.frames import Row

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BATCH_ROWS = 256  # more at once save nothing; so many of 89 columns hold 0.2 MB
# What one traffic table may name; of more versions those asked longest ago are forgotten.
MAX_VERSIONS = 16
_ROWS = "clearway_serve_feature_rows_total"
_MISSING = "clearway_serve_feature_missing_rows_total"
_UNKNOWN = "clearway_serve_feature_unknown_rows_total"
_REFERENCE = "clearway_serve_feature_reference_rows"
# Slots of a categorical feature: no value; one that neither model nor histogram names; one that only the model names;
# and from here on the histogram's own.
_NONE, _NEW, _OTHER, _FIRST_BIN = range(4)
_HEADERS = (
    (_ROWS, "counter", "Answered rows per bin of the training period's histogram."),
    (_MISSING, "counter", "Answered rows without a value."),
    (_UNKNOWN, "counter", "Answered rows with a category that the model does not know."),
    (_REFERENCE, "gauge", "Rows of the training period per bin."),
)


class FeatureCounts:
    """Counts of every version that answered."""

    def __init__(self) -> None:
        self._tallies: dict[str, _Tally] = {}

    def offer(self, package: Package, rows: Sequence[Row]) -> None:
        """Rows that this version has answered; called after the answer went out."""
        tally = self._tallies.get(package.digest)
        if tally is None:
            tally = self._tallies[package.digest] = _Tally(package)
            if len(self._tallies) > MAX_VERSIONS:
                del self._tallies[next(iter(self._tallies))]
        tally.take(rows)
        if tally.num_waiting >= BATCH_ROWS:
            tally.count()
            self._tallies[package.digest] = self._tallies.pop(package.digest)  # behind all others

    def render(self, loaded: Container[str]) -> bytes:
        """Prometheus text of the loaded versions that have answered, every row offered so far included."""
        tallies = [tally for digest, tally in self._tallies.items() if digest in loaded]
        for tally in tallies:
            tally.count()
        lines = list[str]()
        for name, kind, text in _HEADERS:
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
            for tally in tallies:
                lines += tally.lines(name)
        return ("\n".join(lines) + "\n").encode()


class _Tally:
    """One version's rows. Features that its reference does not describe are not counted."""

    def __init__(self, package: Package) -> None:
        described = package.reference.get("features", {})
        encoder, digest = package.encoder, package.digest
        numeric = [name for name in encoder.numeric if name in described]
        vocabulary = encoder.vocabulary if isinstance(encoder, Encoder) else {}  # a model of texts knows no categories
        categorical = [name for name in vocabulary if name in described]
        self._numbers = _Numbers([described[name]["edges"] for name in numeric])
        self._categories = _Categories(
            known=[vocabulary[name] for name in categorical],
            binned=[described[name]["values"] for name in categorical],
        )
        self._numbers_of, self._texts_of = _take(numeric), _take(categorical)
        self.num_waiting, self._values, self._codes = 0, array("d"), array("q")
        names = [*numeric, *categorical]
        labels = {name: f'model_digest="{digest}",feature="{_escaped(name)}"' for name in names}
        bins = [f'{labels[name]},bin="{i}"' for name in names for i in range(len(described[name]["counts"]))]
        counts = [count for name in names for count in described[name]["counts"]]
        self._begins = {
            _ROWS: [f"{_ROWS}{{{label}}} " for label in bins],
            _MISSING: [f"{_MISSING}{{{labels[name]}}} " for name in names],
            _UNKNOWN: [f"{_UNKNOWN}{{{labels[name]}}} " for name in categorical],
        }
        self._reference = [f"{_REFERENCE}{{{label}}} {count}" for label, count in zip(bins, counts, strict=True)]

    def take(self, rows: Sequence[Row]) -> None:
        """The rows' values wait."""
        self.num_waiting += len(rows)
        for row in rows:
            self._values.fromlist([math.nan if value is None else value for value in self._numbers_of(row)])
            self._codes.fromlist(self._categories.codes(self._texts_of(row)))

    def count(self) -> None:
        """Count what waits."""
        if not self.num_waiting:
            return
        num_rows, values, codes = self.num_waiting, self._values, self._codes
        self.num_waiting, self._values, self._codes = 0, array("d"), array("q")
        self._numbers.add(np.asarray(values).reshape(num_rows, -1))
        self._categories.add(np.asarray(codes).reshape(num_rows, -1))

    def lines(self, metric: str) -> list[str]:
        if metric == _REFERENCE:
            return self._reference
        numbers, categories = self._numbers, self._categories
        counts = {
            _ROWS: [*numbers.counts(), *categories.counts()],
            _MISSING: [*numbers.missing(), *categories.missing()],
            _UNKNOWN: categories.unknown(),
        }[metric]
        return [f"{begin}{count}" for begin, count in zip(self._begins[metric], counts, strict=True)]


class _Numbers:
    """Numeric features, all at once. Bins are open below and closed above, as `measures.distance` has them."""

    def __init__(self, edges: Sequence[Sequence[float]]) -> None:
        self._num_bins = [len(inner) + 1 for inner in edges]
        self._edges_BF = np.full((max(self._num_bins, default=1) - 1, len(edges)), np.inf)
        for i, inner in enumerate(edges):
            self._edges_BF[: len(inner), i] = inner
        # One slot per bin and a last one for missing values; those of feature i begin at i times their number.
        self._slots = np.zeros((len(edges), len(self._edges_BF) + 2), np.int64)
        self._first_F = np.arange(len(edges)) * self._slots.shape[1]

    def add(self, values_NF: Floats) -> None:
        """NaN is a missing value, and above no edge."""
        slot_NF = np.where(np.isnan(values_NF), self._slots.shape[1] - 1, 0) + self._first_F
        for edges_F in self._edges_BF:
            slot_NF += values_NF > edges_F
        self._slots += np.bincount(slot_NF.ravel(), minlength=self._slots.size).reshape(self._slots.shape)

    def counts(self) -> list[int]:
        """Rows per feature and bin, in order."""
        return [n for slots, num in zip(self._slots.tolist(), self._num_bins, strict=True) for n in slots[:num]]

    def missing(self) -> list[int]:
        """Rows without a value, per feature."""
        return self._slots[:, -1].tolist()  # type: ignore[no-any-return]


class _Codes(dict[str | None, int]):
    """Slots of one feature's texts."""

    def __missing__(self, text: str | None) -> int:
        return _NEW


class _Categories:
    """Categorical features, all at once. The last bin takes every value without one of its own."""

    def __init__(self, *, known: Sequence[Sequence[str]], binned: Sequence[Sequence[str]]) -> None:
        self._num_binned = [len(values) for values in binned]
        places: list[dict[str | None, int]] = [{v: i for i, v in enumerate(values, _FIRST_BIN)} for values in binned]
        others: list[dict[str | None, int]] = [dict.fromkeys(values, _OTHER) for values in known]
        self._codes = [_Codes({None: _NONE} | other | place) for other, place in zip(others, places, strict=True)]
        self._new = [
            [_NEW, *(code for value, code in place.items() if value not in other)]
            for other, place in zip(others, places, strict=True)
        ]
        self._slots = np.zeros((len(binned), _FIRST_BIN + max(self._num_binned, default=0)), np.int64)
        self._first_C = np.arange(len(binned)) * self._slots.shape[1]

    def codes(self, texts: Sequence[str | None]) -> list[int]:
        """One row's slots."""
        return list(map(getitem, self._codes, texts))

    def add(self, code_NC: Ints) -> None:
        """Slots of rows."""
        cells = (code_NC + self._first_C).ravel()
        self._slots += np.bincount(cells, minlength=self._slots.size).reshape(self._slots.shape)

    def counts(self) -> list[int]:
        """Rows per feature and bin, in order."""
        pairs = zip(self._slots.tolist(), self._num_binned, strict=True)
        return [n for slots, num in pairs for n in (*slots[_FIRST_BIN:][:num], slots[_OTHER] + slots[_NEW])]

    def missing(self) -> list[int]:
        """Rows without a value, per feature."""
        return self._slots[:, _NONE].tolist()  # type: ignore[no-any-return]

    def unknown(self) -> list[int]:
        """Rows with a value that the model does not know, per feature."""
        pairs = zip(self._slots, self._new, strict=True)
        return [int(slots[new].sum()) for slots, new in pairs]


def _take(names: Sequence[str]) -> Callable[[Row], tuple[Any, ...]]:
    """A row's values of these columns; `itemgetter` alone gives a tuple for two names or more only."""
    return itemgetter(*names) if len(names) > 1 else lambda row: tuple(row[name] for name in names)


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
