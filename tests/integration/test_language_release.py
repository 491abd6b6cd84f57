"""A product whose model reads text, in a running Airflow: from the package that carries its texts to live traffic."""

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import yaml

import http_kit
from clearway.infra.environment import project_root
from clearway.infra.storage import to_path
from stack_kit import Stack, started

pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.airflow]

PRODUCT = "api_docs"
FIRST = "2016-01-01"
# The texts of the first nine years and a network that learns them in seconds.
SMALL = {"kind": "language", "context_length": 128, "num_layers": 2, "dim": 64, "num_heads": 2, "num_kv_heads": 1}
SMALL |= {"hidden_dim": 128, "num_epochs": 2, "lr": 0.006}
# A text takes some milliseconds here, on a busy machine many times that; slowness is no part of the story.
CANARY = {"strategy": "canary", "steps_pct": [50, 100], "min_requests": 30, "min_step_s": 1.0}
MIN_TEXTS = 20
PAUSE_S = 0.02  # between a caller's requests
CANARY |= {"error_margin": 0.2, "slow_s": 10.0, "slow_margin": 0.3}


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("reader")
    shutil.copytree(project_root() / "tests" / "products" / PRODUCT, folder / "products" / PRODUCT)
    stack = Stack(folder / "home", products=folder / "products", product=PRODUCT)
    change(stack, model=SMALL, release={"first_end": FIRST})
    # The last batch is of a past quarter: no schedule lands a newer one meanwhile.
    change(stack, batch={"last": FIRST}, gates={"max_documents": 200, "num_resamples": 100}, rollout=CANARY)
    change(stack, monitor={"min_rows": MIN_TEXTS})
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


@contextmanager
def callers(stack: Stack) -> Iterator[list[dict[str, Any]]]:
    """One who asks for texts of its own, a sticky key each, for the length of a block; yields the answers."""
    answers, stop = list[dict[str, Any]](), threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=stack.endpoint_url, timeout=http_kit.PATIENCE_S) as client:
            while not stop.is_set():
                number = len(answers)
                body = {"instances": [{"text": f"Returns the policy of queue {number} in this account."}]}
                answer = client.post("/invocations", json=body, headers={"x-clearway-sticky-key": f"reader-{number}"})
                answers.append(answer.json())
                stop.wait(PAUSE_S)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield answers
    finally:
        stop.set()
        thread.join(http_kit.PATIENCE_S)


def test_a_better_reader_takes_the_traffic_by_its_own_verdict(reader: Stack) -> None:
    before = reader.document().champion
    assert before is not None
    change(reader, model={"num_epochs": 3})
    with callers(reader) as answers:
        done = reader.clearway("release", "--product", PRODUCT, "--as-of", FIRST, "--run-id", "second")
    release = done["releases"][-1]
    assert (release["run_id"], release["outcome"]) == ("second", "promoted"), release["reason"]
    champion = reader.document().champion
    assert champion is not None and champion.digest != before.digest
    assert reader.traffic().weights_pct == {champion.digest: 100.0}
    # While it was tried, some callers were answered by it and some by the one before; none was refused.
    assert {answer["model_digest"] for answer in answers} == {before.digest, champion.digest}
    rollout = reader.outputs("release", "second", "deploy")
    assert "errors: no harm" in rollout["reason"], rollout["reason"]


def test_a_landed_quarter_is_read_watched_and_decided_on(reader: Stack) -> None:
    dags = {dag["dag_id"] for dag in reader.call("GET", "/dags?limit=100")["dags"]}
    assert {f"{PRODUCT}_{kind}" for kind in ("ingest", "release", "monitor", "rollback")} < dags
    known = reader.runs("monitor")
    (quarter,) = reader.clearway("replay", "--product", PRODUCT, "--weeks", "1")["weeks"]
    assert (quarter["batch_id"], quarter["is_landed"]) == (FIRST, True)
    (run,) = reader.runs("monitor") - known
    champion = reader.document().champion
    assert champion is not None
    served = reader.outputs("monitor", run, "serve")
    assert (served["digest"], served["num_rows"]) == (champion.digest, served["num_sent"])
    assert served["num_rows"] > MIN_TEXTS
    watched = reader.outputs("monitor", run, "monitor")
    surprise = json.loads(to_path(watched["summary_uri"]).read_bytes())["surprise"]
    assert (surprise["num_judged"], surprise["num_unanswered"]) == (served["num_rows"], 0)
    assert 0 < surprise["measured"]["lower"] < surprise["measured"]["bits_per_byte"] < surprise["measured"]["upper"] < 8
    assert not watched["retrain"], "a single window never retrains"
    assert "What the texts cost" in to_path(watched["report_uri"]).read_text(encoding="utf-8")
