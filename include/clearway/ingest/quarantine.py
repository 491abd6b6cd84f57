"""Set refused batches aside, with the reason, without touching anything that is published."""

from collections.abc import Mapping, Sequence

import pyarrow as pa

from clearway.contracts.codec import to_jsonable
from clearway.contracts.manifest import canonical_json, sha256_of
from clearway.infra.layout import Layout
from clearway.infra.parquet import to_parquet
from clearway.infra.storage import Storage, join
from clearway.ingest.schema import Problem

REASON = "reason.json"


def set_aside(
    storage: Storage, layout: Layout, batch_id: str, *, problems: Sequence[Problem], tables: Mapping[str, pa.Table]
) -> str:
    """Keep the refused tables and the reasons; the same refusal again changes nothing. Returns the reason's address."""
    files = {f"{name}.parquet": to_parquet(table) for name, table in sorted(tables.items())}
    reason = {
        "batch_id": batch_id,
        "problems": to_jsonable(list(problems)),
        "files": {name: sha256_of(data) for name, data in files.items()},
    }
    data = canonical_json(reason)
    folder = join(layout.quarantine(batch_id), sha256_of(data)[:16])
    for name, content in files.items():
        storage.create(join(folder, name), content)
    storage.create(join(folder, REASON), data)
    return join(folder, REASON)
