"""A product: one model and everything it needs, described by include/products/<name>/product.yaml.

Text from outside enters here and nowhere else: closed pydantic models, strict YAML (product_yaml.py). Defaults carry
the source of their value.
"""

import importlib.util
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic_core import PydanticKnownError

from clearway.contracts.errors import ConfigError
from clearway.product_gates import AnyGates, Gates
from clearway.product_language import Language, LanguageGates
from clearway.product_monitor import Monitor
from clearway.product_part import MAX_SEED, Part, Share, kind_of_section
from clearway.product_resources import Resources
from clearway.product_rollout import Rollout
from clearway.product_source import Source
from clearway.product_teacher import Teacher
from clearway.product_tune import Tune

Text = Annotated[str, pydantic.Field(min_length=1)]
Name = Annotated[str, pydantic.Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
# Part of variables' names, which two underscores would end, and of endpoints' names.
ProductName = Annotated[str, pydantic.Field(pattern=r"^[a-z][a-z0-9]*(_[a-z0-9]+)*$", max_length=40)]
FunctionPath = Annotated[str, pydantic.Field(pattern=r"^[a-z][a-z0-9_]*\.py:[a-z_][a-z0-9_]*$")]
CRON = {"day": "0 0 * * *", "week": "0 0 * * 1", "month": "0 0 1 * *", "quarter": "0 0 1 1,4,7,10 *"}


def _parsed(value: Any) -> Any:
    """A bare date is its midnight."""
    if not isinstance(value, str):
        return value
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(f"{value!r} is no instant; allowed: 2013-01-31 or 2013-01-31T12:00:00Z") from None


def _in_utc(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


# An aware UTC instant, written as a date or as ISO 8601; text without an offset is read as UTC.
Instant = Annotated[
    datetime,
    pydantic.BeforeValidator(_parsed),
    pydantic.AfterValidator(_in_utc),
    pydantic.WithJsonSchema({"type": "string", "anyOf": [{"format": "date"}, {"format": "date-time"}]}),
]


class ColumnType(StrEnum):
    """Types a landed table may declare."""

    STRING = "string"
    INT = "int"
    FLOAT = "float"
    BOOL = "bool"
    TIMESTAMP = "timestamp"  # microseconds, UTC


class Table(Part):
    """One landed table.

    `time`: column that places a row in a batch interval (UTC); None for a reference table, landed whole each time.
    `delay_days`: rows become known this much later, so a batch carries the rows of the interval shifted back by it.
    `key`: columns that identify a row, unique within a batch.
    `columns`: exact schema; an extra nullable column is tolerated and dropped, any other difference quarantines the
    batch.
    `min_rows`: fewer rows than this mark a truncated batch.
    `is_planned`: rows are known ahead of their `time` (a schedule); otherwise a row is known from its `time` on.
    `events`: instant column → columns that nobody knows before that instant.
    """

    columns: dict[str, ColumnType] = pydantic.Field(min_length=1)
    time: str | None = None
    delay_days: int = pydantic.Field(0, ge=0)
    key: tuple[str, ...] = ()
    min_rows: int = pydantic.Field(1, ge=1)
    is_planned: bool = False
    events: dict[str, tuple[str, ...]] = pydantic.Field(default_factory=dict)

    @pydantic.model_validator(mode="after")
    def _columns_exist(self) -> "Table":
        named = (self.time, *self.key, *self.events, *(c for columns in self.events.values() for c in columns))
        if len(set(self.key)) < len(self.key):
            raise ValueError(f"key {list(self.key)} names a column twice; name each once")
        if self.time is None and (self.delay_days or self.is_planned or self.events):
            raise ValueError("delay_days, is_planned and events are about rows in time, and time is not set; set it")
        unknown = {c for c in named if c is not None} - set(self.columns)
        if unknown:
            raise ValueError(
                f"time, key or events name columns {sorted(unknown)} that are not declared; "
                f"declared: {sorted(self.columns)}"
            )
        return self


class Batch(Part):
    """The batch clock: intervals [start, end) in UTC. `first` must lie on the clock (weeks start on Monday).

    `last`: start of the last batch of a source that has ended; the schedule stops after it.
    """

    every: Literal["day", "week", "month", "quarter"]
    first: Instant
    last: Instant | None = None

    @pydantic.field_validator("first", "last")
    @classmethod
    def _on_the_clock(cls, start: datetime | None, info: pydantic.ValidationInfo) -> datetime | None:
        every = info.data.get("every", "day")
        if start is not None and _floor(start, every) != start:
            nearest = _floor(start, every).strftime("%Y-%m-%d")
            raise ValueError(f"{start.isoformat()} is not the start of a {every} in UTC; the one before is {nearest}")
        return start

    @property
    def cron(self) -> str:
        """The same clock as a cron expression (UTC)."""
        return CRON[self.every]

    def end_of(self, start: datetime) -> datetime:
        """End of the interval that starts at `start`."""
        if self.every in {"month", "quarter"}:
            reach_days = 32 if self.every == "month" else 95  # into the first month after it, however long they are
            return (start.replace(day=1) + timedelta(days=reach_days)).replace(day=1)
        return start + timedelta(days={"day": 1, "week": 7}[self.every])

    def batch_id(self, start: datetime) -> str:
        """Name of the interval that starts at `start`: its date. Raises: ConfigError for an instant off the clock."""
        if _floor(start, self.every) != start:
            raise ConfigError(
                f"instant {start.isoformat()} does not start a {self.every}; the clock is {self.cron!r} in UTC"
            )
        return start.strftime("%Y-%m-%d")

    def start_of(self, batch_id: str) -> datetime:
        """Inverse of `batch_id`. Raises: ConfigError."""
        try:
            start = datetime.strptime(batch_id, "%Y-%m-%d").replace(tzinfo=UTC)
        except ValueError as error:
            raise ConfigError(f"batch id {batch_id!r} is no date; allowed: YYYY-MM-DD") from error
        self.batch_id(start)
        return start

    def intervals(self, start: datetime, end: datetime) -> list[tuple[datetime, datetime]]:
        """Whole intervals inside [start, end). Raises: ConfigError if `start` is off the clock."""
        self.batch_id(start)
        found = []
        while (stop := self.end_of(start)) <= end:
            found.append((start, stop))
            start = stop
        return found

    def back(self, start: datetime, days: int) -> datetime:
        """Start of the earliest interval that overlaps the `days` before `start`, not before `first`."""
        return max(self.first, _floor(start - timedelta(days=days), self.every)) if days else start


def _floor(instant: datetime, every: str) -> datetime:
    day = instant.replace(hour=0, minute=0, second=0, microsecond=0)
    if every == "week":
        return day - timedelta(days=day.weekday())
    if every == "quarter":
        return day.replace(month=(day.month - 1) // 3 * 3 + 1, day=1)
    return day.replace(day=1) if every == "month" else day


class Label(Part):
    """What is predicted: a 0/1 column of a landed table, joined to the features by the product's key."""

    table: Name
    column: str


class Features(Part):
    """What the model sees.

    `function`: Spark code, (tables) → DataFrame with `key`, `time` and every column below; no label, no denied column.
    `lookback_days`: raw history the function may use; a batch recomputes that and no more.
    `lead_hours`: a row is predicted this long before its `time`; nothing later may enter.
    `slices`: categorical columns whose values the gates look at one by one.
    `text`: the column a language model reads, one document per row; it is landed as tokens too.
    """

    function: FunctionPath
    key: str
    time: str
    lookback_days: int = pydantic.Field(ge=0)
    lead_hours: float = pydantic.Field(0.0, ge=0, le=8784)
    numeric: tuple[str, ...]
    categorical: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    slices: tuple[str, ...] = ()
    text: str | None = None

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> "Features":
        names = [*self.columns, *([self.text] if self.text else [])]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(f"columns {twice} are listed twice; list each once under numeric, categorical or text")
        if len(set(self.slices)) < len(self.slices):
            raise ValueError(f"slices {list(self.slices)} name a column twice; name each once")
        denied = sorted(set(names) & set(self.deny))
        if denied:
            raise ValueError(f"columns {denied} are both features and denied; remove them from one list")
        strange = sorted(set(self.slices) - set(self.categorical))
        if strange:
            raise ValueError(f"slices {strange} are not categorical features; allowed: {sorted(self.categorical)}")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """Model inputs in their fixed order: numeric, then categorical."""
        return (*self.numeric, *self.categorical)


class Expectation(Part):
    """One Great Expectations rule: class name in snake_case (without `expect_`) and its arguments."""

    expect: Annotated[str, pydantic.Field(pattern=r"^[a-z_]+$")]
    args: dict[str, Any] = pydantic.Field(default_factory=dict)


class Validation(Part):
    """Own checks first, then the Great Expectations suite.

    `min_completeness`: lowest share of non-null values per column, default for columns not in `completeness`.
    """

    min_rows: int = pydantic.Field(1, ge=1)
    min_completeness: Share = 0.0
    completeness: dict[str, Share] = pydantic.Field(default_factory=dict)
    expectations: tuple[Expectation, ...] = pydantic.Field(min_length=1)


class Model(Part):
    """The tabular torch model: category embeddings, piecewise-linear numeric encoding, a small ensemble of MLPs.

    Defaults suit a hundred thousand rows with a hundred columns: chosen on flights, where fewer steps, a smaller
    learning rate or more dropout all left the model underfitted; see docs/reference/flights.md.

    `teacher`: trees that the network learns from instead of labels; None for labels.
    """

    kind: Literal["tabular"] = "tabular"
    num_bins: int = pydantic.Field(48, ge=2, le=256)
    numeric_dim: int = pydantic.Field(4, ge=1, le=64)
    embedding_dim: int = pydantic.Field(8, ge=1, le=64)
    hidden: tuple[Annotated[int, pydantic.Field(ge=1, le=16_384)], ...] = (192, 192)
    num_members: int = pydantic.Field(4, ge=1, le=16)
    dropout: float = pydantic.Field(0.15, ge=0, lt=1)
    lr: float = pydantic.Field(3e-3, gt=0, le=1)
    weight_decay: float = pydantic.Field(0.03, ge=0)
    batch_size: int = pydantic.Field(256, ge=1)
    num_epochs: int = pydantic.Field(2, ge=1)
    teacher: Teacher | None = None
    seed: int = pydantic.Field(2013, ge=0, le=MAX_SEED)
    checkpoint_s: float = pydantic.Field(5.0, gt=0)


AnyModel = Annotated[
    Annotated[Model, pydantic.Tag("tabular")] | Annotated[Language, pydantic.Tag("language")],
    pydantic.Discriminator(kind_of_section),
]


class Release(Part):
    """When and on what a release trains.

    `first_end`: end of the first release's data. `holdout_days`: newest labelled days, judged on, never trained on.
    """

    first_end: Instant
    holdout_days: int = pydantic.Field(14, ge=1)
    schedule: str | None = None


class Tabular(Part):
    """The parts that come with a tabular model."""

    label: Label
    model: Model
    gates: Gates


class OfLanguage(Part):
    """The parts that come with a language model. `text`: the column it reads."""

    text: str
    model: Language
    gates: LanguageGates


class Product(Part):
    """All of product.yaml."""

    name: ProductName
    title: Text
    description: Text
    owners: tuple[Text, ...] = pydantic.Field(min_length=1)
    risk_tier: Literal["low", "medium", "high"]
    source: Source
    shape: FunctionPath | None = None
    tables: dict[Name, Table] = pydantic.Field(min_length=1)
    batch: Batch
    features: Features
    validate_: Validation = pydantic.Field(alias="validate")
    model: AnyModel = Model()
    label: Label | None = pydantic.Field(None, validate_default=True)
    tune: Tune = Tune()
    resources: Resources = Resources()
    gates: AnyGates | None = pydantic.Field(None, validate_default=True)
    release: Release
    rollout: Rollout = Rollout()
    monitor: Monitor = Monitor()

    @pydantic.field_validator("label")
    @classmethod
    def _label_fits_the_model(cls, value: Label | None, info: pydantic.ValidationInfo) -> Label | None:
        model = info.data.get("model")
        if value is None and isinstance(model, Model):
            raise PydanticKnownError("missing")
        if value is not None and isinstance(model, Language):
            raise ValueError("is of a tabular model, the model section says kind: language; remove one of the two")
        return value

    @pydantic.field_validator("gates")
    @classmethod
    def _gates_fit_the_model(cls, value: AnyGates | None, info: pydantic.ValidationInfo) -> AnyGates | None:
        model = info.data.get("model")
        if value is None and model is not None:
            raise PydanticKnownError("missing")
        if value is not None and model is not None and value.kind != model.kind:
            raise ValueError(
                f"is of a {value.kind} model, the model section says kind: {model.kind}; write the same kind in both"
            )
        return value

    @pydantic.model_validator(mode="after")
    def _text_is_read(self) -> "Product":
        if (self.features.text is None) is isinstance(self.model, Language):
            raise ValueError(
                f"features.text is {self.features.text!r} and model.kind is {self.model.kind!r}; a language model "
                "reads one text column, a tabular model none"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _blocks_are_a_column(self) -> "Product":
        block = self.gates.block if isinstance(self.gates, LanguageGates) else None
        if block is not None and block not in self.features.categorical:
            raise ValueError(
                f"gates.block is {block!r}, which is no categorical feature; "
                f"allowed: {sorted(self.features.categorical)}"
            )
        return self

    @property
    def tabular(self) -> "Tabular":
        """What only a product with a tabular model has. Raises: ConfigError for another kind."""
        if not isinstance(self.model, Model) or not isinstance(self.gates, Gates) or self.label is None:
            raise ConfigError(f"product {self.name!r} has a {self.model.kind} model, and this step is for tabular ones")
        return Tabular(label=self.label, model=self.model, gates=self.gates)

    @property
    def language(self) -> "OfLanguage":
        """What only a product with a language model has. Raises: ConfigError for another kind."""
        text = self.features.text
        if not isinstance(self.model, Language) or not isinstance(self.gates, LanguageGates) or text is None:
            raise ConfigError(
                f"product {self.name!r} has a {self.model.kind} model, and this step is for language models"
            )
        return OfLanguage(text=text, model=self.model, gates=self.gates)

    @property
    def functions(self) -> tuple[str, ...]:
        """Every `file.py:function` beside product.yaml that the product uses."""
        return tuple(path for path in (self.shape, self.features.function) if path is not None)

    @property
    def needs_person(self) -> bool:
        """Whether a person approves each release: every tier but the lowest."""
        return self.risk_tier != "low"


class LoadedProduct(Part):
    """A product with the folder it came from; what every stage is handed."""

    spec: Product
    folder: Path
    digest: str

    @property
    def name(self) -> str:
        return self.spec.name

    def function(self, path: str) -> Callable[..., Any]:
        """A function of a Python file beside product.yaml, e.g. `features.py:build`. Raises: ConfigError."""
        file, _, name = path.partition(":")
        location = self.folder / file
        if not location.is_file():
            raise ConfigError(
                f"{path!r} of product {self.name!r} has no file {location}; create it or correct product.yaml"
            )
        module_name = f"clearway_product_{self.name}_{location.stem}"
        spec = importlib.util.spec_from_file_location(module_name, location)
        if spec is None or spec.loader is None:
            raise ConfigError(f"{location} cannot be loaded as Python; it must be a plain .py file")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found = getattr(module, name, None)
        if not callable(found):
            public = sorted(n for n in vars(module) if not n.startswith("_"))
            raise ConfigError(f"{location} has no function {name!r}; names there: {public}")
        return found  # type: ignore[no-any-return]
