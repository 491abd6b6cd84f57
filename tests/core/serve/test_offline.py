"""Batches scored by transform jobs: the image's real entry point, started and asked by tests/moto_transform.py."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from aws_kit import account, at_endpoint
from clearway.__main__ import main
from clearway.contracts.errors import ConfigError, IntegrityError, JobFailed, Unavailable
from clearway.contracts.refs import ModelRef
from clearway.contracts.release_document import ReleaseDocument, Version
from clearway.infra.aws.client import client
from clearway.infra.aws.secrets import binary_secret
from clearway.infra.aws.services import Order
from clearway.infra.aws.transform import SageMakerTransform
from clearway.infra.clock import FakeClock, SystemClock
from clearway.infra.datasets import FEATURES_FILE
from clearway.infra.environment import Environment, project_root
from clearway.infra.jobs.processes import environment_variables
from clearway.infra.layout import Layout
from clearway.infra.parquet import from_parquet, to_parquet
from clearway.infra.release_store import open_release_store
from clearway.infra.snapshots import new_attempt, publish, seal
from clearway.infra.storage import join, open_storage
from clearway.launch.commands import score
from clearway.packaging.signing import install
from clearway.product import LoadedProduct
from clearway.serve.offline import Offline
from iam_kit import recorded
from jobs_kit import wait_until
from sagemaker_account import MODELS
from sagemaker_kit import at_sagemaker, opened_account
from serving_kit import CATEGORICAL, NUMERIC, make_package
from shape_kit import misfits

pytestmark = pytest.mark.slow
BATCH = "2013-05-06"
NUM_ROWS = 1_100  # three requests
HANGS = """
import http.server, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()
    def do_POST(self):
        time.sleep(600)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[-1])), Handler).serve_forever()
"""


def rows_of(num_rows: int) -> list[dict[str, Any]]:
    """With values that are missing and unknown among them."""
    carriers = ("AA", "DL", "ZZ", None)
    return [
        {"hour": None if i % 7 == 0 else float(i % 24), "distance": 10.0 + i / 3, "carrier": carriers[i % 4]}
        for i in range(num_rows)
    ]


@dataclass
class Case:
    """A released model and a batch that has landed."""

    env: Environment
    product: LoadedProduct
    ref: ModelRef

    def offline(self, *, batch_id: str = BATCH, service: Any = None, env: Environment | None = None) -> Offline:
        used = env or self.env
        service = service or SageMakerTransform(used)
        return Offline(batch_id, product=self.product, env=used, service=service, clock=SystemClock())

    def hanging(self, tmp_path: Path, **jobs: Any) -> Environment:
        """With an image that never answers."""
        (tmp_path / "hangs.py").write_text(HANGS)
        image = self.env.sagemaker.model_copy(update={"image": str(tmp_path / "hangs.py")})
        return self.env.model_copy(update={"sagemaker": image, "jobs": self.env.jobs.model_copy(update=jobs)})


def publish_rows(env: Environment, rows: list[dict[str, Any]]) -> None:
    storage, layout = open_storage(env.store_root), Layout(env.store_root, "flights")
    begin, base = datetime(2013, 5, 6, tzinfo=UTC), layout.features(BATCH)
    times = pa.array([begin + timedelta(seconds=i) for i in range(len(rows))], pa.timestamp("us", tz="UTC"))
    columns = {name: [row[name] for row in rows] for name in (*NUMERIC, *CATEGORICAL)}
    table = pa.table({"key": [f"k{i}" for i in range(len(rows))], "event_time": times, **columns})
    attempt = new_attempt(base)
    storage.write(join(attempt, FEATURES_FILE), to_parquet(table))
    publish(storage, base, seal(storage, attempt, num_rows={FEATURES_FILE: len(rows)}, facts={}))


@pytest.fixture
def case(aws: str, env: Environment, flights: LoadedProduct) -> Case:
    cloud = account(env, stage=project_root() / "include" / "aws" / "clearway_job.py", services={})
    install(binary_secret(cloud.aws.signing_secret), key_folder=cloud.home / "keys")
    cloud = at_sagemaker(cloud, image="clearway", role=cloud.aws.training_role)
    cloud = cloud.model_copy(update={"aws": cloud.aws.model_copy(update={"subnets": "", "security_groups": ""})})
    ref = make_package(cloud, 0.1)
    store = open_release_store(cloud)
    _, version = store.read("flights")
    champion = Version(uri=ref.uri, digest=ref.digest, release_id="r1")
    store.swap(ReleaseDocument(product="flights", champion=champion), expected_version=version)
    publish_rows(cloud, rows_of(NUM_ROWS))
    features = flights.spec.features.model_copy(update={"numeric": NUMERIC, "categorical": CATEGORICAL})
    spec = flights.spec.model_copy(update={"features": features})
    return Case(env=cloud, product=flights.model_copy(update={"spec": spec}), ref=ref)


def jobs_of(case: Case) -> list[str]:
    """Of this case's own store, since the account is shared by tests."""
    found = client("sagemaker").list_transform_jobs(MaxResults=100)["TransformJobSummaries"]
    described = (client("sagemaker").describe_transform_job(TransformJobName=j["TransformJobName"]) for j in found)
    place = "TransformInput", "DataSource", "S3DataSource", "S3Uri"
    names = []
    for job in described:
        uri: Any = job
        for key in place:
            uri = uri[key]
        if str(uri).startswith(case.env.store_root):
            names.append(job["TransformJobName"])
    return sorted(names)


