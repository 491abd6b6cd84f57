"""One trial: trainings on the older rows of a window, as many as its fidelity asks for, judged on its newer ones."""

from collections.abc import Callable

import pyarrow as pa

from clearway.product import LoadedProduct
from clearway.product_tune import Tune
from clearway.tune.kinds import Judged, Report, Searchable, Settings

# Shares of the rows a trial with fidelity `rows` is trained on, one after another; thirds, as pruners reduce.
ROW_SHARES = (1 / 9, 1 / 3, 1.0)
REPORTS = 10  # of a trial with fidelity `epochs`
PCT = 100


def judged(
    kind: Searchable,
    older: pa.Table,
    newer: pa.Table,
    *,
    product: LoadedProduct,
    settings: Settings,
    tune: Tune,
    report: Report,
) -> Judged:
    """Train and judge. Raises: DataError if the loss is no number; TrialPruned by way of `report`."""
    if tune.fidelity == "rows" and tune.pruner != "none":
        for share in ROW_SHARES[:-1]:
            newest = older.slice(len(older) - round(share * len(older)))
            found = kind.judged(newest, newer, product=product, settings=settings, report=lambda *_: None)
            report(int(share * PCT), found.loss)
        found = kind.judged(older, newer, product=product, settings=settings, report=lambda *_: None)
        report(PCT, found.loss)
        return found
    return kind.judged(older, newer, product=product, settings=settings, report=report)


def in_percent(report: Report, *, num_steps: int, unit: float = 1.0) -> Callable[[list[float]], None]:
    """The loop's reports as ten of equal distance, so that trials with other batch sizes or epochs compare.

    Args:
        num_steps: of the whole training.
        unit: of the loss that is reported, in nats.
    """
    last = 0

    def on_report(point: list[float]) -> None:
        nonlocal last
        step, _, loss, _ = point
        reached = REPORTS * int(step) // num_steps
        if reached > last:
            last = reached
            report(reached * PCT // REPORTS, loss / unit)

    return on_report
