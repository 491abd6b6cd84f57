"""Which figures and notices an outcome of a stage makes. `tell` and `tell_failure` pass them on."""

from typing import Any

from clearway.contracts.verdict import Verdict
from clearway.infra.environment import Environment
from clearway.infra.watch.metrics import Point, open_metrics
from clearway.infra.watch.notices import Kind, Notice, open_notifier

PROMOTING, BACK, WATCHING = "deploy", "revert", "monitor"
ENDED = "ReleasesEnded"


def ending_of(stage: str, verdict: Verdict, *, ends: bool) -> Kind | str | None:
    """How a release ended with this stage: `promoted`, a Kind, or None if it goes on. `ends`: nothing follows."""
    if stage == BACK:
        return Kind.ROLLED_BACK if verdict is Verdict.PASS else Kind.FAILED
    if stage == PROMOTING:
        return "promoted" if verdict is Verdict.PASS else Kind.REJECTED
    return Kind.REJECTED if ends else None


def points_of(
    product: str, stage: str, verdict: Verdict, *, is_release: bool, ends: bool, retrains: bool
) -> list[Point]:
    """Figures of one outcome."""
    labels = {"Product": product, "Stage": stage, "Verdict": verdict.value}
    found = [Point(name="StageOutcomes", value=1, labels=labels)]
    if stage == WATCHING:
        is_alert = float(verdict is Verdict.FAIL)
        found.append(Point(name="DriftAlerts", value=is_alert, labels={"Product": product}))
        found.append(Point(name="DriftAlerts", value=is_alert))
        found.append(Point(name="RetrainingsAsked", value=float(retrains), labels={"Product": product}))
    if is_release and (ending := ending_of(stage, verdict, ends=ends)) is not None:
        found += ended(product, str(ending))
    return found


def ended(product: str, ending: str) -> list[Point]:
    """A release's end, by product, and over all of them for an alarm, which cannot add figures up by itself."""
    return [Point(name=ENDED, value=1, labels={"Outcome": ending, **of}) for of in ({"Product": product}, {})]


def notice_of(
    product: str, stage: str, verdict: Verdict, reason: str, *, run: str, is_release: bool, ends: bool
) -> Notice | None:
    """What a person is told of one outcome; None for what went as it should."""
    ending = ending_of(stage, verdict, ends=ends) if is_release else None
    if isinstance(ending, Kind):
        return Notice(kind=ending, product=product, run=run, text=f"{stage}: {reason}")
    if stage == WATCHING and verdict is not Verdict.PASS:
        return Notice(kind=Kind.ALERT, product=product, run=run, text=reason)
    return None


def tell(env: Environment, product: str, stage: str, outputs: Any, *, run: str, is_release: bool, ends: bool) -> None:
    """Publish what an outcome makes."""
    said = {"is_release": is_release, "ends": ends}
    retrains = bool(getattr(outputs, "retrain", False))
    open_metrics(env).put(points_of(product, stage, outputs.verdict, retrains=retrains, **said))
    if (notice := notice_of(product, stage, outputs.verdict, outputs.reason, run=run, **said)) is not None:
        open_notifier(env).tell(notice)


def tell_failure(env: Environment, product: str, stage: str, *, run: str, is_release: bool, text: str) -> None:
    """A stage that failed for good: nothing follows, and nobody has decided that."""
    labels = {"Product": product, "Stage": stage, "Verdict": Verdict.ERROR.value}
    points = [Point(name="StageOutcomes", value=1, labels=labels)]
    open_metrics(env).put(points + (ended(product, Kind.FAILED.value) if is_release else []))
    open_notifier(env).tell(Notice(kind=Kind.FAILED, product=product, run=run, text=f"{stage}: {text}"))