def falsify(case: Case, folder: str) -> None:
    """The result is lost, and one of the answers is another model's."""
    storage, place = open_storage(folder), join(folder, "0001", "output", "00001.json.out")
    bucket, _, key = join(folder, "scored.json").removeprefix("s3://").partition("/")
    client("s3").delete_object(Bucket=bucket, Key=key)
    storage.write(place, storage.read(place).replace(case.ref.digest.encode(), b"0" * 64))


def test_scores_are_what_the_endpoint_answers_and_no_other_models(case, aws, tmp_path, monkeypatch):
    rows = rows_of(NUM_ROWS)
    with opened_account(case.env, FakeClock(1.7e9), home=tmp_path / "containers", upstream=aws) as (_, endpoint):
        endpoint.load(uri=case.ref.uri, digest=case.ref.digest, epoch=1)
        endpoint.set_weights({case.ref.digest: 100.0}, epoch=1)
        answers = [endpoint.predict(rows[begin : begin + 500]) for begin in range(0, NUM_ROWS, 500)]
    for _ in at_endpoint(aws, monkeypatch):
        scored = case.offline().score()
        with recorded() as calls:
            assert case.offline().score() == scored
        assert [call.operation for call in calls if call.service == "sagemaker"] == []
        storage, layout = open_storage(case.env.store_root), Layout(case.env.store_root, "flights")
        table = from_parquet(storage.read(scored.uri))
        assert storage.list(layout.predictions("")) == []  # nobody was answered
        falsify(case, scored.uri.rpartition("/")[0])
        with pytest.raises(IntegrityError, match="500 answers of 000000000000, not 500 of"):
            case.offline().score()
        log = client("logs").describe_log_streams(logGroupName=SageMakerTransform.GROUP, logStreamNamePrefix=scored.job)
    assert {digest for _, digest in answers} == {scored.digest}
    assert table["score"].to_pylist() == [value for values, _ in answers for value in values]
    assert table["key"].to_pylist() == [f"k{i}" for i in range(NUM_ROWS)]
    assert (scored.num_rows, scored.hours > 0, scored.cost is not None and scored.cost > 0) == (NUM_ROWS, True, True)
    assert len(log["logStreams"]) == 1


