"""What the reconciler finds over all stages."""

import json
import sys
import time
from pathlib import Path

from clearway import reconcile
from clearway.infra.clock import FakeClock
from clearway.infra.environment import Environment
from clearway.infra.jobs import JobSpec, JobState
from clearway.infra.jobs.local import LocalJobs
from clearway.product import LoadedProduct


def test_a_fresh_product_has_lost_nothing(env: Environment, flights: LoadedProduct) -> None:
    assert reconcile.lost_decisions(env, flights) == []
    assert reconcile.stop_unwatched_jobs(env) == []


def test_a_job_is_stopped_only_after_nobody_looked_for_long(env: Environment, tmp_path: Path) -> None:
    script = tmp_path / "stage.py"
    script.write_text("import time; time.sleep(60)")
    jobs = LocalJobs(env, command=(sys.executable, str(script)))
    job_id = jobs.submit(JobSpec(stage="train", inputs_json=json.dumps({}), key="train-1"))
    jobs.read_log(job_id, 0)
    soon, late = FakeClock(at_s=time.time() + 60), FakeClock(at_s=time.time() + 3600)
    assert reconcile.stop_unwatched_jobs(env, clock=soon) == []
    assert jobs.state(job_id) is JobState.RUNNING
    assert reconcile.stop_unwatched_jobs(env, clock=late) == [job_id]
    assert jobs.state(job_id) is JobState.FAILED
