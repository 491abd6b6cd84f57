"""A finished study as MLflow sees it: a run beside the training's, with the page as its artifact."""

from optuna.trial import TrialState

from clearway.infra.tracking import Metric, RunRecord
from clearway.tune.budget import SECONDS
from clearway.tune.plots import importances
from clearway.tune.study import Searched


def run_record(searched: Searched, *, page: str, product: str, release_id: str, job: str) -> RunRecord:
    """A function of what was kept, so that repeating it changes nothing. `job`: digest of what the study was asked."""
    brief, entries = searched.brief, searched.ended.values()
    starts = [e.datetime_start.timestamp() - e.user_attrs.get(SECONDS, 0.0) for e in entries if e.datetime_start]
    ends = [e.datetime_complete.timestamp() for e in entries if e.datetime_complete]
    tune = brief.tune.model_dump(mode="json", exclude={"space"})
    entry = searched.trials[searched.chosen.index]
    return RunRecord(
        product=product,
        release_id=release_id,
        job=job,
        started_s=min(starts),
        ended_s=max(ends),
        params={f"tune.{name}": str(value) for name, value in tune.items()}
        | {f"chosen.{name}": str(value) for name, value in entry.params.items()}
        | {
            "searcher": brief.searcher,
            "num_workers": str(brief.num_workers),
            "chosen.trial": str(searched.chosen.index),
        },
        metrics=(*_trials(searched), *_totals(searched)),
        tags={"clearway.stage": "tune"},
        pages={"study.html": page},
    )


def _trials(searched: Searched) -> list[Metric]:
    judged = {i: e for i, e in sorted(searched.trials.items()) if e.state is TrialState.COMPLETE}
    losses = [Metric(name=searched.words.metric, value=e.values[0], step=i) for i, e in judged.items()]
    costs = [Metric(name="multiply_adds", value=e.values[1], step=i) for i, e in judged.items() if len(e.values) > 1]
    return [*losses, *costs]


def _totals(searched: Searched) -> list[Metric]:
    last = max(searched.trials)
    totals = {
        f"{searched.words.metric}_added": searched.chosen.difference,
        "num_trials": float(len(searched.trials)),
        "num_windows": float(searched.num_windows),
        "num_deaths": float(searched.num_deaths),
        "work_s": searched.spent.seconds,
        "money": searched.spent.money,
    }
    shares = {f"importance.{name}": share for name, share in importances(searched).items()}
    return [Metric(name=name, value=value, step=last) for name, value in (totals | shares).items()]
