"""The newest rows against the champion's training data: what is compared, what is said, and that it never decides."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from clearway.contracts.refs import DatasetRef
from clearway.contracts.verdict import Check, Verdict, judge
from clearway.infra.datasets import KEY, open_dataset, read_features
from clearway.infra.environment import Environment
from clearway.infra.layout import Layout
from clearway.infra.storage import open_storage
from clearway.measures.distance import build_reference
from clearway.packaging.encoder import Encoder
from clearway.packaging.package import Package
from clearway.product import LoadedProduct
from clearway.validate.against_reference import reference_checks

OLD, NEW = "2012-12-31", "2013-01-07"
NUM_TRAINING_BATCHES = 8
# Half of the 85 numbers and a few more: beyond `share_over_limit` of the flights product.
MANY = 60


@pytest.fixture
def weekly(product: LoadedProduct) -> LoadedProduct:
    """Flights whose holdout is one batch, so that the newest batch alone is compared."""
    release = product.spec.release.model_copy(update={"holdout_days": 7})
    return product.model_copy(update={"spec": product.spec.model_copy(update={"release": release})})


@pytest.fixture
def champion(env: Environment, product: LoadedProduct, make_dataset) -> Callable[..., Package]:
    """A champion trained on rows like those of an unedited dataset, spread evenly over some batches."""

    def make(*, num_batches: int = NUM_TRAINING_BATCHES, **only: tuple[str, ...]) -> Package:
        storage, layout = open_storage(env.store_root), Layout(env.store_root, product.name)
        table = read_features(storage, layout, open_dataset(storage, make_dataset()))
        batch = pa.array([f"b{i % num_batches}" for i in range(len(table))])
        kinds = {"numeric": product.spec.features.numeric, "categorical": product.spec.features.categorical} | only
        reference = build_reference(
            table.append_column("training_batch", batch), **kinds, batch_column="training_batch"
        )
        encoder = Encoder.fit(table, **kinds, min_count=1)
        return Package(
            uri="file:///m",
            digest="c" * 64,
            encoder=encoder,
            schema={},
            reference=reference,
            golden={},
            facts={},
            files={},
        )

    return make


@pytest.fixture
def checks(env: Environment, weekly: LoadedProduct) -> Callable[..., dict[str, Check]]:
    """The stage's comparison of a dataset with a champion, by check name."""

    def make(dataset: DatasetRef, package: Package | None, product: LoadedProduct = weekly) -> dict[str, Check]:
        storage, layout = open_storage(env.store_root), Layout(env.store_root, product.name)
        document = open_dataset(storage, dataset)
        found = reference_checks(storage, layout, document, champion=package, product=product.spec)
        return {c.name: c for c in found}

    return make


def _shifted(product: LoadedProduct, *, batch: str, num_features: int) -> Callable:
    """An edit: in one batch, the first numbers lie a hundred of their usual spreads higher."""

    def edit(columns: dict[str, pa.Array], batch_id: str) -> dict[str, pa.Array]:
        moved = product.spec.features.numeric[:num_features] if batch_id == batch else ()
        return columns | {name: pa.array(np.asarray(columns[name]) + 1_000.0) for name in moved}

    return edit


def test_without_a_champion_there_is_nothing_to_compare_and_it_says_so(make_dataset, checks) -> None:
    (check,) = checks(make_dataset(), None).values()
    assert (check.verdict, check.is_decisive, check.value) == (Verdict.PASS, False, None)
    assert "no champion yet" in check.reason


def test_rows_like_those_of_training_are_no_news(make_dataset, checks, champion, product: LoadedProduct) -> None:
    found = checks(make_dataset(), champion())
    share, missing = found["distribution_vs_champion"], found["missing_vs_champion"]
    assert (share.verdict, missing.verdict) == (Verdict.PASS, Verdict.PASS)
    assert share.value is not None
    assert share.value < product.spec.monitor.share_over_limit == share.bound
    compared = len(product.spec.features.columns) - len(product.spec.monitor.ignore)
    assert f" of {compared} features" in share.reason
    assert missing.value == 0.0


def test_drift_is_reported_by_name_and_never_decides(make_dataset, checks, champion, product: LoadedProduct) -> None:
    package = champion()
    found = checks(make_dataset(_shifted(product, batch=NEW, num_features=MANY)), package)
    share = found["distribution_vs_champion"]
    assert (share.verdict, share.is_decisive) == (Verdict.FAIL, False)
    assert share.value is not None
    assert share.value > 0.5
    assert any(name in share.reason for name in product.spec.features.numeric[:MANY])
    sound = Check(name="rows", verdict=Verdict.PASS)
    assert judge([sound, *found.values()]).verdict is Verdict.PASS


def test_only_the_newest_batches_are_read(make_dataset, checks, champion, product: LoadedProduct) -> None:
    package = champion()
    old = checks(make_dataset(_shifted(product, batch=OLD, num_features=MANY)), package)
    assert old["distribution_vs_champion"].verdict is Verdict.PASS
    # A holdout of both batches reads both.
    both = checks(make_dataset(_shifted(product, batch=OLD, num_features=MANY)), package, product)
    assert both["distribution_vs_champion"].verdict is Verdict.FAIL


def test_a_feature_that_goes_missing_is_named(make_dataset, checks, champion) -> None:
    def emptied(columns: dict[str, pa.Array], batch_id: str) -> dict[str, pa.Array]:
        return columns | {"humid": pa.nulls(len(columns[KEY]), pa.float64())} if batch_id == NEW else columns

    package = champion()
    missing = checks(make_dataset(emptied), package)["missing_vs_champion"]
    assert (missing.verdict, missing.is_decisive, missing.value) == (Verdict.FAIL, False, 1.0)
    assert "humid" in missing.reason


def test_ignored_features_raise_no_alarm(make_dataset, checks, champion, weekly: LoadedProduct) -> None:
    names = weekly.spec.features.numeric[:MANY]
    monitor = weekly.spec.monitor.model_copy(update={"ignore": names})
    deaf = weekly.model_copy(update={"spec": weekly.spec.model_copy(update={"monitor": monitor})})
    package = champion()
    dataset = make_dataset(_shifted(weekly, batch=NEW, num_features=MANY))
    assert checks(dataset, package, deaf)["distribution_vs_champion"].verdict is Verdict.PASS


def test_features_that_only_one_of_the_two_has_are_left_out(make_dataset, checks, champion) -> None:
    package = champion(numeric=("precip", "humid"), categorical=())
    entry = package.reference["features"]["humid"]
    extra = package.reference | {"features": package.reference["features"] | {"dropped_since": entry}}
    found = checks(make_dataset(), dataclasses.replace(package, reference=extra))
    assert " of 2 features" in found["distribution_vs_champion"].reason


@pytest.mark.parametrize("nothing", ["one training batch", "no shared feature", "all ignored"])
def test_a_comparison_of_nothing_is_no_pass(
    make_dataset, checks, champion, weekly: LoadedProduct, nothing: str
) -> None:
    product, package = weekly, champion(num_batches=1 if nothing == "one training batch" else NUM_TRAINING_BATCHES)
    if nothing == "no shared feature":
        package = dataclasses.replace(package, reference=package.reference | {"features": {}})
    if nothing == "all ignored":
        monitor = weekly.spec.monitor.model_copy(update={"ignore": weekly.spec.features.columns})
        product = weekly.model_copy(update={"spec": weekly.spec.model_copy(update={"monitor": monitor})})
    found = checks(make_dataset(), package, product)
    assert [(c.verdict, c.is_decisive) for c in found.values()] == [(Verdict.INCONCLUSIVE, False)] * 2
