"""A feature that knows the future is found, whichever way it came to know; honest features pass."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from clearway.contracts.errors import LeakError
from clearway.infra.environment import Environment
from clearway.ingest.spec import Outputs as Landed
from clearway.preprocess.leaks import LeakReport, check_leaks
from clearway.product import LoadedProduct
from clearway.product_yaml import load_product

PRODUCTS = Path(__file__).parents[2] / "products"
WEEKS = {"start": "2013-01-14", "end": "2013-02-11"}
MONTHS = {"start": "2012-01-01", "end": "2012-06-01"}


def edited(product: LoadedProduct, tmp_path: Path, old: str, new: str) -> LoadedProduct:
    """The product with one line of its feature function changed."""
    folder = tmp_path / product.name
    shutil.copytree(product.folder, folder)
    source = folder / "features.py"
    text = source.read_text()
    assert old in text
    source.write_text(text.replace(old, new))
    return load_product(folder)


def test_honest_features_of_the_rain_product_pass(
    rain: LoadedProduct, env: Environment, land: Callable[..., Landed]
) -> None:
    raw = land(rain, env, **MONTHS).raw
    assert raw is not None
    report = check_leaks(raw, product=rain, env=env, batch_id="2012-04-01", num_moments=3)
    assert isinstance(report, LeakReport)
    assert (report.num_rows, report.num_columns, len(report.moments)) == (3, 14, 3)


def test_a_day_that_has_not_ended_is_the_future(
    rain: LoadedProduct, env: Environment, land: Callable[..., Landed], tmp_path: Path
) -> None:
    product = edited(rain, tmp_path, 'seconds("day_end").alias(WHEN)', '(seconds("day_end") - 86400).alias(WHEN)')
    raw = land(product, env, **MONTHS).raw
    assert raw is not None
    with pytest.raises(LeakError, match="temp_mean_7d"):
        check_leaks(raw, product=product, env=env, batch_id="2012-04-01", num_moments=3)


@pytest.mark.slow
def test_honest_features_of_flights_pass(flights: LoadedProduct, env: Environment, land: Callable[..., Landed]) -> None:
    raw = land(flights, env, **WEEKS).raw
    assert raw is not None
    report = check_leaks(raw, product=flights, env=env, batch_id="2013-02-04", num_moments=2)
    assert report.num_rows >= 50
    assert report.num_columns == len(flights.spec.features.columns)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new", "leaking"),
    [
        pytest.param(
            '"weekday": F.pmod(day + 3, F.lit(7)),',
            '"weekday": F.coalesce(F.col("dep_delay"), F.lit(0)),',
            "weekday",
            id="own_delay",
        ),
        pytest.param(
            'F.col("left").alias(WHEN)',
            'F.col("sched").alias(WHEN)',
            "origin_delay_2h",
            id="delay_known_before_leaving",
        ),
        pytest.param(
            'seconds("time_utc").alias(WHEN)',
            '(seconds("time_utc") - 7200).alias(WHEN)',
            "temp",
            id="weather_at_departure",
        ),
    ],
)
def test_a_planted_leak_is_found(
    flights: LoadedProduct,
    env: Environment,
    land: Callable[..., Landed],
    tmp_path: Path,
    old: str,
    new: str,
    leaking: str,
) -> None:
    product = edited(flights, tmp_path, old, new)
    raw = land(product, env, **WEEKS).raw
    assert raw is not None
    with pytest.raises(LeakError, match=leaking):
        check_leaks(raw, product=product, env=env, batch_id="2013-02-04", num_moments=2)


@pytest.mark.slow
def test_the_command_says_what_it_compared(tmp_path: Path) -> None:
    variables = {**os.environ, "CLEARWAY__HOME": str(tmp_path), "CLEARWAY__PRODUCTS": str(PRODUCTS)}
    command = [
        sys.executable,
        "-m",
        "clearway",
        "leaks",
        "--json",
        "--product",
        "seattle_rain",
        "--batch",
        "2012-03-01",
    ]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["num_columns"] == 14
