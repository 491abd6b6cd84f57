"""Which parameters a study ends with: pure functions of what has ended.

Losses of different windows are never compared: each counts as its difference to the model as written on the same rows.
A trial that was judged again counts by those later judgements alone, in which no search had a hand.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from optuna.trial import FrozenTrial, TrialState, create_trial

from clearway.tune.agenda import NUM_FINALISTS, Kind, Task

AS_WRITTEN = 0  # index of the trial that tries product.yaml as written, and place of its later judgements
OF = "of"  # user attribute of a later judgement: the trial it is of


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A judged trial. `differences`: loss less that of the model as written, one per window it was judged
    on, its own first; `cost`: its second objective, 0 without one."""

    index: int
    differences: tuple[float, ...]
    cost: float

    @property
    def searched(self) -> float:
        """Mean over all windows, the one it was found on among them."""
        return fmean(self.differences)

    @property
    def confirmed(self) -> float:
        """Mean over the windows it was not found on."""
        return fmean(self.differences[1:])


def losses_as_written(tasks: Sequence[Task], ended: Mapping[int, FrozenTrial]) -> dict[int, float]:
    """Round → loss of the model as written on that round's window; rounds without one are left out."""
    found = {}
    for task in tasks:
        entry = ended.get(task.number)
        is_first = task.index == AS_WRITTEN and (task.kind is Kind.AGAIN or task.round == 0)
        if is_first and entry is not None and entry.state is TrialState.COMPLETE:
            found[task.round] = entry.values[0]
    return found


def known_trials(tasks: Sequence[Task], ended: Mapping[int, FrozenTrial]) -> list[FrozenTrial]:
    """The trials among `tasks` that ended, in order, with losses moved to the level of the first window."""
    written = losses_as_written(tasks, ended)
    trials = (task for task in tasks if task.kind is Kind.TRIAL and task.number in ended)
    return [moved(ended[task.number], -shift_of(written, task.round)) for task in trials]


def shift_of(written: Mapping[int, float], round_: int) -> float:
    """How much harder the window of a round is than the first; 0 where either is not known."""
    return written[round_] - written[0] if round_ in written and 0 in written else 0.0


def moved(entry: FrozenTrial, by: float) -> FrozenTrial:
    """A copy with `by` added to its loss and to what was reported on the way."""
    return create_trial(
        state=entry.state,
        values=[entry.values[0] + by, *entry.values[1:]] if entry.values else None,
        params=entry.params,
        distributions=entry.distributions,
        user_attrs=entry.user_attrs,
        system_attrs=entry.system_attrs,
        intermediate_values={step: value + by for step, value in entry.intermediate_values.items()},
    )


def candidates(tasks: Iterable[Task], ended: Mapping[int, FrozenTrial]) -> list[Candidate]:
    """Every trial that was judged in a round whose model as written was judged too, in order."""
    tasks = [task for task in tasks if task.number in ended and ended[task.number].state is TrialState.COMPLETE]
    written = losses_as_written(tasks, ended)
    found: dict[int, Candidate] = {}
    for task in tasks:
        entry = ended[task.number]
        if task.round not in written:
            continue
        difference = entry.values[0] - written[task.round]
        if task.kind is Kind.TRIAL:
            cost = entry.values[1] if len(entry.values) > 1 else 0.0
            found[task.index] = Candidate(index=task.index, differences=(difference,), cost=cost)
        elif entry.user_attrs[OF] in found:
            earlier = found[entry.user_attrs[OF]]
            found[earlier.index] = replace(earlier, differences=(*earlier.differences, difference))
    return list(found.values())


def finalists(tasks: Sequence[Task], ended: Mapping[int, FrozenTrial], *, slack: float, has_cost: bool) -> list[int]:
    """The trials judged again next: the best few so far, product.yaml as written left out, which is judged anyway."""
    left = [c for c in candidates(tasks, ended) if c.index != AS_WRITTEN]
    chosen = list[int]()
    while left and len(chosen) < NUM_FINALISTS:
        best = preferred(left, [c.searched for c in left], slack=slack if has_cost else 0.0)
        chosen.append(best.index)
        left.remove(best)
    return chosen


def preferred(found: Sequence[Candidate], losses: Sequence[float], *, slack: float) -> Candidate:
    """The cheapest whose loss is within `slack` of the smallest; among equally cheap ones the best, then the first."""
    limit = min(losses) + slack
    near = [(c.cost, loss, c.index, c) for c, loss in zip(found, losses, strict=True) if loss <= limit]
    return min(near, key=lambda item: item[:3])[3]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """How a study ended: the trial chosen and its loss less that of the model as written (0 for that itself).

    `num_windows`: windows that the figure is a mean of; `is_confirmed`: none of them is the one it was found on.
    """

    index: int
    difference: float
    num_windows: int
    is_confirmed: bool


def choice(tasks: Sequence[Task], ended: Mapping[int, FrozenTrial], *, slack: float, has_cost: bool) -> Choice | None:
    """None if the model as written was never judged. Judged again beats not judged again, whatever the figures."""
    found = candidates(tasks, ended)
    confirmed = [c for c in found if len(c.differences) > 1]
    is_confirmed = bool(confirmed)
    counted = confirmed or found
    if not counted:
        return None
    losses = [c.confirmed if is_confirmed else c.searched for c in counted]
    best = preferred(counted, losses, slack=slack if has_cost else 0.0)
    return Choice(
        index=best.index,
        difference=losses[counted.index(best)],
        num_windows=len(best.differences) - is_confirmed,
        is_confirmed=is_confirmed,
    )
