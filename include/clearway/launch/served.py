"""How well each model did on the batches it really served, beside a reference on the same rows.

Predictions are those the endpoint logged, labels those that have arrived since. The reference is the one that the
release's own evaluation fitted: LightGBM on the same training rows, or a compressor that has read the newest training
texts; no look at later ones.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clearway.contracts.errors import IntegrityError
from clearway.infra.environment import Environment
from clearway.infra.layout import Layout
from clearway.infra.snapshots import current
from clearway.infra.storage import Storage, open_storage
from clearway.ingest.ledger import landed_batches
from clearway.product import LoadedProduct

if TYPE_CHECKING:
    import pyarrow as pa

    from clearway.infra.datasets import DatasetDocument

# Written by the evaluate stage beside its evaluation.
REFERENCE_FILE = "lightgbm.txt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Area under the ROC curve (0 to 1) and mean log-loss (nats per row)."""

    auc: float
    log_loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TextScore:
    """Bits per byte of texts, their ends included; smaller is better."""

    bits_per_byte: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One model's service.

    Args:
        batch_ids: batches it answered for, whether or not their labels have arrived.
        num_rows: predictions with a label, or texts, which is what the scores are made of; 0 leaves them None.
        reference: LightGBM or a compressor on the same rows; None if that release left none.
    """

    model_digest: str
    batch_ids: tuple[str, ...]
    num_rows: int
    score: Score | TextScore | None
    reference: Score | TextScore | None


def measure_served(env: Environment, product: LoadedProduct, *, releases: dict[str, str]) -> dict[str, Served]:
    """Service of every model in the prediction log, by digest; `releases`: model digest → release that made it."""
    if product.spec.label is None:
        from clearway.launch.served_texts import measure_texts  # noqa: PLC0415 - each kind its own libraries

        return measure_texts(env, product, releases=releases)
    import pyarrow.compute as pc  # noqa: PLC0415

    storage, layout = open_storage(env.store_root), Layout(env.store_root, product.name)
    batch_ids = landed_batches(storage, layout)
    log = _log_with_labels(storage, layout, product, batch_ids)
    found = {}
    for digest in pc.unique(log["model_digest"]).to_pylist():
        rows = log.filter(pc.equal(log["model_digest"], digest))
        labelled = rows.filter(rows["label"].is_valid())
        found[digest] = Served(
            model_digest=digest,
            batch_ids=tuple(sorted(set(rows["batch_id"].to_pylist()))),
            num_rows=len(labelled),
            score=_score(labelled, "score"),
            reference=_reference(env, product, labelled, digest=digest, release_id=releases.get(digest)),
        )
    return found


def _log_with_labels(storage: Storage, layout: Layout, product: LoadedProduct, batch_ids: list[str]) -> "pa.Table":
    """First answers of the prediction log with the labels known by now (null while unknown)."""
    import pyarrow as pa  # noqa: PLC0415

    from clearway.infra.datasets import read_labels  # noqa: PLC0415
    from clearway.monitor.prediction_log import EMPTY, read_predictions  # noqa: PLC0415

    spec = product.spec
    parts = []
    for batch_id in batch_ids:
        part = read_predictions(storage, layout, [batch_id])
        parts.append(part.append_column("batch_id", pa.array([batch_id] * len(part), pa.string())))
    log = pa.concat_tables(parts) if parts else EMPTY.append(pa.field("batch_id", pa.string())).empty_table()
    labels = read_labels(
        storage,
        layout,
        everything(storage, layout, product.name, batch_ids),
        table=spec.tabular.label.table,
        key=spec.features.key,
        column=spec.tabular.label.column,
    )
    return log.join(labels, keys="key", join_type="left outer")


def everything(storage: Storage, layout: Layout, product: str, batch_ids: list[str]) -> "DatasetDocument":
    """All landed labels and computed features as they are now."""
    from clearway.infra.datasets import DatasetDocument, Piece  # noqa: PLC0415

    def pieces(base: dict[str, str]) -> tuple[Piece, ...]:
        snapshots = {b: current(storage, uri) for b, uri in base.items()}
        return tuple(
            Piece(batch_id=b, digest=s.digest, num_rows=s.manifest.num_rows) for b, s in snapshots.items() if s
        )

    return DatasetDocument(
        product=product,
        as_of="",
        schema={},
        features=pieces({b: layout.features(b) for b in batch_ids}),
        labels=pieces({b: layout.batch(b) for b in batch_ids}),
    )


def _score(rows: "pa.Table", column: str) -> Score | None:
    from clearway.measures.binary import auc, log_loss  # noqa: PLC0415

    labels = rows["label"].to_numpy()
    if len(set(labels)) < 2:  # noqa: PLR2004  (one class has no ranking)
        return None
    scores = rows[column].to_numpy()
    return Score(auc=auc(labels, scores), log_loss=log_loss(labels, scores))


def _reference(
    env: Environment, product: LoadedProduct, rows: "pa.Table", *, digest: str, release_id: str | None
) -> Score | None:
    """LightGBM of that release on the same rows, encoded as that release encoded them."""
    import numpy as np  # noqa: PLC0415
    import pyarrow as pa  # noqa: PLC0415

    from clearway.infra.datasets import read_features  # noqa: PLC0415
    from clearway.packaging.package import open_package  # noqa: PLC0415

    storage, layout = open_storage(env.store_root), Layout(env.store_root, product.name)
    uri = layout.release(release_id, "evaluate", REFERENCE_FILE) if release_id else ""
    if not release_id or not storage.exists(uri) or not len(rows):
        return None
    package = open_package(storage, layout.model(digest), digest, key_folder=env.home / "keys")
    batch_ids = sorted(set(rows["batch_id"].to_pylist()))
    features = read_features(storage, layout, everything(storage, layout, product.name, batch_ids))
    joined = features.join(rows.select(["key", "label"]), keys="key", join_type="inner")
    if len(joined) != len(rows):
        raise IntegrityError(f"{len(rows) - len(joined)} served rows of {digest[:8]} have no features any more")
    numeric, categorical = package.encoder.encode_table(joined)
    matrix = np.hstack([numeric, categorical.astype(np.float32)])
    scores = _booster(storage.read(uri).decode()).predict(matrix, num_threads=env.jobs.num_threads)
    return _score(pa.table({"label": joined["label"], "score": scores}), "score")


def _booster(text: str) -> Any:
    import lightgbm

    return lightgbm.Booster(model_str=text)
