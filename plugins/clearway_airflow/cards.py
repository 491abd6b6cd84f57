"""The few lines of each product.yaml that DAGs are drawn from.

Every task process parses the DAG file again, so this costs two milliseconds, not the thirty that loading and checking a
whole product takes. Checking happens in `python -m clearway product check` and in every job; here a card that cannot be
read is an import error of the DAG file, with file and key.
"""

import os
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import yaml

import clearway
from clearway.devices.want import Want

# Same clock as clearway.product.Batch.cron; a test holds them equal.
CRON = {"day": "0 0 * * *", "week": "0 0 * * 1", "month": "0 0 1 * *", "quarter": "0 0 1 1,4,7,10 *"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a DAG shows of its product, and when it runs.

    Args:
        first: start of the first batch, UTC.
        last: start of the last one, or None for a source that goes on.
        schedule: cron expression of regular releases, or None.
        want: what tuning and training need of shared devices.
    """

    name: str
    title: str
    description: str
    owners: tuple[str, ...]
    risk_tier: str
    every: str
    first: datetime
    last: datetime | None
    schedule: str | None
    want: Want

    @property
    def cron(self) -> str:
        """The batch clock as a cron expression."""
        return CRON[self.every]

    @property
    def owner(self) -> str:
        """Owners as Airflow shows them."""
        return ", ".join(self.owners)


def products_folder() -> Path:
    """Where products lie; CLEARWAY__PRODUCTS moves it, as it does for the jobs."""
    default = Path(clearway.__file__).resolve().parents[1] / "products"
    return Path(os.environ.get("CLEARWAY__PRODUCTS", default))


def read_cards(folder: Path) -> list[Card]:
    """Cards of all products below `folder`, by name. Raises: ValueError naming the file that has none."""
    return [read_card(path) for path in sorted(folder.glob("*/product.yaml"))]


def read_card(path: Path) -> Card:
    """The card of one product.yaml. Raises: ValueError naming the file."""
    raw = yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe
    try:
        return Card(
            name=raw["name"],
            title=raw["title"],
            description=raw["description"],
            owners=tuple(raw["owners"]),
            risk_tier=raw["risk_tier"],
            every=raw["batch"]["every"],
            first=_instant(raw["batch"]["first"]),
            last=_instant(raw["batch"]["last"]) if raw["batch"].get("last") else None,
            schedule=raw["release"].get("schedule"),
            want=Want(
                product=raw["name"],
                team=raw["owners"][0],
                risk_tier=raw["risk_tier"],
                **{key: value for key, value in raw.get("resources", {}).items() if key != "max_money"},
            ),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} lacks or misspells {error}; run: python -m clearway product check") from error


def _instant(value: str | date | datetime) -> datetime:
    instant = datetime.fromisoformat(str(value))
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
