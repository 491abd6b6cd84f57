"""How good is the model: train on all months before m, judge on month m, beside LightGBM on the same rows.

    python tests/benchmarks/bench_model_quality.py --home /tmp/quality --months 5 9

Lands and computes the whole year in `--home` once (about two minutes; a second run finds it). Prints AUC, log-loss and
CPU seconds of each, and the paired difference of log-loss with its 95 % interval by whole days: rows of one day are not
independent, so intervals by rows would be four to six times too narrow. The last line takes all months of `--keep`
together, also those of earlier runs; months may be run side by side, and a run with `--months` alone prints that line.

LightGBM stands there twice: with the settings of the flights study, and with the best of ten that were tried on four
forward folds of January to March, where the product's own settings were chosen too.
"""
# ruff: noqa: T201

import argparse
import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from clearway.infra.datasets import DAY, KEY, LABEL, open_dataset, read_labelled
from clearway.infra.environment import Environment
from clearway.infra.layout import Layout
from clearway.infra.storage import open_storage
from clearway.ingest import run as ingest
from clearway.ingest.spec import Inputs as IngestInputs
from clearway.launch.backtest.models import TREES
from clearway.measures import binary
from clearway.packaging.encoder import Encoder
from clearway.preprocess import run as preprocess
from clearway.preprocess.spec import Inputs as PreprocessInputs
from clearway.product import LoadedProduct, Model
from clearway.product_yaml import find_product
from clearway.tabular.fit import CPU, Rows, World, fit, has_fast_bfloat16, make_deterministic
from clearway.tabular.model import predict, shape_of
from clearway.tabular.training_set import encode, make_training_set

# Found by the flights study on other months; one seed.
STUDY = TREES
# The best of 22 tried on forward folds of January to March.
TUNED = STUDY | {"learning_rate": 0.015, "max_bin": 63, "feature_fraction": 0.25, "bagging_fraction": 0.4}
REFERENCES = {"study": (STUDY, 300), "tuned": (TUNED, 600)}
NUM_DRAWS = 1000
YEAR_END = "2013-12-30T00:00:00Z"


def rows_of_the_year(env: Environment, product: LoadedProduct) -> pa.Table:
    """Labelled rows, with the month of the local departure date (the key starts with it)."""
    start = product.spec.batch.first.isoformat()
    landed = ingest.run(
        IngestInputs(product=product.name, release_id="bench", start=start, end=YEAR_END), product=product, env=env
    )
    made = preprocess.run(
        PreprocessInputs(product=product.name, release_id="bench", raw=landed.raw, start=start),
        product=product,
        env=env,
    )
    storage, layout, label = open_storage(env.store_root), Layout(env.store_root, product.name), product.spec.label
    document, key = open_dataset(storage, made.dataset), product.spec.features.key
    rows = read_labelled(storage, layout, document, table=label.table, key=key, column=label.column)
    return rows.append_column("month", pc.cast(pc.utf8_slice_codeunits(rows[KEY], 5, 7), pa.int32()))


def torch_scores(
    train: pa.Table, test: pa.Table, product: LoadedProduct, settings: Model, num_threads: int
) -> np.ndarray:
    """Scores of the product's own model for the test rows."""
    made = make_training_set(train, features=product.spec.features, model=settings, num_threads=num_threads)
    shape = shape_of(settings, num_numeric=made.bins.num_columns, cardinalities=made.encoder.cardinalities)
    rows = Rows(**{name: torch.from_numpy(value) for name, value in made.arrays.items()})
    world = World(is_bfloat16=has_fast_bfloat16(CPU))
    fitted = fit(rows, shape, settings, world=world, keeping=None, should_stop=lambda: False)
    return predict(fitted.model, encode(made.bins, *made.encoder.encode_table(test))).astype(np.float64)


def lightgbm_scores(
    train: pa.Table, test: pa.Table, product: LoadedProduct, reference: str, num_threads: int
) -> np.ndarray:
    """Scores of a reference on the same columns."""
    features = product.spec.features
    encoder = Encoder.fit(train, numeric=features.numeric, categorical=features.categorical, min_count=20)
    inputs, tests = (np.concatenate(encoder.encode_table(table), axis=1) for table in (train, test))
    categorical = list(range(len(features.numeric), inputs.shape[1]))
    settings, num_trees = REFERENCES[reference]
    settings = settings | {"num_threads": num_threads}
    data = lightgbm.Dataset(inputs, train[LABEL].to_numpy(), categorical_feature=categorical, params=settings)
    return np.asarray(lightgbm.train(settings, data, num_trees).predict(tests))


