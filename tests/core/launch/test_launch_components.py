"""Which processes a stack has."""

from clearway.launch.components import components
from clearway.launch.paths import StackPaths
from clearway.launch.ports import Ports


def wanted(tmp_path, **more):
    found = components(
        ports=Ports(), paths=StackPaths(home=tmp_path, root=tmp_path), **{"endpoints": {"flights": 8890}} | more
    )
    return {component.name: component for component in found}


def test_those_that_start_work_are_stopped_before_those_that_it_needs(tmp_path):
    found = wanted(tmp_path)
    assert {name for name, part in found.items() if part.starts_work} == {
        "callers",
        "warm-worker",
        "scheduler",
        "triggerer",
    }
    assert set(found) >= {"api-server", "dag-processor", "mlflow", "endpoint-flights"}


def test_each_product_has_a_server_and_all_have_the_same_callers(tmp_path):
    found = wanted(tmp_path, endpoints={"flights": 8890, "rain": 8891})
    assert found["endpoint-flights"].command[-4:] == ("--product", "flights", "--port", "8890")
    assert found["endpoint-rain"].command[-4:] == ("--product", "rain", "--port", "8891")
    assert found["callers"].command[-4:] == ("--product", "flights", "--product", "rain")


def test_models_that_are_served_elsewhere_have_no_server_and_no_stand_ins_for_callers(tmp_path):
    assert set(wanted(tmp_path)) - set(wanted(tmp_path, endpoints={})) == {"endpoint-flights", "callers"}


def test_nothing_is_kept_warm_for_jobs_that_run_elsewhere(tmp_path):
    assert set(wanted(tmp_path)) - set(wanted(tmp_path, has_local_jobs=False)) == {"warm-worker"}
