"""Read the prediction log back: which rows of a batch were answered, and by whom."""

from clearway.infra.layout import Layout
from clearway.infra.parquet import from_parquet
from clearway.infra.storage import Storage


def logged_by(storage: Storage, layout: Layout, batch_id: str) -> dict[str, str]:
    """Key → digest of the model that answered first, for every logged row of a batch that named its key."""
    found: dict[str, str] = {}
    for uri in storage.list(layout.predictions(batch_id)):
        table = from_parquet(storage.read(uri))
        for key, digest in zip(table["key"].to_pylist(), table["model_digest"].to_pylist(), strict=True):
            if key is not None:
                found.setdefault(key, digest)
    return found
