"""Which of many findings stand: over the features of one window, and over a stream of windows.

M findings looked at together; p-values, or e-values where windows depend on each other. Every function keeps the order
of its input. Values worked by hand: docs/reference/drift.md#false-discoveries.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# LORD++: share of alpha spent before the first discovery (the paper's choice, a half).
FIRST_SHARE = 0.5
# How fast alpha is spent over the stream: j^-1.6. A product with weekly windows should be able to speak in its first
# year: 92 % of the start is spent on the first 39 windows, and never more than all of it.
DECAY = 1.6
# zeta(1.6), the sum of j^-1.6 over all j; written out because a stage's verb must not load SciPy.
TOTAL = 2.285765666


def benjamini_hochberg(p_values: Sequence[float]) -> Floats:
    """Adjusted p-values [M]: those at most alpha are false discoveries in a share of at most alpha on average.

    Holds for independent findings and for positive dependence. Source: Benjamini and Hochberg 1995; Benjamini and
    Yekutieli 2001, theorem 1.2.
    """
    p = _checked(p_values)
    order = np.argsort(p, kind="stable")[::-1]
    ranks = np.arange(p.size, 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.minimum.accumulate(p[order] * p.size / ranks))
    return adjusted


def benjamini_yekutieli(p_values: Sequence[float]) -> Floats:
    """The same for findings that depend on each other in any way. [M] Source: Benjamini and Yekutieli 2001."""
    p = _checked(p_values)
    harmonic = float(np.sum(1.0 / np.arange(1, p.size + 1)))
    adjusted: Floats = np.minimum(1.0, benjamini_hochberg(p.tolist()) * harmonic)
    return adjusted


def any_change(p_values: Sequence[float]) -> float:
    """One p-value for "none of them changed". Source: Simes 1986: the least Benjamini-Hochberg value."""
    return float(benjamini_hochberg(p_values).min())


def e_benjamini_hochberg(e_values: Sequence[float], *, alpha: float) -> npt.NDArray[np.bool_]:
    """Which findings stand at false discovery rate alpha, for e-values with any dependence. [M]

    Source: Wang and Ramdas 2022: the k largest with e >= M / (alpha k).
    """
    e = np.asarray(e_values, dtype=np.float64)
    if not e.size or not (e >= 0).all():
        raise ValueError(f"e-values {e.tolist()} cannot be judged; at least one, none negative, none NaN")
    largest = np.sort(e)[::-1]
    stands = np.flatnonzero(largest * np.arange(1, e.size + 1) >= e.size / alpha)
    found: npt.NDArray[np.bool_] = e >= largest[stands[-1]] if stands.size else np.zeros(e.size, dtype=np.bool_)
    return found


def e_from_p(p_value: float) -> float:
    """An e-value from a p-value, valid without further knowledge. Source: Vovk and Wang 2021, p^(-1/2) / 2."""
    return 0.5 / math.sqrt(max(p_value, 1e-300))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """A stream of tests so far: how many there were, and which (from 1) were discoveries."""

    num_tests: int = 0
    discoveries: tuple[int, ...] = field(default=())

    def after(self, p_value: float, *, alpha: float) -> "Stream":
        """The stream with one more test."""
        number = self.num_tests + 1
        is_found = p_value <= next_level(self, alpha=alpha)
        return Stream(num_tests=number, discoveries=(*self.discoveries, number) if is_found else self.discoveries)

    @property
    def is_discovery(self) -> bool:
        """Whether the newest test was one."""
        return bool(self.discoveries) and self.discoveries[-1] == self.num_tests


def next_level(stream: Stream, *, alpha: float) -> float:
    """The level that the next p-value of a stream must not exceed.

    Keeps the false discovery rate at alpha at every moment of an endless stream of independent tests.
    Source: LORD++, Ramdas, Yang, Wainwright and Jordan 2017: alpha_t = gamma_t w + (alpha - w) gamma_(t - tau_1) +
        alpha sum over later discoveries of gamma_(t - tau_j), with w = alpha / 2 and gamma_j = j^-1.6 / zeta(1.6)
        as in Tian and Ramdas 2019.
    """
    number = stream.num_tests + 1
    start = FIRST_SHARE * alpha
    level = start * _spending(number)
    if stream.discoveries:
        level += (alpha - start) * _spending(number - stream.discoveries[0])
        level += alpha * sum(_spending(number - found) for found in stream.discoveries[1:])
    return level


def _spending(number: int) -> float:
    """Terms that sum to 1 over all numbers from 1."""
    return float(number**-DECAY / TOTAL)


def _checked(p_values: Sequence[float]) -> Floats:
    p = np.asarray(p_values, dtype=np.float64)
    if not p.size or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p-values {p.tolist()} cannot be adjusted; at least one, each 0 to 1, none NaN")
    return p
