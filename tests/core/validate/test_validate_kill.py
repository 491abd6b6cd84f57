"""Validation killed at every fault point, then run again: the receipt and the pages of an undisturbed run."""

import shutil

import pytest

from clearway.infra.environment import Environment
from clearway.infra.layout import Layout
from clearway.infra.storage import to_path
from clearway.product import LoadedProduct
from clearway.validate.run import run
from clearway.validate.spec import Inputs
from kill_kit import contents, killed_then_again, points_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning"),
]


def _is_data_docs(uri: str) -> bool:
    return uri.endswith("data-docs.html")  # Great Expectations writes the time of its run into it


def test_killed_at_any_point_and_run_again_leaves_the_undisturbed_receipt(
    env: Environment, product: LoadedProduct, make_dataset
) -> None:
    dataset = make_dataset()
    inputs = Inputs(product="flights", release_id="r1", dataset=dataset)
    layout = Layout(env.store_root, "flights")
    calm = run(inputs, product=product, env=env)
    assert calm.receipt_uri is not None, calm.reason

    def left() -> dict[str, bytes]:
        receipts = contents(env, calm.receipt_uri.rpartition("/")[0])
        return {**contents(env, layout.release("r1"), but=_is_data_docs), **receipts}

    before, points = left(), points_of("validate")
    assert len(before) == 2, "a receipt and a report"
    assert points
    for point in points:
        to_path(calm.receipt_uri).unlink()
        shutil.rmtree(to_path(layout.release("r1")))
        again = killed_then_again("validate", inputs, product=product, env=env, fault=f"{point}=kill")
        told = again["verdict"], again["receipt_uri"], again["report_uri"]
        assert told == ("pass", calm.receipt_uri, calm.report_uri), point
        assert left() == before, point
