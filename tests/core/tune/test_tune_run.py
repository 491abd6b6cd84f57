"""The stage as a whole: skipped where none is asked for, never worse than what was written, on record where it ran."""

import json
import subprocess
import sys

import pytest
from mlflow import MlflowClient

from clearway.contracts.errors import IntegrityError
from clearway.infra.storage import to_path
from clearway.tabular.training_set import settings_of
from clearway.tune.run import run
from clearway.tune.spec import Inputs
from training_kit import STORAGE, World
from tune_kit import SPACE, make_study

# MLflow 3.17 on SQLAlchemy 2.1; nothing of ours.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


def inputs_of(world: World) -> Inputs:
    given = world.inputs()
    return Inputs(product="flights", release_id="r1", dataset=given.dataset, receipt_uri=given.receipt_uri)


def test_no_study_asked_for_is_no_work(world: World):
    code = """
import sys, json
from clearway.tune import run
assert not {"torch", "optuna", "pandas", "mlflow"} & set(sys.modules), "heavy import"
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    outputs = run(inputs_of(world), product=world.product, env=world.env)
    assert (outputs.num_trials, outputs.params, outputs.report_uri) == (0, {}, "")
    assert not STORAGE.list(world.layout.release("r1"))


def test_no_study_without_a_receipt(world: World):
    to_path(world.inputs().receipt_uri).unlink()
    with pytest.raises(IntegrityError, match="receipt"):
        run(inputs_of(world), product=world.product, env=world.env)


@pytest.mark.slow
def test_a_study_finds_parameters_that_training_accepts_and_leaves_a_page_and_a_run(env, flights):
    study = make_study(env, flights, num_trials=12, cost="multiply_adds")
    outputs = run(study.inputs, product=study.product, env=study.env)
    assert outputs.num_trials == 12
    assert set(outputs.params) == set(SPACE)
    assert settings_of(study.product, outputs.params).lr > 2e-3
    assert "12 trials found better than product.yaml" in outputs.reason
    page = STORAGE.read(outputs.report_uri).decode()
    for heading in ("History", "Importance", "Parallel coordinates", "Cost and quality", "Validation windows"):
        assert f"<h2>{heading}</h2>" in page
    assert "<script" not in page and "http://" not in page and outputs.reason in page

    client = MlflowClient(study.env.tracking_uri)
    (found,) = client.search_runs([client.get_experiment_by_name("flights").experiment_id])
    assert found.data.tags["clearway.stage"] == "tune"
    assert json.loads(found.data.params["chosen.num_bins"]) == outputs.params["num_bins"]
    assert len(client.get_metric_history(found.info.run_id, "log_loss")) == 12
    artifact = found.info.artifact_uri
    assert to_path(f"{artifact}/study.html").read_text() == page

    assert not list(study.folder.parent.rglob("rows.arrow")), "rows are kept no longer than they are needed"
    assert run(study.inputs, product=study.product, env=study.env) == outputs
