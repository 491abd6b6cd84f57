"""A product's past as one table: landed and computed once, kept below a folder, read afterwards.

Shapes: N labelled rows, W batches ("weeks", whatever the product's clock).
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clearway.contracts.errors import ConfigError
from clearway.infra.datasets import BATCH, DAY, LABEL, TIME, open_dataset, read_labelled
from clearway.infra.environment import Environment, Storage
from clearway.infra.layout import Layout
from clearway.infra.storage import open_storage
from clearway.ingest import run as ingest
from clearway.ingest.spec import Inputs as IngestInputs
from clearway.launch.backtest.kept import rows_name
from clearway.preprocess import run as preprocess
from clearway.preprocess.spec import Inputs as PreprocessInputs
from clearway.product import LoadedProduct

Ints = npt.NDArray[np.int64]

RELEASE = "backtest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Year:
    """All labelled rows in order of time.

    Args:
        labels: 0 or 1. [N]
        week: index of each row's batch, 0 to W - 1. [N]
        day: days since 1970. [N]
        batch_ids: names of the batches. [W]
        first_week: the first week a champion serves.
        label_lag: batches after which a batch's labels are known.
        name: of the rows, by what they were made of; see `kept`.
    """

    rows: pa.Table
    labels: Ints
    week: Ints
    day: Ints
    batch_ids: tuple[str, ...]
    first_week: int
    label_lag: int
    name: str

    @property
    def num_weeks(self) -> int:
        return len(self.batch_ids)

    @property
    def weeks(self) -> range:
        """Weeks that are served."""
        return range(self.first_week, self.num_weeks)

    @property
    def model_weeks(self) -> range:
        """Weeks after which a model may be made: the first champion's, then every week but the last."""
        return range(self.first_week - 1, self.num_weeks - 1)

    def training_rows(self, week: int, *, holdout_days: int) -> npt.NDArray[np.bool_]:
        """What a training decided with the batch of `week` sees: known labels without the newest days. [N]"""
        known = self.week <= week - self.label_lag
        newest = int(self.day[known].max())
        return known & (self.day <= newest - holdout_days)


def read_year(env: Environment, product: LoadedProduct, home: Path) -> Year:
    """Everything up to the product's last batch; landed and computed below `home` on the first call.

    Raises: ConfigError for a product without a last batch, or with too few before or after the first release.
    """
    clock, spec = product.spec.batch, product.spec
    if clock.last is None:
        raise ConfigError(
            f"product {product.name!r} has no `batch.last`, so its past has no end; name one to replay it"
        )
    name = rows_name(product)
    kept = home / "rows" / f"{name}.parquet"
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(_landed(env, product, home / "landed" / name, end=clock.last), kept)
    rows = pq.read_table(kept).sort_by([(TIME, "ascending")])
    names = rows[BATCH].cast(pa.string())
    batch_ids = tuple(sorted(pc.unique(names).to_pylist()))
    first = clock.batch_id(spec.release.first_end)
    if first not in batch_ids[1:-1]:
        raise ConfigError(f"{product.name!r} has no labelled rows before and after its first release ({first})")
    return Year(
        rows=rows,
        labels=rows[LABEL].to_numpy().astype(np.int64),
        week=pc.index_in(names, value_set=pa.array(batch_ids)).to_numpy().astype(np.int64),
        day=rows[DAY].cast(pa.int32()).to_numpy().astype(np.int64),
        batch_ids=batch_ids,
        first_week=batch_ids.index(first),
        label_lag=_label_lag(product),
        name=name,
    )


def _label_lag(product: LoadedProduct) -> int:
    """Whole batches that a label's delay takes."""
    clock = product.spec.batch
    batch_days = (clock.end_of(clock.first) - clock.first).days
    return -(-product.spec.tables[product.spec.tabular.label.table].delay_days // batch_days)


def _landed(env: Environment, product: LoadedProduct, home: Path, *, end: datetime) -> pa.Table:
    """Through the stages themselves, into a store of its own."""
    own = env.model_copy(update={"home": home, "storage": Storage(root=(home / "store").as_uri())})
    start = product.spec.batch.first.isoformat()
    landed = ingest.run(
        IngestInputs(product=product.name, release_id=RELEASE, start=start, end=end.isoformat()),
        product=product,
        env=own,
    )
    if landed.raw is None:
        raise ConfigError(f"nothing of {product.name!r} can be landed, so it has no past: {landed.reason}")
    made = preprocess.run(
        PreprocessInputs(product=product.name, release_id=RELEASE, raw=landed.raw, start=start),
        product=product,
        env=own,
    )
    storage, layout, label = (
        open_storage(own.store_root),
        Layout(own.store_root, product.name),
        product.spec.tabular.label,
    )
    document, key = open_dataset(storage, made.dataset), product.spec.features.key
    return read_labelled(storage, layout, document, table=label.table, key=key, column=label.column)
