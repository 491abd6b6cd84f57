"""Jobs forked from a warm worker, and all that can go wrong with it: no job is lost, doubled or left unseen."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from clearway.infra.environment import Environment
from clearway.infra.jobs import JobState
from clearway.infra.jobs.local import LocalJobs, jobs_folder
from clearway.infra.jobs.processes import child_variables, processes_of
from clearway.infra.jobs.start import SOCKET, connection, is_listening
from clearway.launch.commands.warm_worker import LIBRARIES
from jobs_kit import STAGE, end_all, finish, folder_of, spec_of, starts, wait_until, warm_worker, why_cold

# Says what it is made of, so that two ways of starting it can be compared.
LOOK = """
import json, os, signal, sys, threading
_, stage, _, inputs_file, _, outputs_file = sys.argv
names = {"log", "outputs.json", "alive.lock", "inputs.json"}
seen = {
    "argv": [a.rpartition("/")[2] for a in sys.argv], "name": __name__, "file": __file__, "path": sys.path,
    "cwd": os.getcwd(), "umask": os.umask(0o22), "leads": os.getsid(0) == os.getpid() == os.getpgid(0),
    "variables": {k: v for k, v in os.environ.items() if k not in ("CLEARWAY_JOB", "PYTEST_CURRENT_TEST")},
    "signals": [str(signal.getsignal(n)) for n in (1, 2, 13, 15, 17)], "threads": threading.active_count(),
    "own": sorted(m for m in sys.modules if m.startswith("clearway")),
    "files": sorted({os.readlink(f"/proc/self/fd/{fd}").rpartition("/")[2] for fd in (0, 1, 2)}),
    "keeps_lock": "alive.lock" in [os.path.realpath(f"/proc/self/fd/{n}")[-10:] for n in os.listdir("/proc/self/fd")],
}
print("looked")
open(outputs_file, "w").write(json.dumps(seen, sort_keys=True))
"""


LISTEN_AS_NOBODY = """
import os, socket, sys, time
os.chdir(sys.argv[1])
line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
line.bind("warm.sock")
os.setuid(65534)
line.listen()
print("listens", flush=True)
time.sleep(60)
"""

ANSWER_TIMEOUT_S = "clearway.infra.jobs.start.ANSWER_TIMEOUT_S"


@pytest.fixture(autouse=True)
def _a_busy_machine_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ANSWER_TIMEOUT_S, 60.0)


@pytest.fixture(autouse=True)
def _no_job_is_left(env: Environment) -> Iterator[None]:
    yield
    end_all(env.home)


@pytest.fixture
def jobs(env: Environment, tmp_path: Path) -> LocalJobs:
    (tmp_path / "stage.py").write_text(STAGE)
    return LocalJobs(env, command=(sys.executable, str(tmp_path / "stage.py")))


@pytest.fixture
def worker(env: Environment) -> Iterator["subprocess.Popen[bytes]"]:
    with warm_worker(env) as found:
        yield found


@pytest.fixture
def go(tmp_path: Path) -> Path:
    return tmp_path / "go"


def test_a_fork_is_the_same_process_as_a_new_interpreter(env: Environment, tmp_path: Path) -> None:
    (tmp_path / "look.py").write_text(LOOK)
    jobs = LocalJobs(env, command=(sys.executable, str(tmp_path / "look.py")))
    cold = jobs.submit(spec_of(tmp_path, key="cold"))
    with warm_worker(env):
        warm = jobs.submit(spec_of(tmp_path, key="warm"))
        seen = [json.loads(finish(jobs, job_id)) for job_id in (cold, warm)]
        assert jobs.read_log(warm, 0) == jobs.read_log(cold, 0) == ("looked\n", len("looked\n"))
    assert "no answer" in why_cold(tmp_path, cold)
    assert why_cold(tmp_path, warm) == ""
    assert seen[1] == seen[0]
    assert seen[0]["keeps_lock"]
    assert seen[0]["own"] == []


def test_edited_code_of_our_own_is_read_by_the_next_job(
    env: Environment, worker: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stage.py").write_text(
        "import json, sys, helper\nopen(sys.argv[5], 'w').write(json.dumps({'version': helper.VERSION}))\n"
    )
    jobs = LocalJobs(env, command=(sys.executable, str(tmp_path / "stage.py")))
    for version in ("one", "three"):
        (tmp_path / "helper.py").write_text(f"VERSION = {version!r}\n")
        job_id = jobs.submit(spec_of(tmp_path, key=version))
        assert json.loads(finish(jobs, job_id)) == {"version": version}
        assert why_cold(tmp_path, job_id) == ""


def test_a_worker_that_was_killed_is_not_missed(
    jobs: LocalJobs, env: Environment, worker: "subprocess.Popen[bytes]", go: Path, tmp_path: Path
) -> None:
    go.touch()
    worker.kill()
    worker.wait(60)
    assert (jobs_folder(env) / SOCKET).exists()  # a stale file, as a kill leaves it
    job_id = jobs.submit(spec_of(tmp_path))
    finish(jobs, job_id)
    assert "no answer" in why_cold(tmp_path, job_id)
    with warm_worker(env):
        again = jobs.submit(spec_of(tmp_path, key="train-2"))
        finish(jobs, again)
    assert why_cold(tmp_path, again) == ""


def test_jobs_outlive_the_worker_that_forked_them(
    jobs: LocalJobs, worker: "subprocess.Popen[bytes]", go: Path, tmp_path: Path
) -> None:
    finished, cancelled = (jobs.submit(spec_of(tmp_path, key=key)) for key in ("one", "two"))
    wait_until(lambda: len(starts(tmp_path)) == 2)
    worker.kill()
    worker.wait(60)
    assert jobs.submit(spec_of(tmp_path, key="one")) == finished
    assert jobs.state(cancelled) is JobState.RUNNING
    jobs.cancel(cancelled)
    assert jobs.state(cancelled) is JobState.FAILED
    assert processes_of(folder_of(tmp_path, cancelled)) == []
    go.touch()
    finish(jobs, finished)
    assert len(starts(tmp_path)) == 2


@pytest.mark.parametrize("num_10_ms", range(6), ids=lambda n: f"after-{n}0-ms")
def test_a_worker_killed_while_jobs_are_submitted_loses_and_doubles_none(
    jobs: LocalJobs, worker: "subprocess.Popen[bytes]", go: Path, tmp_path: Path, num_10_ms: int
) -> None:
    go.touch()
    moment = threading.Timer(0.01 * num_10_ms, worker.kill)
    moment.start()
    ids = [jobs.submit(spec_of(tmp_path, key=f"train-{n}")) for n in range(8)]
    moment.join()
    for job_id in ids:
        assert json.loads(finish(jobs, job_id))
    assert len(starts(tmp_path)) == len(ids)
    assert len(set(starts(tmp_path))) == len(ids)


def test_a_worker_that_hangs_costs_a_wait_and_starts_nothing_later(
    jobs: LocalJobs, worker: "subprocess.Popen[bytes]", go: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go.touch()
    worker.send_signal(signal.SIGSTOP)
    with monkeypatch.context() as impatient:
        impatient.setattr(ANSWER_TIMEOUT_S, 0.5)
        job_id = jobs.submit(spec_of(tmp_path))
    finish(jobs, job_id)
    assert "timed out" in why_cold(tmp_path, job_id)
    worker.send_signal(signal.SIGCONT)
    second = jobs.submit(spec_of(tmp_path, key="train-2"))
    finish(jobs, second)  # the worker has read the first wish by now, and its fork was hung up on
    assert why_cold(tmp_path, second) == ""
    assert len(starts(tmp_path)) == 2


def test_a_fork_that_was_never_told_to_go_leaves(
    env: Environment, worker: "subprocess.Popen[bytes]", go: Path, tmp_path: Path
) -> None:
    go.touch()
    (tmp_path / "stage.py").write_text(STAGE)
    wish = {
        "command": [sys.executable, str(tmp_path / "stage.py")],
        "variables": child_variables(env, tmp_path) | {"PYTEST_CURRENT_TEST": os.environ["PYTEST_CURRENT_TEST"]},
        "cwd": str(tmp_path),
    }
    with connection(jobs_folder(env)) as line:
        line.send(json.dumps(wish).encode())
        pid = json.loads(line.recv(4096))["pid"]
        assert [p.pid for p in processes_of(tmp_path)] == [pid]
    wait_until(lambda: not psutil.pid_exists(pid))
    assert starts(tmp_path) == []


def test_ended_jobs_do_not_stay_as_zombies(
    jobs: LocalJobs, worker: "subprocess.Popen[bytes]", go: Path, tmp_path: Path
) -> None:
    go.touch()
    finish(jobs, jobs.submit(spec_of(tmp_path)))
    killed = jobs.submit(spec_of(tmp_path, key="train-2"))
    jobs.cancel(killed)
    wait_until(lambda: psutil.Process(worker.pid).children() == [])


def test_two_submitters_of_one_key_get_one_job(
    env: Environment, worker: "subprocess.Popen[bytes]", go: Path, tmp_path: Path
) -> None:
    (tmp_path / "stage.py").write_text(STAGE)
    runners = [LocalJobs(env, command=(sys.executable, str(tmp_path / "stage.py"))) for _ in range(4)]
    found: list[str] = []
    threads = [threading.Thread(target=lambda r=r: found.append(r.submit(spec_of(tmp_path)))) for r in runners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    go.touch()
    finish(runners[0], found[0])
    assert len(set(found)) == 1
    assert len(starts(tmp_path)) == 1


def test_a_process_that_only_looks_or_says_nothing_does_not_hold_the_worker(
    jobs: LocalJobs, env: Environment, worker: "subprocess.Popen[bytes]", go: Path, tmp_path: Path
) -> None:
    go.touch()
    with connection(jobs_folder(env)):  # says nothing: given up on after a second
        assert is_listening(jobs_folder(env))
        job_id = jobs.submit(spec_of(tmp_path))
    finish(jobs, job_id)
    assert why_cold(tmp_path, job_id) == ""


def test_another_environment_is_a_new_interpreter(
    jobs: LocalJobs, worker: object, go: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go.touch()
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    job_id = jobs.submit(spec_of(tmp_path))
    finish(jobs, job_id)
    assert why_cold(tmp_path, job_id) == "environment variables differ from the warm worker's: MALLOC_ARENA_MAX"


def test_what_airflow_sets_for_a_task_makes_no_difference(
    jobs: LocalJobs, worker: object, go: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go.touch()
    for name in ("AIRFLOW_CTX_DAG_ID", "_AIRFLOW__STARTUP_MSG", "__AIRFLOW_SUPERVISOR_FD"):
        monkeypatch.setenv(name, "x")
    job_id = jobs.submit(spec_of(tmp_path))
    finish(jobs, job_id)
    assert why_cold(tmp_path, job_id) == ""


def test_another_interpreter_is_not_forked(env: Environment, worker: object, go: Path, tmp_path: Path) -> None:
    go.touch()
    (tmp_path / "stage.py").write_text(STAGE)
    link = tmp_path / "python"
    link.symlink_to(Path(sys.executable).resolve())
    jobs = LocalJobs(env, command=(str(link), str(tmp_path / "stage.py")))
    job_id = jobs.submit(spec_of(tmp_path))
    finish(jobs, job_id)
    assert why_cold(tmp_path, job_id).startswith(f"the command is {link}")


def test_another_users_socket_is_not_trusted(jobs: LocalJobs, env: Environment, go: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    go.touch()
    folder = jobs_folder(env)
    folder.mkdir(parents=True)
    with subprocess.Popen([sys.executable, "-c", LISTEN_AS_NOBODY, str(folder)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        job_id = jobs.submit(spec_of(tmp_path))
        finish(jobs, job_id)
        other.kill()
    assert "another user" in why_cold(tmp_path, job_id)


@pytest.mark.slow
def test_the_libraries_leave_nothing_that_a_fork_would_share(env: Environment) -> None:
    with warm_worker(env, *LIBRARIES) as worker:
        log = (jobs_folder(env) / "warm.log").read_text()
        assert "is not loaded" not in log
        proc = Path(f"/proc/{worker.pid}")
        names = [(task / "comm").read_text().strip() for task in (proc / "task").iterdir()]
        files = [str(link.readlink()) for link in (proc / "fd").iterdir()]
        maps = (proc / "maps").read_text()
    # OpenBLAS of numpy and of scipy, and jemalloc in Arrow: each has fork handlers of its own.
    assert len(names) <= 4
    assert names.count("jemalloc_bg_thd") == 1
    # Evidently's idle event loop is the one poll, used only from inside another running loop, which no job has.
    assert [f for f in files if f.startswith("anon_inode")] == ["anon_inode:[eventpoll]"]
    assert [f for f in files if "/dev/nvidia" in f] == []
    assert "libtorch" in maps
