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
        return (_note("distribution_vs_champion", None, "no champion yet, so no training reference to compare with"),)
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
    over = [d for d in known if d.is_over]
    share = len(over) / len(known) if known else None
    named = ", ".join(f"{d.name} {d.distance:.3g} (limit {d.limit:.3g})" for d in over[:MAX_NAMED])
    going = [d.name for d in drifts if d.is_going_missing]
    limit = product.monitor.share_over_limit
    drifted = f"{len(over)} of {len(known)} features over their own limit; most: {named or 'none'}"
    return (
        _note("distribution_vs_champion", share, drifted, bound=limit, is_over=share is not None and share > limit),
        _note(
            "missing_vs_champion",
            float(len(going)),
            f"features missing more often than in training: {going[:MAX_NAMED]}",
            bound=0.0,
            is_over=bool(going),
        ),
    )


def _note(name: str, value: float | None, reason: str, *, bound: float | None = None, is_over: bool = False) -> Check:
    verdict = Verdict.FAIL if is_over else Verdict.PASS
    return Check(name=name, verdict=verdict, value=value, bound=bound, reason=reason, is_decisive=False)
