"""Which processes a stack has."""

from clearway.launch.components import STOP_ORDER, components
from clearway.launch.paths import StackPaths
from clearway.launch.ports import Ports


def names(tmp_path, **more):
    found = components(ports=Ports(), paths=StackPaths(home=tmp_path, root=tmp_path), product="flights", **more)
    return [component.name for component in found]


def test_every_component_has_its_place_in_the_order_of_stopping(tmp_path):
    assert sorted(names(tmp_path)) == sorted(STOP_ORDER)


def test_nothing_is_kept_warm_for_jobs_that_run_elsewhere(tmp_path):
    assert set(names(tmp_path)) - set(names(tmp_path, has_local_jobs=False)) == {"warm-worker"}
