"""The DAGs as Airflow gets them: complete, serialisable, the same for every product, cheap to import."""

import airflow_kit  # noqa: F401, I001 - sets AIRFLOW_HOME before Airflow is imported

import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from airflow.sdk import DAG
from airflow.sdk.exceptions import ParamValidationError
from airflow.serialization.serialized_objects import DagSerialization
from clearway_airflow.cards import read_cards
from clearway_airflow.factory import build_dags

from clearway.devices.want import pool_of
from clearway.infra.environment import Environment, project_root
from clearway.product import Batch, LoadedProduct
from clearway.release import BATCH, RELEASE

MAX_TASKS = 12
# Measured 0.04 (50 ms beside 1.2 s of CPU): a heavy package would at least double it.
MAX_OF_AIRFLOW = 0.08
PRODUCTS = project_root() / "include" / "products"
KINDS = ("ingest", "release", "monitor", "rollback")


@pytest.fixture(scope="module")
def products(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demonstration product and a second one, made by adding a folder and nothing else."""
    folder = tmp_path_factory.mktemp("products")
    shutil.copytree(PRODUCTS / "flights", folder / "flights")
    text = (PRODUCTS / "flights" / "product.yaml").read_text(encoding="utf-8")
    (folder / "trains").mkdir()
    (folder / "trains" / "product.yaml").write_text(text.replace("name: flights", "name: trains", 1), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def dags(products: Path) -> dict[str, DAG]:
    return build_dags(products)


def test_every_product_gets_the_same_dags(dags: dict[str, DAG]) -> None:
    expected = {f"{name}_{kind}" for name in ("flights", "trains") for kind in KINDS}
    assert set(dags) == expected | {"clearway_reconcile"}
    for kind in KINDS:
        assert dags[f"flights_{kind}"].task_ids == dags[f"trains_{kind}"].task_ids


def test_a_product_without_a_label_is_watched_too() -> None:
    found = {dag_id for dag_id in build_dags(project_root() / "tests" / "products") if dag_id.startswith("api_docs")}
    assert found == {f"api_docs_{kind}" for kind in KINDS}


def test_training_takes_turns_in_a_pool_that_the_settings_make(dags: dict[str, DAG], env: Environment) -> None:
    pools = {task.task_id: task.pool for task in dags["flights_release"].tasks}
    heavy = {name for name, pool in pools.items() if pool != "default_pool"}
    settings = yaml.safe_load((project_root() / "airflow_settings.yaml").read_text(encoding="utf-8"))
    assert heavy == {"tune", "train"}
    assert {pools[name] for name in heavy} == {entry["pool_name"] for entry in settings["airflow"]["pools"]}
    assert {entry["pool_name"]: entry["pool_slot"] for entry in settings["airflow"]["pools"]} == {
        pool_of(name): device.slots for name, device in env.devices.classes.items()
    }


@pytest.mark.parametrize(
    ("kind", "tasks"),
    [
        ("ingest", ["ingest", "batches"]),
        ("release", [*(step.name for step in RELEASE), "champion"]),
        ("monitor", [*(step.name for step in BATCH), "retrain"]),
        ("rollback", ["revert", "champion"]),
    ],
)
def test_tasks_form_one_chain_in_the_order_of_the_core(dags: dict[str, DAG], kind: str, tasks: list[str]) -> None:
    dag = dags[f"flights_{kind}"]
    chain = [task.task_id for task in dag.roots]
    while following := dag.get_task(chain[-1]).downstream_task_ids - {"yardsticks"}:
        chain += sorted(following)
    assert chain == [task for task in tasks if task != "yardsticks"]
    assert len(dag.tasks) == len(tasks) <= MAX_TASKS


def test_yardsticks_are_fitted_while_a_candidate_is_trained(dags: dict[str, DAG]) -> None:
    task = dags["flights_release"].get_task("yardsticks")
    assert (task.upstream_task_ids, task.downstream_task_ids) == ({"validate"}, {"evaluate"})


def test_every_dag_says_who_what_and_since_when(dags: dict[str, DAG]) -> None:
    for dag in dags.values():
        assert dag.doc_md
        assert dag.tags
        assert dag.start_date is not None
        assert dag.catchup is False
        assert dag.max_active_runs == 1
        for task in dag.tasks:
            assert task.retries >= 1
            assert task.owner not in {"airflow", ""}


def test_every_dag_survives_serialisation(dags: dict[str, DAG]) -> None:
    for dag in dags.values():
        back = DagSerialization.from_dict(DagSerialization.to_dict(dag))
        assert set(back.task_dict) == set(dag.task_dict)


def test_assets_tie_the_dags_together(dags: dict[str, DAG]) -> None:
    def outlets(dag_id: str) -> set[str]:
        return {outlet.name for task in dags[dag_id].tasks for outlet in task.outlets}

    def triggers(dag_id: str) -> set[str]:
        back = DagSerialization.from_dict(DagSerialization.to_dict(dags[dag_id]))
        return {key.name for key, _ in back.timetable.asset_condition.iter_assets()}

    assert "flights_batches" in outlets("flights_ingest")
    assert triggers("flights_monitor") == {"flights_batches"}
    assert "flights_retrain" in outlets("flights_monitor")
    assert triggers("flights_release") == {"flights_retrain", "flights_arrivals"}
    assert outlets("flights_release") == {"flights_champion"}


def test_the_schedule_of_a_finished_source_ends(dags: dict[str, DAG], flights: LoadedProduct) -> None:
    assert dags["flights_ingest"].end_date == flights.spec.batch.last
    assert dags["flights_release"].end_date is None


def test_what_the_trigger_forms_offer_is_what_they_take(dags: dict[str, DAG]) -> None:
    offered = {i: dag.params.validate() for i, dag in dags.items()}
    assert offered["flights_release"] == {"as_of": "", "approval": "default", "reason": ""}


def test_the_trigger_form_refuses_what_is_no_date_or_approval(dags: dict[str, DAG]) -> None:
    params = dags["flights_release"].params
    for name, value in (("as_of", "soon"), ("as_of", "2013-04-01; drop"), ("approval", "yes")):
        with pytest.raises(ParamValidationError):
            params.get_param(name).resolve(value)
    for text in ("", "2013-04-01", "2013-04-01T00:00:00Z"):
        assert params.get_param("as_of").resolve(text) == text


def test_cards_say_what_the_checked_product_says(flights: LoadedProduct) -> None:
    (card,) = [c for c in read_cards(PRODUCTS) if c.name == "flights"]
    spec = flights.spec
    assert (card.title, card.owners, card.risk_tier) == (spec.title, spec.owners, spec.risk_tier)
    assert (card.first, card.last, card.schedule) == (spec.batch.first, spec.batch.last, spec.release.schedule)
    assert card.cron == spec.batch.cron


@pytest.mark.parametrize("every", ["day", "week", "month"])
def test_cards_know_every_batch_clock(every: str, tmp_path: Path) -> None:
    text = (PRODUCTS / "flights" / "product.yaml").read_text(encoding="utf-8")
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "product.yaml").write_text(text.replace("every: week", f"every: {every}", 1))
    first = {"day": "2013-01-01", "week": "2012-12-31", "month": "2013-01-01"}[every]
    assert read_cards(tmp_path)[0].cron == Batch.model_validate({"every": every, "first": first}).cron


def test_an_unreadable_product_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "product.yaml").write_text("name: broken\n")
    with pytest.raises(ValueError, match=r"broken/product\.yaml lacks or misspells 'title'"):
        read_cards(tmp_path)


IMPORT = """
import sys, time
begin = time.process_time()
import airflow.sdk
known, between = set(sys.modules), time.process_time()
sys.path[:0] = ["dags", "plugins"]
import clearway_dags
print((time.process_time() - between) / (between - begin))
heavy = {"torch", "pyspark", "pandas", "great_expectations", "mlflow", "evidently", "boto3", "numpy", "pyarrow"}
print(sorted(heavy & set(sys.modules) - known))
"""


def _import_all_dags() -> tuple[float, str]:
    command = [sys.executable, "-c", IMPORT]
    done = subprocess.run(command, cwd=project_root(), capture_output=True, text=True, check=True, timeout=60)
    ratio, heavy = done.stdout.strip().splitlines()[-2:]
    return float(ratio), heavy


@pytest.mark.slow
def test_importing_all_dags_costs_little_and_loads_nothing_heavy() -> None:
    # Shared cores stretch both imports of a run alike, and their ratio little.
    runs = [_import_all_dags() for _ in range(5)]
    assert {heavy for _, heavy in runs} == {"[]"}
    assert statistics.median(ratio for ratio, _ in runs) < MAX_OF_AIRFLOW