def measured(make: Callable[[], np.ndarray], labels: np.ndarray) -> tuple[np.ndarray, dict[str, float]]:
    """Scores with their quality and the CPU seconds of this process they took."""
    before = os.times()
    scores = make()
    after = os.times()
    return scores, {
        "auc": round(binary.auc(labels, scores), 4),
        "log_loss": round(binary.log_loss(labels, scores), 4),
        "cpu_s": round(after.user + after.system - before.user - before.system, 1),
    }


def losses(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Log-loss of each row."""
    clipped = np.clip(scores, binary.SCORE_EPSILON, 1 - binary.SCORE_EPSILON)
    return -np.where(labels == 1, np.log(clipped), np.log1p(-clipped))


def interval(differences: np.ndarray, days: np.ndarray) -> dict[str, float]:
    """Mean of the rows' differences, and its 95 % interval over resampled days."""
    _, day = np.unique(days, return_inverse=True)
    sums, counts = np.bincount(day, differences), np.bincount(day)
    draws = np.random.default_rng(0).integers(0, len(sums), (NUM_DRAWS, len(sums)))
    low, high = np.quantile(sums[draws].sum(1) / counts[draws].sum(1), [0.025, 0.975])
    return {"mean": round(sums.sum() / counts.sum(), 5), "low": round(low, 5), "high": round(high, 5)}


def judge_month(
    rows: pa.Table, month: int, product: LoadedProduct, settings: Model, num_threads: int
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """One line of the table, and what the line over all months is made of."""
    train, test = rows.filter(pc.less(rows["month"], month)), rows.filter(pc.equal(rows["month"], month))
    labels, days = test[LABEL].to_numpy(), test[DAY].cast(pa.int32()).to_numpy()
    ours, torch_line = measured(lambda: torch_scores(train, test, product, settings, num_threads), labels)
    line: dict[str, Any] = {"month": month, "num_train": len(train), "num_test": len(test), "torch": torch_line}
    kept = {"days": days}
    for name in REFERENCES:
        make = functools.partial(lightgbm_scores, train, test, product, name, num_threads)
        trees, line[name] = measured(make, labels)
        kept[name] = losses(labels, ours) - losses(labels, trees)
        line[f"torch - {name}, log-loss"] = interval(kept[name], days)
    return line, kept


def together(folder: Path) -> dict[str, Any]:
    """All months that were kept: the mean of the months, and the interval over all their days."""
    kept = [np.load(path) for path in sorted(folder.glob("month-*.npz"))]
    days = np.concatenate([found["days"] for found in kept])
    return {"months": len(kept), "num_days": len(np.unique(days))} | {
        f"torch - {name}, log-loss": interval(np.concatenate([found[name] for found in kept]), days)
        | {"mean of months": round(float(np.mean([found[name].mean() for found in kept])), 5)}
        for name in REFERENCES
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True, help="where landed data and features are kept")
    parser.add_argument("--months", type=int, nargs="*", default=[5, 9])
    parser.add_argument("--keep", type=Path, help="folder for differences by row; default: below --home")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--set", nargs="*", default=[], help="model fields, e.g. num_members=3 hidden=[384,384,384]")
    args = parser.parse_args()
    home = args.home.resolve()
    env = Environment.load({"CLEARWAY__HOME": str(home), "CLEARWAY__STORAGE__ROOT": (home / "store").as_uri()})
    product = find_product(env.products, "flights")
    changes = {name: json.loads(value) for name, value in (text.split("=", 1) for text in args.set)}
    settings = Model.model_validate(product.spec.tabular.model.model_dump() | changes)
    make_deterministic(args.threads)
    keep = args.keep or home / "quality"
    keep.mkdir(parents=True, exist_ok=True)
    rows = rows_of_the_year(env, product) if args.months else None
    for month in args.months:
        line, kept = judge_month(rows, month, product, settings, args.threads)
        np.savez(keep / f"month-{month:02}.npz", **kept)
        print(json.dumps(line), flush=True)
    print(json.dumps(together(keep)), flush=True)


if __name__ == "__main__":
    main()
