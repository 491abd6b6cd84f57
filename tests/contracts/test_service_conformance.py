"""What every Service that runs jobs on AWS owes the runner above it. Add one to SERVICES and all of this must hold."""

from pathlib import Path

import pytest

from aws_kit import FAULTS, Trouble, account, at_endpoint, front
from clearway.contracts.errors import ConfigError
from clearway.infra.aws.jobs import SERVICES
from clearway.infra.aws.services import Order, Service
from clearway.infra.environment import Aws, Environment
from jobs_kit import wait_until

pytestmark = pytest.mark.slow
SCRIPT = """
import os, pathlib, sys, time
*_, folder, code = sys.argv
with open(folder + "/starts", "a") as file:
    file.write(os.environ["CLEARWAY__HOME"] + "\\n")
print("hello from", os.environ["ASKED"], flush=True)
while not pathlib.Path(folder, "go").exists():
    time.sleep(0.01)
sys.exit(int(code))
"""


@pytest.fixture(params=sorted(SERVICES))
def settings(request: pytest.FixtureRequest, aws: str, env: Environment, tmp_path: Path) -> tuple[str, Environment]:
    (tmp_path / "stage.py").write_text(SCRIPT)
    return request.param, account(env, stage=tmp_path / "stage.py", services={})


@pytest.fixture
def service(settings: tuple[str, Environment]) -> Service:
    name, env = settings
    return SERVICES[name](env.aws)


def order(settings: tuple[str, Environment], tmp_path: Path, *, name: str = "one", code: int = 0) -> Order:
    bucket = settings[1].store_root.split("/")[2]
    return Order(
        name=f"clearway-{name}-{bucket[-12:]}",
        command=("python", "-u", str(tmp_path / "stage.py"), str(tmp_path), str(code)),
        variables={"ASKED": name},
        folder=f"s3://{bucket}/jobs/{name}/0001",
        stage="train",
        max_seconds=60,
        tags={"team": "ops"},
    )


def starts(tmp_path: Path) -> int:
    file = tmp_path / "starts"
    return len(file.read_text().splitlines()) if file.exists() else 0


def test_a_job_runs_and_ends(settings, service, tmp_path):
    job = service.start(order(settings, tmp_path))
    wait_until(lambda: starts(tmp_path))
    assert service.look(job).is_running
    (tmp_path / "go").touch()
    wait_until(lambda: not service.look(job).is_running)
    assert service.look(job).has_succeeded
    assert service.look(job).reason == ""
    assert service.log_of(job) is not None


def test_the_same_order_is_the_same_job_whenever_it_is_given(settings, service, tmp_path):
    first = service.start(order(settings, tmp_path))
    assert service.start(order(settings, tmp_path)) == first
    (tmp_path / "go").touch()
    wait_until(lambda: not service.look(first).is_running)
    assert service.start(order(settings, tmp_path)) == first
    assert starts(tmp_path) == 1
    second = service.start(order(settings, tmp_path, name="two"))
    assert second != first
    wait_until(lambda: not service.look(second).is_running)


@pytest.mark.parametrize("fault", FAULTS)
def test_an_order_that_meets_trouble_starts_one_job(settings, service, tmp_path, aws, monkeypatch, fault):
    trouble = Trouble(plan=lambda number: fault if number in (0, 2) else "")
    with front(aws, trouble) as endpoint:
        for _ in at_endpoint(endpoint, monkeypatch):
            job = service.start(order(settings, tmp_path))
    for _ in at_endpoint(aws, monkeypatch):
        (tmp_path / "go").touch()
        wait_until(lambda: not service.look(job).is_running)
        assert service.look(job).has_succeeded
    assert starts(tmp_path) == 1


def test_a_job_that_fails_says_so(settings, service, tmp_path):
    (tmp_path / "go").touch()
    job = service.start(order(settings, tmp_path, code=3))
    wait_until(lambda: not service.look(job).is_running)
    seen = service.look(job)
    assert (seen.has_succeeded, "exit code 3" in seen.reason) == (False, True)


def test_a_stopped_job_has_not_succeeded_and_one_that_ended_is_left_alone(settings, service, tmp_path):
    job = service.start(order(settings, tmp_path))
    wait_until(lambda: starts(tmp_path))
    service.stop(job)
    wait_until(lambda: not service.look(job).is_running)
    assert not service.look(job).has_succeeded
    service.stop(job)


def test_a_job_nobody_knows_is_not_running(service):
    seen = service.look("00000000-0000-0000-0000-000000000000")
    assert (seen.is_running, seen.has_succeeded) == (False, False)
    assert "no such" in seen.reason


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_without_its_settings_says_which(name):
    wanted = Order(name="n", command=(), variables={}, folder="s3://b/j/k/0001", stage="train", max_seconds=60)
    with pytest.raises(ConfigError, match=r"settings aws\..*are empty"):
        SERVICES[name](Aws()).start(wanted)
