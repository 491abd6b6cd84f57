"""An evaluation killed at every fault point, then run again: the same bytes, the same digest, the same verdict."""

import dataclasses
import shutil
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest

from clearway.contracts.verdict import Verdict
from clearway.evaluate import ahead
from clearway.evaluate.run import run
from clearway.evaluate.spec import YardsticksInputs
from clearway.infra.environment import Environment
from clearway.infra.layout import Layout
from clearway.infra.storage import join, to_path
from clearway.product import LoadedProduct
from evaluate_kit import evaluate_inputs
from kill_kit import contents, killed_then_again, points_of, run_child
from serving_kit import make_package, variables_of

pytestmark = pytest.mark.slow


def _is_timed(uri: str) -> bool:
    return uri.endswith(("timings.json", "report.html"))  # milliseconds of this very run


def test_killed_at_any_point_and_run_again_gives_the_undisturbed_evaluation(
    env: Environment, product: LoadedProduct, make_world
) -> None:
    world = make_world()
    # Rejected, so that verdict, checks and reasons all have something to say.
    model = world.package(weights=np.array([1.0, -0.8, 0.5, 1.0, 0.9, 0.0]))
    inputs = evaluate_inputs(world.dataset, model, product=product, env=env)
    folder = Layout(env.store_root, "flights").release("r1")
    calm = run(inputs, product=product, env=env)
    before, names = contents(env, folder, but=_is_timed), set(contents(env, folder))
    points = [point for point in points_of("evaluate") if point.startswith("evaluate.")]
    assert points
    for point in points:
        shutil.rmtree(to_path(join(folder, "evaluate")))
        again = killed_then_again("evaluate", inputs, product=product, env=env, fault=f"{point}=kill")
        assert again["evaluation_digest"] == calm.evaluation_digest, point
        assert (again["verdict"], again["reason"]) == (calm.verdict.value, calm.reason), point
        assert contents(env, folder, but=_is_timed) == before, point
        assert set(contents(env, folder)) == names, point


def test_yardsticks_killed_before_they_are_written_are_the_same_when_run_again(
    env: Environment, product: LoadedProduct, make_world
) -> None:
    inputs = YardsticksInputs(product="flights", release_id="r1", dataset=make_world().dataset)
    again = killed_then_again("yardsticks", inputs, product=product, env=env, fault="yardsticks.before_write=kill")
    calm = ahead.run(dataclasses.replace(inputs, release_id="r2"), product=product, env=env)
    assert again["yardsticks"]["digest"] == calm.yardsticks.digest


def test_a_model_server_that_is_killed_while_it_is_asked_leaves_no_verdict(
    env: Environment, product: LoadedProduct, make_world
) -> None:
    """The server inherits the fault and dies as it loads the candidate; that says nothing about the candidate."""
    world = make_world()
    inputs = evaluate_inputs(world.dataset, world.package(), product=product, env=env)
    killed = run_child("evaluate", inputs, product=product, env=env, fault="storage.before_rename=kill")
    assert killed.returncode == 1, killed.stderr[-2000:]
    assert "clearway.contracts.errors.Unavailable: model server" in killed.stderr
    assert contents(env, Layout(env.store_root, "flights").release("r1", "evaluate")) == {}
    assert run(inputs, product=product, env=env).verdict is Verdict.PASS


HOLDS_A_SERVER = """
import time
from clearway.evaluate.live import model_server
from clearway.infra.clock import SystemClock
from clearway.infra.environment import Environment
with model_server(Environment.load(), product="flights", clock=SystemClock()) as ready:
    print(ready()._url, flush=True)
    time.sleep(600)
"""


def test_a_killed_evaluation_leaves_no_model_server_behind(env: Environment) -> None:
    make_package(env, 0.1)  # makes the keys
    command = [sys.executable, "-c", HOLDS_A_SERVER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=variables_of(env)) as holder:
        assert holder.stdout is not None
        url = holder.stdout.readline().strip()
        with urllib.request.urlopen(f"{url}/healthz", timeout=60) as answer:
            assert answer.status == 200
        holder.kill()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{url}/healthz", timeout=60).close()
        except OSError:
            return
        time.sleep(0.05)
    pytest.fail(f"the server at {url} outlives the evaluation that started it")
