"""Performance before labels: an estimate with an interval learned from how wrong earlier estimates were, or "unknown".

Every batch whose labels come in shows by how much its estimate was wrong. Those errors, not the scatter of rows, are
what an interval has to hold: they contain the weeks in which inputs meant something else.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from clearway.measures.expected import Calibration, Quality, expected_quality, found_quality

Floats = npt.NDArray[np.float64]

# Errors kept: a year of weeks, so each season. Asked for: five still leave the interval 3 standard deviations each way.
MAX_ERRORS, MIN_ERRORS = 52, 5
CONFIDENCE = 0.975  # of each bound alone: 95 % for both
# Labels a bin of score needs before it is known ground, and the share of rows that may stand elsewhere.
MIN_BIN_ROWS, MAX_UNCOVERED = 20, 0.05
FIGURES = ("log_loss", "brier", "auc", "mean_label")


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimated:
    """One figure: `value` is corrected by the mean error so far, the bounds hold a next batch with 95 %."""

    name: str
    value: float
    lower: float
    upper: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What the champion's answers to this batch are worth.

    Args:
        is_known: False where nothing can be said; `figures` are then empty and `reason` says why.
        num_errors: batches whose labels told how wrong such an estimate is.
    """

    is_known: bool
    reason: str
    num_rows: int
    num_errors: int
    figures: tuple[Estimated, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimator:
    """All that earlier batches taught; JSON, carried from summary to summary.

    Args:
        calibration: of this champion; a new one starts as if its scores were right.
        errors: found less estimated quality of earlier batches, whichever model served them, oldest first.
        is_surprised: the newest error lay outside the interval that the errors before it had given.
    """

    model_digest: str | None = None
    calibration: Calibration = field(default_factory=Calibration)
    errors: tuple[Quality, ...] = ()
    is_surprised: bool = False

    def of(self, model_digest: str | None) -> "Estimator":
        """The same for the champion that serves now; what the world does to estimates is kept, calibration is not."""
        if model_digest == self.model_digest:
            return self
        return Estimator(model_digest=model_digest, errors=self.errors)

    def after(self, labels: npt.ArrayLike, scores: npt.ArrayLike) -> "Estimator":
        """With one more batch of labels. The error is taken before the labels are learned from."""
        expected = expected_quality(self.calibration.chances(scores), scores)
        error = _difference(found_quality(labels, scores), expected)
        return dataclasses.replace(
            self,
            calibration=self.calibration.after(labels, scores),
            errors=(*self.errors, error)[-MAX_ERRORS:],
            is_surprised=_is_outside(error.log_loss, [e.log_loss for e in self.errors]),
        )

    def estimate(self, scores: npt.ArrayLike, *, min_rows: int, num_unlabelled: int, patience: int) -> Estimate:
        """For a batch of served scores without labels.

        Args:
            num_unlabelled: batches in a row, to this one, in which no labels for this champion came.
            patience: how many of them an estimate survives.
        """
        served = np.asarray(scores, dtype=np.float64)
        served = served[np.isfinite(served)]
        reason = self._why_unknown(served, min_rows=min_rows, num_unlabelled=num_unlabelled, patience=patience)
        base = Estimate(is_known=not reason, reason=reason, num_rows=len(served), num_errors=len(self.errors))
        if reason:
            return base
        expected = expected_quality(self.calibration.chances(served), served)
        figures = tuple(f for f in (_figure(name, expected, self.errors) for name in FIGURES) if f is not None)
        text = f"estimated from {len(served)} scores, as wrong as {len(self.errors)} earlier estimates were"
        return dataclasses.replace(base, reason=text, figures=figures)

    def _why_unknown(self, served: Floats, *, min_rows: int, num_unlabelled: int, patience: int) -> str:
        if len(served) < min_rows:
            return f"{len(served)} scores were served for this batch, at least {min_rows} are needed"
        if len(self.errors) < MIN_ERRORS:
            return (
                f"labels have judged {len(self.errors)} batches so far, {MIN_ERRORS} are needed to know how wrong an "
                "estimate can be"
            )
        if num_unlabelled >= patience:
            return (
                f"no labels for this champion in {num_unlabelled} batches: a change in what inputs mean would not show"
            )
        if self.is_surprised:
            return "the newest labels lie outside what was estimated for them: what inputs mean seems to have changed"
        uncovered = self.calibration.uncovered(served, min_rows=MIN_BIN_ROWS)
        if uncovered > MAX_UNCOVERED:
            return f"{uncovered:.0%} of the scores lie where this champion has met hardly any label yet"
        return ""


def _difference(found: Quality, expected: Quality) -> Quality:
    both = None not in (found.auc, expected.auc)
    return Quality(
        log_loss=found.log_loss - expected.log_loss,
        brier=found.brier - expected.brier,
        auc=(found.auc or 0.0) - (expected.auc or 0.0) if both else None,
        mean_label=found.mean_label - expected.mean_label,
    )


def _figure(name: str, expected: Quality, errors: Sequence[Quality]) -> Estimated | None:
    value = getattr(expected, name)
    known = [e for e in (getattr(error, name) for error in errors) if e is not None]
    if value is None or len(known) < MIN_ERRORS:
        return None
    low, high = _interval(known)
    return Estimated(
        name=name, value=float(value + np.mean(known)), lower=float(value + low), upper=float(value + high)
    )


def _interval(errors: Sequence[float]) -> tuple[float, float]:
    """Where one more error lies with 95 %. Source: prediction interval of a normal sample, Student's t."""
    from scipy.special import stdtrit  # type: ignore[import-untyped] # noqa: PLC0415 - verbs load no SciPy

    num = len(errors)
    reach = stdtrit(num - 1, CONFIDENCE) * float(np.std(errors, ddof=1)) * math.sqrt(1 + 1 / num)
    return float(np.mean(errors) - reach), float(np.mean(errors) + reach)


def _is_outside(error: float, before: Sequence[float]) -> bool:
    if len(before) < MIN_ERRORS:
        return False
    low, high = _interval(before)
    return not low <= error <= high
