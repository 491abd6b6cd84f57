"""A worker of a study: takes the next task that is free and may start, until none is left or the budget is spent.

    python -m clearway.tune.worker <folder of the study>

Any number may work on one study, started by anybody on a machine that shares its folder and its kernel's locks.
"""

import logging
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from optuna import Study, TrialPruned
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from clearway.contracts.errors import DataError, Unmeasurable
from clearway.engine.world import make_deterministic
from clearway.infra.faults import fault
from clearway.infra.orphans import die_with_parent
from clearway.tune.agenda import Kind, Task
from clearway.tune.brief import Brief, read_brief, read_rows
from clearway.tune.budget import SECONDS, is_spent
from clearway.tune.choosing import AS_WRITTEN, OF, finalists, known_trials, losses_as_written, shift_of
from clearway.tune.journal import Journal
from clearway.tune.kinds import Judged, Report, Searchable, searchable
from clearway.tune.objective import PCT, judged
from clearway.tune.proposals import num_values, proposed, view

LOG = logging.getLogger("clearway.tune")
# A trial that ends its process each time (memory, a broken library) must not end the study: it counts as refused.
MAX_ATTEMPTS = 5
# How often a worker without work looks again: little beside a trial of a second.
PAUSE_S = 0.05
REFUSED = "refused"  # user attribute: why a task has no value


def work(folder: Path) -> None:
    """Work until nothing is left to do."""
    work_on(folder, read_brief(folder).tasks())


def work_on(folder: Path, tasks: tuple[Task, ...]) -> None:
    """Work until nothing of these leading tasks is left to do."""
    brief, journal = read_brief(folder), Journal(folder)
    make_deterministic(brief.num_threads)
    kind = searchable(brief.product)
    worker = _Worker(brief=brief, journal=journal, kind=kind, rows=read_rows(folder), tasks=tasks)
    while not worker.is_done():
        if not worker.step():
            time.sleep(PAUSE_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Worker:
    brief: Brief
    journal: Journal
    kind: Searchable
    rows: pa.Table
    tasks: tuple[Task, ...]

    def is_done(self) -> bool:
        ended = self.journal.ended()
        return all(task.number in ended for task in self.tasks) or is_spent(self.brief, ended)

    def step(self) -> bool:
        """Do one task; False if all that may start are in other hands."""
        ended = self.journal.ended()
        num_leading = next((t.number for t in self.tasks if t.number not in ended), len(self.tasks))
        ready = (t for t in self.tasks if t.number not in ended and t.num_known <= num_leading)
        return any(self._attempt(task, ended) for task in ready)

    def _attempt(self, task: Task, ended: Mapping[int, FrozenTrial]) -> bool:
        with self.journal.claimed(task) as num_before:
            if num_before is None:
                return False
            if num_before < MAX_ATTEMPTS:
                begun_s = time.monotonic()
                entry = self._trial(task, ended) if task.kind is Kind.TRIAL else self._again(task, ended)
                entry.user_attrs[SECONDS] = time.monotonic() - begun_s
            else:
                entry = _refusal(f"its worker died {num_before} times; see the log of the stage, try with more memory")
            fault("tune.before_entry")
            self.journal.enter(task, entry)
        num_left = len(self.tasks) - len(ended) - 1
        LOG.info("%s", _line(task, entry, loss=self.kind.words.loss, num_left=num_left))
        fault("tune.after_trial")
        return True

    def _trial(self, task: Task, ended: Mapping[int, FrozenTrial]) -> FrozenTrial:
        brief, tune, model = self.brief, self.brief.tune, self.brief.product.spec.model
        known = self.tasks[: task.num_known]
        study = view(known_trials(known, ended), tune, seed=model.seed + task.index)
        given = brief.seeds[task.index] if task.index < len(brief.seeds) else None
        trial = proposed(study, tune, model=model, pace=brief.pace, index=task.index, given=given)
        curve = dict[int, float]()
        shift = shift_of(losses_as_written(known, ended), task.round)
        report = _report(trial, curve, shift, can_prune=given is None and num_values(tune) == 1)
        try:
            found = self._judged(task, trial.params, report)
        except TrialPruned:
            return _entry(study, TrialState.PRUNED, curve, values=[curve[max(curve)]])
        except (DataError, Unmeasurable) as error:
            return _entry(study, TrialState.FAIL, curve, refused=str(error))
        return _entry(study, TrialState.COMPLETE, curve, values=_values(found)[: num_values(tune)])

    def _again(self, task: Task, ended: Mapping[int, FrozenTrial]) -> FrozenTrial:
        brief, known = self.brief, self.tasks[: task.num_known]
        best = finalists(known, ended, slack=brief.tune.slack, has_cost=num_values(brief.tune) > 1)
        wanted = [AS_WRITTEN, *best]
        if task.index >= len(wanted):
            return _refusal("fewer trials than places could be judged")
        index = wanted[task.index]
        earlier = next(ended[t.number] for t in known if t.kind is Kind.TRIAL and t.index == index)
        try:
            found = self._judged(task, earlier.params, lambda *_: None)
        except (DataError, Unmeasurable) as error:
            return _refusal(str(error))
        values = _values(found)[: num_values(brief.tune)]
        return create_trial(
            values=values, params=earlier.params, distributions=earlier.distributions, user_attrs={OF: index}
        )

    def _judged(self, task: Task, params: dict[str, float], report: Report) -> Judged:
        product, window = self.brief.product, self.brief.window(task)
        return judged(
            self.kind,
            window.older(self.rows),
            window.newer(self.rows),
            product=product,
            settings=product.spec.model.overridden(params),
            tune=self.brief.tune,
            report=report,
        )


def _report(trial: Trial, curve: dict[int, float], shift: float, *, can_prune: bool) -> Report:
    """Keep the curve and ask the pruner, on the level of the first window, where all trials are compared."""

    def report(pct: int, loss: float) -> None:
        curve[pct] = loss
        if can_prune and pct < PCT:
            trial.report(loss - shift, pct)
            if trial.should_prune():
                raise TrialPruned

    return report


def _values(found: Judged) -> list[float]:
    return [found.loss, float(found.multiply_adds)]


def _entry(
    study: Study, state: TrialState, curve: dict[int, float], *, values: list[float] | None = None, refused: str = ""
) -> FrozenTrial:
    """The newest trial of a view, for the journal: losses as measured, and what the pruner noted for itself."""
    trial = study.get_trials(deepcopy=False)[-1]
    return create_trial(
        state=state,
        values=values,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs={REFUSED: refused} if refused else {},
        system_attrs=trial.system_attrs,
        intermediate_values=curve,
    )


def _refusal(reason: str) -> FrozenTrial:
    return create_trial(state=TrialState.FAIL, user_attrs={REFUSED: reason})


def _line(task: Task, entry: FrozenTrial, *, loss: str, num_left: int) -> str:
    name = f"trial {task.index}" if task.kind is Kind.TRIAL else f"place {task.index} judged again, round {task.round}"
    said = f"{loss} {entry.values[0]:.5f}" if entry.values else entry.user_attrs[REFUSED]
    return f"{name}: {entry.state.name.lower()}, {said}; {num_left} tasks to go"


def main() -> None:
    """A worker as a process."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    die_with_parent()
    work(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
