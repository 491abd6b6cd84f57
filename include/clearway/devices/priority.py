"""How urgent a job on shared devices is, as one number in [0, 1]: a pure function of four factors.

    priority = clip(0.5 * tier + 0.25 * urgency + 0.25 * share + override, 0, 1)

A weighted sum of factors in [0, 1] is what the public batch schedulers do (SLURM, "Multifactor Priority Plugin"); the
share factor is that plugin's classic fair-share, 2 ** (-usage / share), over usage that fades with a half-life. There
is no factor for waiting time: Airflow reads a task's weight when its run is made, so it could never grow.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from clearway.contracts.errors import ConfigError

TIERS: Mapping[str, float] = {"low": 0.0, "medium": 0.5, "high": 1.0}
# Chosen so that the tier decides between products, and no other single factor can lift `low` over `high`.
TIER_WEIGHT, URGENCY_WEIGHT, SHARE_WEIGHT = 0.5, 0.25, 0.25
# A deadline starts to count a day ahead: the longest a release of the demonstration waits for people is three days.
URGENCY_HORIZON_S = 86_400.0
# Airflow's column is a 32-bit integer; four digits are finer than any factor is known.
MAX_WEIGHT = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Factors:
    """What a priority is made of.

    Args:
        tier: how much depends on the product, [0, 1].
        urgency: how near its deadline is, [0, 1]; 0 without one.
        share: how little of its due its team has used, [0, 1]; 1 for a team that used nothing.
        override: what a person added, [-1, 1]; see override.py.
    """

    tier: float
    urgency: float
    share: float
    override: float = 0.0

    def __post_init__(self) -> None:
        for name, low in (("tier", 0.0), ("urgency", 0.0), ("share", 0.0), ("override", -1.0)):
            value = getattr(self, name)
            if not low <= value <= 1.0:  # false for NaN, too
                raise ConfigError(f"factor {name} is {value}; allowed: {low:g} to 1; correct what it was read from")


def priority(factors: Factors) -> float:
    """[0, 1]; never falls when a factor rises."""
    base = TIER_WEIGHT * factors.tier + URGENCY_WEIGHT * factors.urgency + SHARE_WEIGHT * factors.share
    return min(1.0, max(0.0, base + factors.override))


def weight(value: float) -> int:
    """A priority as Airflow's `priority_weight`: 1 to 10,001, so that a task without a strategy comes last."""
    return 1 + round(MAX_WEIGHT * value)


def tier_factor(risk_tier: str) -> float:
    """Raises: ConfigError for a tier nobody defined."""
    if risk_tier not in TIERS:
        raise ConfigError(f"risk tier {risk_tier!r} is unknown; allowed: {sorted(TIERS)}")
    return TIERS[risk_tier]


def urgency(*, slack_s: float) -> float:
    """0 a day or more before the deadline, 1 at the deadline and after it, linear between.

    `slack_s`: seconds until the deadline; infinite without one.
    """
    return min(1.0, max(0.0, 1.0 - slack_s / URGENCY_HORIZON_S))


def share_factor(team: str, *, usage: Mapping[str, float], shares: Mapping[str, float]) -> float:
    """2 ** (-used / due): 1 for an idle team, 0.5 for one that used exactly its due, towards 0 beyond.

    Args:
        usage: device-seconds per team, faded; see ledger.py.
        shares: what teams are due, in any unit; a team that is not listed is due 1.
    """
    total = math.fsum(usage.values())
    if total <= 0:
        return 1.0
    due = {name: shares.get(name, 1.0) for name in {team, *usage, *shares}}
    used = usage.get(team, 0.0) / total
    return float(2.0 ** (-used * math.fsum(due.values()) / due[team]))
