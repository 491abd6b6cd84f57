"""What a study does, in order, and what each piece of it may know: pure functions of the numbers in product.yaml.

A study is a row of tasks. Most are trials. After every `refresh_every` trials the validation window is worn: the next
one is taken, and the model as written and the best few so far are judged again on it before new trials go on; when the
last round has ended they are judged once more. Which earlier tasks a task may know is fixed beforehand (`num_known`),
and a task waits until those have ended. So what a trial tries follows from those tasks and nothing else: not from
which worker ran it, how long it took, or who was killed meanwhile.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

from clearway.product_tune import Tune

# Judged again on every new window, besides the model as written: enough to survive one lucky winner, cheap beside 25.
NUM_FINALISTS = 3


class Kind(StrEnum):
    """A new trial, or an earlier one judged again on another window."""

    TRIAL = "trial"
    AGAIN = "again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One piece of work.

    Args:
        number: place in the agenda.
        index: which trial, or which place among those judged again (0: the model as written).
        round: counts the windows taken; the closing round has no trials of its own.
        num_known: so many leading tasks must have ended before this one starts; it may know them and no other.
    """

    number: int
    kind: Kind
    index: int
    round: int
    num_known: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How far ahead a study runs. `num_seeds`: leading trials whose values are given; `lag`: a trial knows those at
    least so many places before it (1: all of them); `population`: trials of one CMA-ES generation."""

    num_seeds: int
    lag: int
    population: int


def lag_of(num_workers: int) -> int:
    """One worker knows everything. Several may be so far apart that a slow trial seldom holds up the others.

    Simulated, 60 trials, durations lognormal (sigma 0.2 to 0.5) or 40 % whole and the rest pruned at 0.15: two workers
    with a lag of 2 need up to 28 % more wall than without waiting, eight with 8 up to 62 %; with twice the workers the
    surplus is at most 6 %.
    """
    return 1 if num_workers == 1 else 2 * num_workers


def population_of(num_parameters: int, num_workers: int) -> int:
    """Hansen 2016, table 1: 4 + 3 ln n; rounded up so that no worker idles in a generation's last turn."""
    population = 4 + math.floor(3 * math.log(num_parameters))
    return math.ceil(population / num_workers) * num_workers


def agenda(tune: Tune, *, num_trials: int, refresh_every: int, pace: Pace) -> tuple[Task, ...]:
    """All tasks in order. One round needs no second judgement: nothing was worn."""
    rounds, tasks = math.ceil(num_trials / refresh_every), list[Task]()
    for this in range(rounds + (rounds > 1)):
        if this:
            tasks += _judged_again(len(tasks), this)
        first, start = this * refresh_every, len(tasks)
        for index in range(first, min(num_trials, first + refresh_every)):
            known = _num_known(tune, pace, index=index, number=len(tasks), offset=start - first)
            known = max(known, start if this and _needs_values(tune) else 0)
            tasks.append(Task(number=len(tasks), kind=Kind.TRIAL, index=index, round=this, num_known=known))
    return tuple(tasks)


def _judged_again(start: int, this: int) -> list[Task]:
    return [
        Task(number=start + place, kind=Kind.AGAIN, index=place, round=this, num_known=start)
        for place in range(1 + NUM_FINALISTS)
    ]


def _needs_values(tune: Tune) -> bool:
    return tune.sampler in {"tpe", "cma_es"} or tune.pruner != "none"


def _num_known(tune: Tune, pace: Pace, *, index: int, number: int, offset: int) -> int:
    if index < pace.num_seeds or not _needs_values(tune):
        return 0
    if tune.sampler == "cma_es":  # whole generations only: all of one are drawn from the same distribution
        generation = (index - pace.num_seeds) // pace.population
        return max(0, pace.num_seeds + generation * pace.population + offset)
    return max(0, number - pace.lag + 1)
