"""What a study has used of its time and money: read from the entries of what ended, so that a crash spends nothing."""

from collections.abc import Mapping
from dataclasses import dataclass

from optuna.trial import FrozenTrial

from clearway.tune.brief import Brief

SECONDS = "seconds"  # user attribute of an entry: how long its task took
S_PER_HOUR = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Seconds of work shared by the workers, and the machine's price for them. Attempts that died are not in it."""

    seconds: float
    money: float


def spent(brief: Brief, ended: Mapping[int, FrozenTrial]) -> Spent:
    """So far."""
    seconds = sum(entry.user_attrs.get(SECONDS, 0.0) for entry in ended.values()) / brief.num_workers
    return Spent(seconds=seconds, money=seconds / S_PER_HOUR * brief.price_per_hour)


def is_spent(brief: Brief, ended: Mapping[int, FrozenTrial]) -> bool:
    """Whether nothing more may start; what runs is not interrupted, so the last trial of each worker may go beyond."""
    so_far, tune = spent(brief, ended), brief.tune
    return bool(
        (tune.max_seconds and so_far.seconds >= tune.max_seconds) or (tune.max_money and so_far.money >= tune.max_money)
    )
