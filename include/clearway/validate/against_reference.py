"""How the newest rows differ from what the champion was trained on. Reported, never decisive.

Drift is a reason to retrain, so it must not stop the retraining; what can stop it (missing values, impossible values)
is the own gate's and the suite's business. Only the newest batches are read, so the cost does not grow with history.
"""

from clearway.contracts.verdict import Check, Verdict
from clearway.infra.datasets import DatasetDocument, read_features
from clearway.infra.layout import Layout
from clearway.infra.storage import Storage
from clearway.measures.distance import Drift, compare
from clearway.packaging.package import Package
from clearway.product import Product

MAX_NAMED = 5


def reference_checks(
    storage: Storage, layout: Layout, document: DatasetDocument, *, champion: Package | None, product: Product
) -> tuple[Check, ...]:
    """Two dry-run checks; a first model has no reference, which the check says."""
    if champion is None:
        reason = "no champion yet, so no training reference to compare with"
        return (Check(name="distribution_vs_champion", verdict=Verdict.PASS, reason=reason, is_decisive=False),)
    newest = _newest(document, num_days=product.release.holdout_days, product=product)
    columns = [name for name in champion.reference["features"] if name in document.schema]
    table = read_features(storage, layout, newest, columns=columns)
    reference = champion.reference | {"features": {n: champion.reference["features"][n] for n in columns}}
    return tuple(_summary(compare(reference, table, ignore=product.monitor.ignore), product))


def _newest(document: DatasetDocument, *, num_days: int, product: Product) -> DatasetDocument:
    """The same dataset, cut to the batches that overlap its last `num_days` days."""
    start = product.batch.start_of(document.features[-1].batch_id)
    cut = product.batch.back(start, max(0, num_days - (product.batch.end_of(start) - start).days))
    kept = tuple(p for p in document.features if product.batch.start_of(p.batch_id) >= cut)
    return DatasetDocument(
        product=document.product, as_of=document.as_of, schema=document.schema, features=kept, labels=()
    )


def _summary(drifts: tuple[Drift, ...], product: Product) -> tuple[Check, Check]:
    known = [d for d in drifts if d.is_over is not None]
    counted = [d for d in drifts if d.missing_limit is not None]
    over, going = [d for d in known if d.is_over], [d.name for d in counted if d.is_going_missing]
    share = len(over) / len(known) if known else None
    limit = product.monitor.share_over_limit
    named = ", ".join(f"{d.name} {d.distance:.3g} (limit {d.limit:.3g})" for d in over[:MAX_NAMED])
    drifted = f"{len(over)} of {len(known)} features over their own limit; most: {named or 'none'}"
    gone = f"{len(going)} of {len(counted)} features missing more often than in training: {going[:MAX_NAMED]}"
    return (
        _note("distribution_vs_champion", share, drifted, bound=limit),
        _note("missing_vs_champion", float(len(going)) if counted else None, gone, bound=0.0),
    )


def _note(name: str, value: float | None, reason: str, *, bound: float) -> Check:
    """A dry-run check; where no feature could be compared nothing is known, which is no pass."""
    if value is None:
        reason = f"nothing to compare: {reason}"
        return Check(name=name, verdict=Verdict.INCONCLUSIVE, bound=bound, reason=reason, is_decisive=False)
    verdict = Verdict.PASS if value <= bound else Verdict.FAIL
    return Check(name=name, verdict=verdict, value=value, bound=bound, reason=reason, is_decisive=False)
