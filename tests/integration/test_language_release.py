"""A product whose model reads text, in a running Airflow: from the package that carries its texts to live traffic."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

import http_kit
from clearway.infra.environment import project_root
from stack_kit import Stack, started

pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.airflow]

PRODUCT = "api_docs"
FIRST = "2016-01-01"
# The texts of the first nine years and a network that learns them in seconds.
SMALL = {"kind": "language", "context_length": 128, "num_layers": 2, "dim": 64, "num_heads": 2, "num_kv_heads": 1}
SMALL |= {"hidden_dim": 128, "num_epochs": 2, "lr": 0.006}


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("reader")
    shutil.copytree(project_root() / "tests" / "products" / PRODUCT, folder / "products" / PRODUCT)
    stack = Stack(folder / "home", products=folder / "products", product=PRODUCT)
    change(stack, model=SMALL, release={"first_end": FIRST})
    # The last batch is of a past quarter: no schedule lands a newer one meanwhile.
    change(stack, batch={"last": FIRST}, gates={"max_documents": 200, "num_resamples": 100})
    with started(stack):
        yield stack


def change(stack: Stack, **sections: dict[str, Any]) -> None:
    """Write other values into sections of product.yaml."""
    file = stack.product_folder / "product.yaml"
    spec = yaml.safe_load(file.read_text(encoding="utf-8"))
    for name, values in sections.items():
        spec[name] = spec.get(name, {}) | values
    file.write_text(yaml.safe_dump(spec), encoding="utf-8")


def test_a_model_of_texts_goes_from_its_package_to_live_traffic(reader: Stack) -> None:
    done = reader.clearway("release", "--product", PRODUCT, "--as-of", FIRST, "--run-id", "first")
    (release,) = done["releases"]
    assert (release["outcome"], release["served"]) == ("promoted", None), release["reason"]
    champion = reader.document().champion
    assert champion is not None and reader.traffic().weights_pct == {champion.digest: 100.0}
    body = {"instances": [{"text": "Lists the tags of a queue."}]}
    answer = http_kit.post(f"{reader.endpoint_url}/invocations", json=body).json()
    assert answer["model_digest"] == champion.digest
    assert 0 < answer["predictions"][0] < 8, "bits per byte"


def test_its_batches_land_and_nobody_says_that_they_are_watched(reader: Stack) -> None:
    dags = {dag["dag_id"] for dag in reader.call("GET", "/dags?limit=100")["dags"]}
    assert {f"{PRODUCT}_{kind}" for kind in ("ingest", "release", "rollback")} < dags
    assert f"{PRODUCT}_monitor" not in dags
    assert reader.clearway("replay", "--product", PRODUCT)["weeks"] == []
