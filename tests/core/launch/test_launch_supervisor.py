"""The supervisor, with processes that only wait in place of the stack's."""

import subprocess
import sys

from clearway.launch.database import mark_migrated
from clearway.launch.paths import StackPaths

# In a process of its own: a supervisor takes signals, adopts orphans, and ends all that descends from it.
RUN = """
import sys
from pathlib import Path
from clearway.infra.clock import SystemClock
from clearway.launch.components import Component
from clearway.launch.paths import StackPaths
from clearway.launch.ports import Ports
from clearway.launch.supervisor import Supervisor

wait = (sys.executable, "-c", "import time; time.sleep(600)")
supervisor = None

def on_change(state):
    if all(component.pid for component in state.components):
        supervisor.request_stop()

supervisor = Supervisor(
    [Component(name=name, command=wait) for name in ("endpoint-flights", "mlflow")],
    paths=StackPaths(home=Path(sys.argv[1]), root=Path(sys.argv[1])),
    ports=Ports(airflow=1, mlflow=1, endpoint=1),
    endpoints={"flights": 1},
    env={},
    notes=(),
    clock=SystemClock(),
    on_change=on_change,
)
sys.exit(supervisor.run())
"""


def test_a_stack_without_a_warm_worker_is_looked_at_and_stopped(tmp_path):
    paths = StackPaths(home=tmp_path, root=tmp_path)
    paths.make()
    mark_migrated(paths)
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
