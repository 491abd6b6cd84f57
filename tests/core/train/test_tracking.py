"""Recording in MLflow can be repeated, and one digest has one version."""

import subprocess
import sys
import time
import urllib.request

import pytest

from clearway.contracts.errors import Unavailable
from clearway.infra.clock import FakeClock
from clearway.infra.environment import Environment
from clearway.infra.environment import Tracking as TrackingSection
from clearway.infra.tracking import TAG_DIGEST, Metric, RunRecord, open_tracking

# MLflow 3.17 on SQLAlchemy 2.1; nothing of ours.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

RECORD = RunRecord(
    product="flights",
    release_id="r1",
    job="j" * 64,
    started_s=1000.0,
    ended_s=1010.0,
    params={"lr": 0.001, "hidden": [1, 2]} | {f"p{i}": i for i in range(150)},
    metrics=tuple(Metric(name="loss", value=1 / (i + 1), step=i) for i in range(5)),
    tags={TAG_DIGEST: "d" * 64},
)


def _check(env: Environment) -> None:
    from mlflow import MlflowClient

    tracking = open_tracking(env)
    run_id = tracking.log_run(RECORD)
    assert tracking.log_run(RECORD) == run_id
    client = MlflowClient(env.tracking_uri)
    assert client.get_run(run_id).data.params["p149"] == "149"
    assert client.get_run(run_id).info.status == "FINISHED"
    assert [point.step for point in client.get_metric_history(run_id, "loss")] == [0, 1, 2, 3, 4]
    assert tracking.alias_digest("flights") is None
    one = tracking.register("flights", digest="a" * 64, run_id=run_id, tags={})
    two = tracking.register("flights", digest="b" * 64, run_id=run_id, tags={"clearway.release_id": "r2"})
    assert tracking.register("flights", digest="a" * 64, run_id=run_id, tags={}) == one != two
    for version, digest in ((one, "a"), (two, "b"), (one, "a")):
        tracking.set_alias("flights", version=version)
        assert tracking.alias_digest("flights") == digest * 64


@pytest.mark.slow
def test_in_a_file_without_a_server(env: Environment):
    _check(env)


@pytest.mark.slow
def test_with_a_server(env: Environment, tmp_path):
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path / 'server.db'}", "--artifacts-destination", str(tmp_path)]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path, start_new_session=True)
        try:
            _wait(f"http://127.0.0.1:{port}/health", server)
            _check(env.model_copy(update={"tracking": TrackingSection(uri=f"http://127.0.0.1:{port}")}))
        finally:
            subprocess.run(["kill", "--", f"-{server.pid}"], check=False)
            server.wait(30)


def _wait(url: str, server: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            assert server.poll() is None
            time.sleep(0.2)
    raise AssertionError(f"{url} did not answer")


@pytest.mark.slow
def test_a_server_that_is_down_is_asked_a_few_times_only(env: Environment):
    down = env.model_copy(update={"tracking": TrackingSection(uri="http://127.0.0.1:9")})
    clock = FakeClock()
    with pytest.raises(Unavailable, match="3 attempts"):
        open_tracking(down, clock=clock).log_run(RECORD)
    assert clock.at_s == pytest.approx(3.0)


@pytest.mark.slow
def test_a_file_that_is_no_database_is_told_as_unavailable(env: Environment, tmp_path):
    """SQLAlchemy's own errors come through where no server stands between, as those of a full disk do."""
    (tmp_path / "mlflow.db").write_text("no database" * 100)
    broken = env.model_copy(update={"tracking": TrackingSection(uri=f"sqlite:///{tmp_path}/mlflow.db")})
    with pytest.raises(Unavailable, match=r"MLflow .*file is not a database"):
        open_tracking(broken, clock=FakeClock()).log_run(RECORD)
