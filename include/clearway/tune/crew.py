"""The workers of a study on this machine: this very process, or as many as asked, each replaced when it dies."""

import logging
import subprocess
import sys
import time
from pathlib import Path

from clearway.contracts.errors import JobFailed
from clearway.infra.environment import Environment
from clearway.infra.jobs.processes import child_variables
from clearway.tune.brief import Brief
from clearway.tune.journal import Journal
from clearway.tune.worker import MAX_ATTEMPTS, work

LOG = logging.getLogger("clearway.tune")
POLL_S = 0.05


def run_crew(brief: Brief, folder: Path, *, env: Environment) -> None:
    """Return when every task has ended or the budget is spent.

    Raises: JobFailed (a rerun goes on) if workers keep dying and nothing ends meanwhile, or if one fails.
    """
    if brief.num_workers == 1:
        work(folder)
        return
    crew = [_start(brief, folder, env) for _ in range(brief.num_workers)]
    try:
        _watch(crew, brief, folder, env)
    finally:
        for worker in crew:
            worker.kill()  # of one that has ended: nothing
            worker.wait()


def _watch(crew: list["subprocess.Popen[bytes]"], brief: Brief, folder: Path, env: Environment) -> None:
    journal, num_deaths, num_ended = Journal(folder), 0, 0
    while any(worker.poll() != 0 for worker in crew):
        for place, worker in enumerate(crew):
            code = worker.poll()
            if code is not None and code > 0:
                raise JobFailed(
                    f"a worker of the study in {folder} failed (exit code {code}); its error is in this log, above"
                )
            if code is not None and code < 0:
                before, num_ended = num_ended, len(journal.ended())
                num_deaths = num_deaths + 1 if num_ended == before else 1
                LOG.warning("a worker was killed by signal %d; another takes its place", -code)
                if num_deaths > MAX_ATTEMPTS * len(crew):
                    raise JobFailed(
                        f"workers of the study in {folder} died {num_deaths} times and no trial ended meanwhile; free "
                        f"memory or lower jobs.num_tune_workers (now {len(crew)}), then run the stage again"
                    )
                crew[place] = _start(brief, folder, env)
        time.sleep(POLL_S)


def _start(brief: Brief, folder: Path, env: Environment) -> "subprocess.Popen[bytes]":
    jobs = env.jobs.model_copy(update={"num_threads": brief.num_threads})
    variables = child_variables(env.model_copy(update={"jobs": jobs}), None)
    command = [sys.executable, "-m", "clearway.tune.worker", str(folder)]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, env=variables)  # noqa: S603 - our own module and a path
