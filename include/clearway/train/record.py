"""A finished training as MLflow sees it."""

from clearway.infra.tracking import TAG_DIGEST, Metric, RunRecord
from clearway.train.spec import Trained


def run_record(trained: Trained, *, product: str, release_id: str) -> RunRecord:
    """Curves, totals and parameters of one run; a function of what was kept, so that repeating it changes nothing."""
    return RunRecord(
        product=product,
        release_id=release_id,
        job=trained.job,
        started_s=trained.started_s,
        ended_s=trained.ended_s,
        params=trained.params,
        metrics=(*_curves(trained), *_totals(trained)),
        tags={TAG_DIGEST: trained.model.digest, "clearway.package": trained.model.uri, "clearway.stage": "train"},
    )


def _curves(trained: Trained) -> list[Metric]:
    points: list[tuple[float, tuple[str, ...], list[float]]]
    points = [(step, ("epoch", "train_log_loss", "lr"), values) for step, *values in trained.history]
    points += [(step, ("epoch_samples_per_s", "data_wait_share"), values) for step, *values in trained.paces]
    return [
        Metric(name=name, value=value, step=int(step))
        for step, names, values in points
        for name, value in zip(names, values, strict=True)
    ]


def _totals(trained: Trained) -> list[Metric]:
    totals = {
        "duration_s": trained.ended_s - trained.started_s,
        "fit_s": trained.fit_s,
        "samples_per_s": trained.num_samples / max(trained.fit_s, 1e-9),
    }
    last = int(trained.history[-1][0])
    return [Metric(name=name, value=value, step=last) for name, value in totals.items()]
