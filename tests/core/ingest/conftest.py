"""A small product whose deliveries a test writes by hand: one CSV per day."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from clearway.infra.environment import Environment
from clearway.ingest.run import run
from clearway.ingest.spec import Inputs, Outputs
from clearway.product import LoadedProduct
from clearway.product_yaml import load_product

PRODUCT = """
name: shop
title: Sales
description: Sales of a shop.
owners: [tests]
risk_tier: low
source:
  kind: files
  uri: inbox
  format: csv
  files: {sales: "sales-{batch_id}.csv", results: "results.csv"}
tables:
  sales:
    time: sold_at
    key: [key]
    min_rows: 2
    columns: {key: string, sold_at: timestamp, amount: float, pieces: int}
  results:
    time: sold_at
    delay_days: 1
    key: [key]
    columns: {key: string, sold_at: timestamp, returned: int}
batch: {every: day, first: 2024-01-01}
label: {table: results, column: returned}
features: {function: features.py:build, key: key, time: sold_at, lookback_days: 1, numeric: [amount]}
validate: {expectations: [{expect: column_values_to_not_be_null, args: {column: key}}]}
gates: {auc_floor: 0.5, auc_ceiling: 1.0}
release: {first_end: 2024-01-04, holdout_days: 1}
"""
HEADER = "key,sold_at,amount,pieces"


def line(day: int, number: int, *, amount: str = "9.5", pieces: str = "1") -> str:
    """One sale of January 2024."""
    return f"{day:02d}-{number},2024-01-{day:02d}T1{number}:00:00Z,{amount},{pieces}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """The product, its environment, and the hands of whoever delivers."""

    product: LoadedProduct
    env: Environment

    def deliver(self, day: int, *lines: str, header: str = HEADER) -> None:
        file = self.product.folder / "inbox" / f"sales-2024-01-{day:02d}.csv"
        file.write_text("\n".join((header, *lines)) + "\n")

    def deliver_well(self, *days: int) -> None:
        for day in days:
            self.deliver(day, line(day, 1), line(day, 2), line(day, 3))

    def ingest(self, first: int, last: int) -> Outputs:
        """Land the days `first` to `last`."""
        inputs = Inputs(
            product="shop", release_id="r", start=f"2024-01-{first:02d}", end=f"2024-01-{last + 1:02d}T00:00:00Z"
        )
        return run(inputs, product=self.product, env=self.env)

    def files(self, part: str) -> list[Path]:
        """Files below a part of the store, e.g. `quarantine`."""
        return sorted(p for p in (self.env.home / "store" / "shop" / part).rglob("*") if p.is_file())


@pytest.fixture
def shop(env: Environment, tmp_path: Path) -> Shop:
    folder = tmp_path / "shop"
    (folder / "inbox").mkdir(parents=True)
    (folder / "product.yaml").write_text(PRODUCT)
    (folder / "features.py").write_text("")
    days = [f"{day:02d}-{n},2024-01-{day:02d}T1{n}:00:00Z,0" for day in range(1, 10) for n in (1, 2, 3)]
    (folder / "inbox" / "results.csv").write_text("\n".join(("key,sold_at,returned", *days)) + "\n")
    return Shop(product=load_product(folder), env=env)
