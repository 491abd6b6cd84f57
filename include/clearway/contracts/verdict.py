"""Four answers a gate can give, and how several of them become one."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum


class Verdict(StrEnum):
    """Only PASS advances. FAIL is an answer, not a crash; INCONCLUSIVE waits; ERROR is retried."""

    PASS = "pass"  # noqa: S105 - an answer, not a password
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    ERROR = "error"


# Worst first: a crash of the measurement hides everything else, a failed check outranks missing evidence.
_SEVERITY = (Verdict.ERROR, Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One measured claim.

    Args:
        name: stable identifier, e.g. `auc_floor` or `slice_logloss[origin=JFK]`.
        verdict: what this claim says on its own.
        value: the measured number; None when nothing could be measured.
        bound: what the value was held against; None for a claim without a threshold.
        reason: one sentence a person can act on.
        is_decisive: False for a dry-run check, measured and reported, never counted.
    """

    name: str
    verdict: Verdict
    value: float | None = None
    bound: float | None = None
    reason: str = ""
    is_decisive: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A verdict with the checks it came from."""

    verdict: Verdict
    checks: tuple[Check, ...] = field(default=())

    @property
    def reasons(self) -> tuple[str, ...]:
        """Reasons of the decisive checks that did not pass, worst first."""
        blockers = [c for c in self.checks if c.is_decisive and c.verdict is not Verdict.PASS]
        return tuple(f"{c.name}: {c.reason}" for c in sorted(blockers, key=lambda c: _SEVERITY.index(c.verdict)))


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The most severe of several verdicts; ERROR for none at all, since no data is never a pass."""
    found = set(verdicts)
    return next((verdict for verdict in _SEVERITY if verdict in found), Verdict.ERROR)


def judge(checks: Iterable[Check]) -> Judgement:
    """Combine checks; dry-run checks are kept but do not count, and an empty decisive set is an ERROR."""
    kept = tuple(checks)
    return Judgement(verdict=worst(c.verdict for c in kept if c.is_decisive), checks=kept)


def at_least(name: str, value: float | None, bound: float, *, reason: str = "", is_decisive: bool = True) -> Check:
    """`value >= bound`; a missing, NaN or infinite value is an ERROR, never a number."""
    return _compare(
        name,
        value,
        bound,
        passes=value is not None and value >= bound,
        sign=">=",
        reason=reason,
        is_decisive=is_decisive,
    )


def at_most(name: str, value: float | None, bound: float, *, reason: str = "", is_decisive: bool = True) -> Check:
    """`value <= bound`, with the same rule for values that are no numbers."""
    return _compare(
        name,
        value,
        bound,
        passes=value is not None and value <= bound,
        sign="<=",
        reason=reason,
        is_decisive=is_decisive,
    )


def _compare(
    name: str, value: float | None, bound: float, *, passes: bool, sign: str, reason: str, is_decisive: bool
) -> Check:
    if value is None or not math.isfinite(value) or not math.isfinite(bound):
        text = f"{name} could not be measured: value {value}, bound {bound}; a finite number is needed"
        return Check(name=name, verdict=Verdict.ERROR, bound=bound, reason=text, is_decisive=is_decisive)
    text = f"{value:.6g} {sign} {bound:.6g} {'holds' if passes else 'does not hold'}"
    verdict = Verdict.PASS if passes else Verdict.FAIL
    return Check(
        name=name,
        verdict=verdict,
        value=value,
        bound=bound,
        reason=f"{text}; {reason}" if reason else text,
        is_decisive=is_decisive,
    )
