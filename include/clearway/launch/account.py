"""What happened, read back from Airflow, the release document and the store: no memory of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

from clearway.contracts.release_document import HistoryEntry, Outcome, ReleaseDocument
from clearway.launch.airflow_api import AirflowApi, Run
from clearway.launch.replay import Played
from clearway.launch.served import Served
from clearway.release import RELEASE, release_id

STAGES = tuple(step.name for step in RELEASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage of a release; `verdict` is the stage's answer, or the task's state if it gave none."""

    name: str
    verdict: str
    reason: str
    seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """One release. `champion_before`, `champion_after`: model digests, None for no model."""

    run_id: str
    release_id: str
    trigger: str
    as_of: str
    outcome: str
    reason: str
    seconds: float | None
    stages: tuple[Stage, ...]
    champion_before: str | None
    champion_after: str | None
    served: Served | None


def read_releases(
    api: AirflowApi, product: str, *, document: ReleaseDocument, served: dict[str, Served]
) -> tuple[Release, ...]:
    """Every release run that Airflow remembers, oldest first."""
    entries = {e.release_id: e for e in document.history}
    found: list[Release] = []
    for run in api.runs(f"{product}_release"):
        before = found[-1].champion_after if found else None
        found.append(_read_release(api, run, entries=entries, champion_before=before, served=served))
    return tuple(found)


def _read_release(
    api: AirflowApi,
    run: Run,
    *,
    entries: dict[str, HistoryEntry],
    champion_before: str | None,
    served: dict[str, Served],
) -> Release:
    name = release_id(run.dag_id, run.run_id)
    outputs = {s: api.outputs(run.dag_id, run.run_id, s) or {} for s in STAGES}
    stages = _stages(api, run, outputs)
    entry = entries.get(name)
    before, after = (entry.before, entry.after) if entry else (champion_before, champion_before)
    outcome, reason = outcome_of(run.state, stages)
    return Release(
        run_id=run.run_id,
        release_id=name,
        trigger=_trigger(api, run),
        as_of=str(outputs["ingest"].get("end", "")),
        outcome=outcome,
        reason=reason,
        seconds=run.duration_s,
        stages=stages,
        champion_before=before,
        champion_after=after,
        served=served.get(after) if entry and after else None,
    )


def _stages(api: AirflowApi, run: Run, outputs: dict[str, dict[str, Any]]) -> tuple[Stage, ...]:
    tasks = {t.task_id: t for t in api.tasks(run.dag_id, run.run_id)}
    return tuple(
        Stage(
            name=name,
            verdict=str(outputs[name].get("verdict", tasks[name].state or "waiting")),
            reason=str(outputs[name].get("reason", "")),
            seconds=tasks[name].duration_s,
        )
        for name in STAGES
        if name in tasks
    )


def makers_of(document: ReleaseDocument) -> dict[str, str]:
    """Digest of every model that was promoted → the release that made it."""
    return {e.after: e.release_id for e in document.history if e.after and e.outcome is Outcome.PROMOTED}


def outcome_of(run_state: str, stages: tuple[Stage, ...]) -> tuple[str, str]:
    """How a release ended, in one word, and the sentence of the stage that decided it."""
    if run_state != "success":
        return run_state, next((s.reason for s in stages if s.verdict == "failed"), "")
    last = [s for s in stages if s.verdict not in {"skipped", "waiting"}][-1:]
    if not last:
        return "nothing to do", ""
    stage = last[0]
    if stage.name == "deploy" and stage.verdict == "pass":
        return "promoted", stage.reason
    word = "rejected" if stage.verdict == "fail" else stage.verdict
    return f"{word} by {stage.name}", stage.reason


def _trigger(api: AirflowApi, run: Run) -> str:
    if run.run_type == "asset_triggered":
        prefix = f"{run.dag_id.removesuffix('release')}"
        names = sorted({e.asset_name.removeprefix(prefix) for e in api.causes_of(run.dag_id, run.run_id)})
        return f"asset {', '.join(names)}" if names else "asset"
    return {"manual": "by hand", "scheduled": "schedule"}.get(run.run_type, run.run_type)


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Seconds, as Airflow recorded them; None for what did not happen."""

    healthy_s: float
    first_release_s: float | None
    week_median_s: float | None
    week_max_s: float | None
    retraining_release_max_s: float | None


def times_of(releases: tuple[Release, ...], played: list[Played], *, healthy_s: float) -> Times:
    """The durations that the budget names."""
    weeks = [p.seconds for p in played if p.is_landed]
    retrainings = [r.seconds for r in releases if r.trigger.startswith("asset") and r.seconds is not None]
    return Times(
        healthy_s=healthy_s,
        first_release_s=releases[0].seconds if releases else None,
        week_median_s=median(weeks) if weeks else None,
        week_max_s=max(weeks, default=None),
        retraining_release_max_s=max(retrainings, default=None),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Seconds that one part of closing the loop took: median and 95th percentile over `num` retrainings."""

    name: str
    num: int
    p50_s: float
    p95_s: float


WATCHED, CLOSED = "landed, predicted, judged", "drift visible → new champion serves"


def closing_of(releases: tuple[Release, ...], played: list[Played]) -> tuple[Span, ...]:
    """From the batch whose drift led to a retraining to the promoted model, by stage; the whole comes last.

    What lies between the stages (Airflow's own seconds) is in the whole only.
    """
    by_run = {release.run_id: release for release in releases}
    closed = [(week, by_run[week.released]) for week in played if week.closed_s is not None and week.released in by_run]
    if not closed:
        return ()
    spans = [_span(WATCHED, [week.seconds for week, _ in closed])]
    for name in STAGES:
        found = [s.seconds for _, release in closed for s in release.stages if s.name == name and s.seconds is not None]
        if found:
            spans.append(_span(name, found))
    return (*spans, _span(CLOSED, [week.closed_s for week, _ in closed if week.closed_s is not None]))


def _span(name: str, seconds: Sequence[float]) -> Span:
    high = quantiles(seconds, n=20, method="inclusive")[-1] if len(seconds) > 1 else seconds[0]
    return Span(name=name, num=len(seconds), p50_s=median(seconds), p95_s=high)
