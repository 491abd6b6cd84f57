"""What the kept files of a backtest were made of, as digests that name them: a changed product or past finds none of
them and makes its own."""

from typing import Any

from clearway.contracts.manifest import canonical_json, sha256_of
from clearway.ingest.sources import NotDelivered, Source, open_source
from clearway.measures.distance import REFERENCE_VERSION
from clearway.product import LoadedProduct

# Of a SHA-256: enough to tell a product's pasts apart, short enough to read in a path.
NAME_LENGTH = 16


def name_of(**facts: Any) -> str:
    """A name for what is made of these facts, JSON values."""
    return sha256_of(canonical_json(facts))[:NAME_LENGTH]


def rows_name(product: LoadedProduct) -> str:
    """Of the labelled rows of a past: the bytes it is delivered in, and all that shapes them on their way.

    Raises: ConfigError or MissingExtra for a source that cannot be opened.
    """
    spec, clock, source = product.spec, product.spec.batch, open_source(product)
    end = clock.last or clock.first
    batch_ids = [clock.batch_id(start) for start, _ in clock.intervals(clock.first, end)]
    return name_of(
        deliveries=[[batch_id, _delivery(source, batch_id)] for batch_id in batch_ids],
        code=[[file.name, sha256_of(file.read_bytes())] for file in sorted(product.folder.glob("*.py"))],
        spec=spec.model_dump(mode="json", include={"source", "shape", "tables", "batch", "features", "label"}),
    )


def models_name(product: LoadedProduct, *, rows: str, settings: dict[str, Any]) -> str:
    """Of models fitted with `settings`. `rows`: name of the rows they are fitted to."""
    return name_of(rows=rows, holdout_days=product.spec.release.holdout_days, settings=settings)


def drift_name(product: LoadedProduct, *, rows: str) -> str:
    """Of the drift of later batches against the training rows of a model. `rows`: their name."""
    policy = product.spec.monitor
    return name_of(
        rows=rows,
        holdout_days=product.spec.release.holdout_days,
        ignore=sorted(policy.ignore),
        false_discovery_rate=policy.false_discovery_rate,
        reference=REFERENCE_VERSION,
    )


def _delivery(source: Source, batch_id: str) -> str:
    try:
        return source.fingerprint(batch_id)
    except NotDelivered:
        return ""  # it may come later, and then the past is another one
