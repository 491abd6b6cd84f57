"""What every Service that runs jobs on AWS owes the runner above it. Add one to SERVICES and all of this must hold."""

from collections.abc import Callable
from pathlib import Path

import pytest

from aws_kit import FAULTS, Trouble, account, at_endpoint, front
from clearway.contracts.errors import ConfigError
from clearway.infra.aws.client import client
from clearway.infra.aws.jobs import SERVICES
from clearway.infra.aws.services import Order, Service
from clearway.infra.aws.transform import SageMakerTransform
from clearway.infra.environment import Environment
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
# The same for a service that starts an image and asks it.
SERVER = """
import http.server, os, pathlib, sys, time
folder = os.environ["FOLDER"]
with open(folder + "/starts", "a") as file:
    file.write("served\\n")
print("hello from", os.environ["ASKED"], flush=True)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.reply()
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        while not pathlib.Path(folder, "go").exists():
            time.sleep(0.01)
        if os.environ["CODE"] != "0":
            os._exit(int(os.environ["CODE"]))
        self.reply()
    def reply(self):
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[-1])), Handler).serve_forever()
"""
TRANSFORM = "sagemaker_transform"
OPENED: dict[str, Callable[[Environment], Service]] = {
    TRANSFORM: SageMakerTransform,
    **{name: lambda env, make=make: make(env.aws) for name, make in SERVICES.items()},  # type: ignore[misc]
}


@pytest.fixture(params=sorted(OPENED))
def settings(request: pytest.FixtureRequest, aws: str, env: Environment, tmp_path: Path) -> tuple[str, Environment]:
    (tmp_path / "stage.py").write_text(SCRIPT)
    (tmp_path / "image.py").write_text(SERVER)
    cloud = account(env, stage=tmp_path / "stage.py", services={})
    image = {"image": str(tmp_path / "image.py"), "role": cloud.aws.training_role}
    return request.param, cloud.model_copy(update={"sagemaker": cloud.sagemaker.model_copy(update=image)})


@pytest.fixture
def service(settings: tuple[str, Environment]) -> Service:
    name, env = settings
    return OPENED[name](env)


def order(settings: tuple[str, Environment], tmp_path: Path, *, name: str = "one", code: int = 0) -> Order:
    bucket = settings[1].store_root.split("/")[2]
    if settings[0] == TRANSFORM:
        client("s3").put_object(Bucket=bucket, Key=f"jobs/{name}/0001/input/0.json", Body=b"{}")
    return Order(
        name=f"clearway-{name}-{bucket[-12:]}",
        command=("python", "-u", str(tmp_path / "stage.py"), str(tmp_path), str(code)),
        variables={"ASKED": name, "FOLDER": str(tmp_path), "CODE": str(code)},
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
    for _ in range(3):  # it takes a moment to end, and somebody else may stop it too
        service.stop(job)
    wait_until(lambda: not service.look(job).is_running)
    assert not service.look(job).has_succeeded
    service.stop(job)


def test_a_job_nobody_knows_is_not_running(service):
    seen = service.look("00000000-0000-0000-0000-000000000000")
    assert (seen.is_running, seen.has_succeeded) == (False, False)
    assert "no such" in seen.reason


@pytest.mark.parametrize("name", sorted(OPENED))
def test_a_service_without_its_settings_says_which(name, env):
    wanted = Order(name="n", command=(), variables={}, folder="s3://b/j/k/0001", stage="train", max_seconds=60)
    with pytest.raises(ConfigError, match=r"settings (aws|sagemaker)\..*are empty"):
        OPENED[name](env).start(wanted)