class Dying(SageMakerTransform):
    """Whose caller dies once the order is given."""

    def start(self, order: Order) -> str:
        super().start(order)
        raise Unavailable("planted")


def test_whoever_comes_after_a_death_is_handed_the_same_job(case):
    with recorded() as calls:
        with pytest.raises(Unavailable, match="planted"):
            case.offline(service=Dying(case.env)).score()
        assert case.offline().score().num_rows == NUM_ROWS
    assert len(jobs_of(case)) == 1
    asked = {call.operation: call.asked for call in calls if call.service == "sagemaker"}
    assert set(asked) == {"CreateModel", "DescribeModel", "CreateTransformJob", "DescribeTransformJob"}
    shapes = MODELS["sagemaker"]
    assert [
        text
        for operation, given in asked.items()
        for text in misfits(shapes.operation_model(operation).input_shape, given, operation)
    ] == []


def test_a_refused_row_fails_the_job_with_its_reason_and_the_next_call_orders_another(case):
    publish_rows(case.env, [{"hour": 1e300, "distance": float("inf"), "carrier": "AA"}])
    for number in (1, 2):
        with pytest.raises(JobFailed, match="422"):
            case.offline().score()
        assert len(jobs_of(case)) == number


@pytest.fixture
def waiting(case, tmp_path) -> Iterator[tuple[Case, Environment, list[Exception]]]:
    """Somebody waits for scores that never come."""
    env, ended = case.hanging(tmp_path), list[Exception]()

    def wait() -> None:
        try:
            case.offline(env=env).score()
        except JobFailed as error:
            ended.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    yield case, env, ended
    case.offline(env=env).stop()
    thread.join(120)
    assert not thread.is_alive()


def test_a_job_that_is_stopped_by_hand_says_so_to_whoever_waits(waiting):
    case, env, ended = waiting
    assert case.offline().stop() == ""  # of the right image, of which nothing runs
    wait_until(lambda: case.offline(env=env).stop())
    wait_until(lambda: ended)
    assert "Stopped" in str(ended[0])
    assert case.offline(env=env).stop() == ""


def test_a_job_that_takes_too_long_is_stopped(case, tmp_path):
    with pytest.raises(JobFailed, match="ran out of its time, 1 s"):
        case.offline(env=case.hanging(tmp_path, max_seconds=1.0)).score()
    (name,) = jobs_of(case)
    assert client("sagemaker").describe_transform_job(TransformJobName=name)["TransformJobStatus"] == "Stopped"


def test_what_cannot_be_scored_is_refused_with_what_to_do(case, env, flights):
    with pytest.raises(ConfigError, match="batch '2013-05-13' of product 'flights' has no features"):
        case.offline(batch_id="2013-05-13")
    with pytest.raises(ConfigError, match="reads from S3 alone"):
        Offline(BATCH, product=flights, env=env, service=SageMakerTransform(env), clock=SystemClock())
    store = open_release_store(case.env)
    _, version = store.read("flights")
    store.swap(ReleaseDocument(product="flights"), expected_version=version)
    with pytest.raises(ConfigError, match="'flights' has no released model"):
        case.offline()


def test_the_command_refuses_and_tells_in_words(case, monkeypatch, capsys):
    for name, value in environment_variables(case.env).items():
        monkeypatch.setenv(name, value)
    assert main(["score", "--product", "flights", "--batch", "2013-05-13"]) == 2
    assert "has no features" in capsys.readouterr().err
    assert main(["score", "--batch", BATCH, "--stop"]) == 0
    assert capsys.readouterr().out == "nothing runs\n"
    made = {"num_rows": 5, "digest": "ab" * 32, "hours": 0.05, "cost": 0.006, "uri": "s3://b/scores.parquet"}
    assert score.render(made) == "5 rows by abababababab, 0.050 h, $0.0060\ns3://b/scores.parquet"
    assert "no price known" in score.render(made | {"cost": None})
