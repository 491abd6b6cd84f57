"""What every worker of a study is given: one file beside the journal, written once, and the rows to map into memory."""

import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from clearway.contracts.codec import from_jsonable, to_jsonable
from clearway.contracts.manifest import canonical_json
from clearway.product import LoadedProduct
from clearway.product_tune import Tune
from clearway.tune.agenda import Pace, Task, agenda, lag_of, population_of
from clearway.tune.windows import Window

BRIEF, ROWS = "study.json", "rows.arrow"
OPTUNA = "Optuna"  # who chooses what trials try, unless another is named


@dataclass(frozen=True, slots=True, kw_only=True)
class Brief:
    """Everything that decides what a study tries and finds.

    Args:
        champion: the model parameters that serve now, as far as they are searched, {} if nothing serves.
        num_trials: as asked, or fewer where a grid has fewer points.
        num_workers: decides how much a trial knows of the ones before it (agenda.py), however many really work.
        num_threads: of each worker; sums depend on it.
        price_per_hour: of the machine.
        searcher: who chose what the trials try, in words.
    """

    product: LoadedProduct
    champion: dict[str, float]
    windows: tuple[Window, ...]
    num_trials: int
    num_workers: int
    num_threads: int
    price_per_hour: float
    searcher: str = OPTUNA

    @property
    def tune(self) -> Tune:
        return self.product.spec.tune

    @property
    def as_written(self) -> dict[str, float]:
        """The product's own values of what is searched."""
        return {name: getattr(self.product.spec.model, name) for name in sorted(self.tune.space)}

    @property
    def seeds(self) -> tuple[dict[str, float], ...]:
        """What the first trials try."""
        return (self.as_written, self.champion) if self.champion else (self.as_written,)

    @property
    def pace(self) -> Pace:
        population = population_of(len(self.tune.space), self.num_workers)
        return Pace(num_seeds=len(self.seeds), lag=lag_of(self.num_workers), population=population)

    @property
    def refresh_every(self) -> int:
        """Trials per window; all of them where the rows give no second one."""
        return self.tune.refresh_every if len(self.windows) > 1 else self.num_trials

    def tasks(self) -> tuple[Task, ...]:
        return agenda(self.tune, num_trials=self.num_trials, refresh_every=self.refresh_every, pace=self.pace)

    def window(self, task: Task) -> Window:
        """Of a task's round; after the last window the first is taken again."""
        return self.windows[task.round % len(self.windows)]

    def to_json(self) -> bytes:
        own = {name: to_jsonable(getattr(self, name)) for name in _PLAIN}
        return canonical_json(own | {"product": self.product.model_dump(mode="json", by_alias=True)})

    @classmethod
    def from_json(cls, data: bytes) -> "Brief":
        raw = json.loads(data)
        return cls(
            product=LoadedProduct.model_validate(raw["product"]),
            champion=raw["champion"],
            windows=tuple(from_jsonable(Window, window) for window in raw["windows"]),
            num_trials=raw["num_trials"],
            num_workers=raw["num_workers"],
            num_threads=raw["num_threads"],
            price_per_hour=raw["price_per_hour"],
            searcher=raw["searcher"],
        )


_PLAIN = ("champion", "windows", "num_trials", "num_workers", "num_threads", "price_per_hour", "searcher")


def read_brief(folder: Path) -> Brief:
    return Brief.from_json((folder / BRIEF).read_bytes())


def write_rows(rows: pa.Table, folder: Path) -> None:
    """Replace the file of rows atomically; not synced, since after a power loss it is made again."""
    temporary = (folder / ROWS).with_suffix(".tmp")
    with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, rows.schema) as file:
        file.write_table(rows)
    temporary.replace(folder / ROWS)


def read_rows(folder: Path) -> pa.Table:
    """The rows, mapped: all workers share one copy in memory."""
    with pa.memory_map(str(folder / ROWS)) as source:
        return pa.ipc.open_file(source).read_all()
