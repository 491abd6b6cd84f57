"""A moto server, and a front for it that loses, delays and refuses calls as a network and a busy service do.

What passes here has met a model of AWS over real HTTP, never AWS.
"""

import json
import os
import random
import secrets
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import pytest

from clearway.infra.aws import client as client_module
from clearway.infra.environment import Environment
from serving_kit import free_port

PRODUCTS = Path(__file__).with_name("products")
REGION = "us-east-1"
# Service of AWS → a stage that it can run.
STAGE_ON = {
    "sagemaker": "train",
    "sagemaker_tuning": "tune",
    "emr_serverless": "preprocess",
    "emr_ec2": "preprocess",
    "emr_eks": "preprocess",
    "batch": "train",
}
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": REGION}
DROPPED_HEADERS = {"transfer-encoding", "connection", "server", "date"}


@contextmanager
def moto_server(products: Path = PRODUCTS, *, seen_as: str = "") -> Iterator[str]:
    """Its address; ended with the block. `products`: what every image holds; `seen_as`: what its machines take for AWS,
    if not this server."""
    endpoint = f"http://127.0.0.1:{free_port()}"
    with TemporaryDirectory(prefix="clearway-moto-") as folder:
        script = Path(__file__).with_name("moto_server.py")
        command = [sys.executable, str(script), endpoint.rpartition(":")[2], folder]
        machine = variables(seen_as or endpoint) | {"CLEARWAY__PRODUCTS": str(products)}
        env = {**os.environ, "MACHINE_VARIABLES": json.dumps(machine)}
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env)
        try:
            assert server.stdout is not None
            assert server.stdout.readline().strip() == "ready"
            yield endpoint
        finally:
            for process in [*psutil.Process(server.pid).children(recursive=True), server]:
                process.kill()
            server.wait()
            if server.stdout:
                server.stdout.close()


def variables(endpoint: str) -> dict[str, str]:
    """What a process needs to take `endpoint` for AWS."""
    return CREDENTIALS | {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_MAX_ATTEMPTS": "5",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ALLOW_HTTP": "true",
    }


def at_endpoint(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Take `endpoint` for AWS while this is open."""
    for name, value in variables(endpoint).items():
        monkeypatch.setenv(name, value)
    forget_clients()
    yield endpoint
    forget_clients()


def forget_clients() -> None:
    """Have the next call read where AWS is anew."""
    client_module._client.cache_clear()


def make_table() -> str:
    """A table for release documents; its name."""
    name = f"releases-{uuid.uuid4().hex}"
    client_module.client("dynamodb").create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "product", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "product", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    return name


def make_bucket() -> str:
    """A bucket; its name."""
    name = f"store-{uuid.uuid4().hex}"
    client_module.client("s3").create_bucket(Bucket=name)
    return name


def account(env: Environment, *, stage: Path, services: dict[str, str]) -> Environment:
    """`env` in a fresh account: a bucket, and one of everything that jobs run on. `stage`: the file that EMR starts."""
    bucket, name = make_bucket(), uuid.uuid4().hex
    client = client_module.client
    client("s3").put_object(Bucket=bucket, Key="code/clearway_job.py", Body=stage.read_bytes())
    role = client("iam").create_role(RoleName=name, AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    application = client("emr-serverless").create_application(name=name, releaseLabel="emr-7.9.0", type="SPARK")
    machines = client("batch").create_compute_environment(
        computeEnvironmentName=name, type="UNMANAGED", state="ENABLED", serviceRole=role
    )
    eks = {"id": name, "type": "EKS", "info": {"eksInfo": {"namespace": name}}}
    pods = client("emr-containers").create_virtual_cluster(name=name, containerProvider=eks)
    client("secretsmanager").create_secret(Name=name, SecretBinary=secrets.token_bytes(32))
    order = [{"order": 1, "computeEnvironment": machines["computeEnvironmentArn"]}]
    client("batch").create_job_queue(jobQueueName=name, state="ENABLED", priority=1, computeEnvironmentOrder=order)
    container = {"image": "clearway", "vcpus": 1, "memory": 512}
    client("batch").register_job_definition(jobDefinitionName=name, type="container", containerProperties=container)
    node = {"targetNodes": "0:", "container": container}
    nodes = {"mainNode": 0, "numNodes": 2, "nodeRangeProperties": [node]}
    client("batch").register_job_definition(jobDefinitionName=f"{name}-nodes", type="multinode", nodeProperties=nodes)
    settings: dict[str, Any] = {
        "release_store": {**env.release_store.model_dump(), "url": f"dynamodb://{make_table()}"},
        "storage": {"kind": "s3", "root": f"s3://{bucket}/store"},
        "jobs": {**env.jobs.model_dump(), "kind": "aws"},
        "aws": {
            "services": services,
            "emr_application": application["applicationId"],
            "emr_role": role,
            "emr_code": f"s3://{bucket}/code",
            "emr_service_role": role,
            "emr_profile": name,
            "emr_access_group": "sg-0",
            "subnets": "subnet-0",
            "security_groups": "sg-1",
            "emr_virtual_cluster": pods["id"],
            "emr_eks_role": role,
            "training_image": "clearway",
            "training_role": role,
            "batch_queue": name,
            "batch_definition": name,
            "batch_nodes_queue": name,
            "batch_nodes_definition": f"{name}-nodes",
            "batch_nodes_machine": "m5.2xlarge",
            "signing_secret": name,
        },
    }
    return Environment.model_validate(env.model_dump() | settings)


@dataclass
class Trouble:
    """What the front does to calls. `plan` names a fault for the n-th call, counted from 0; "" lets it pass.

    refuse: 503 SlowDown · break: 500 · drop: the connection ends before the service sees the call · lose: it ends
    after the service did what was asked · cut: half of the answer's body, then the end.
    """

    plan: Callable[[int], str] = field(default=lambda _: "")
    num_calls: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self) -> str:
        with self.lock:
            number, self.num_calls = self.num_calls, self.num_calls + 1
            return self.plan(number)


FAULTS = ("refuse", "break", "drop", "lose", "cut")


def at_random(share: float, *, seed: int, faults: tuple[str, ...] = FAULTS) -> Callable[[int], str]:
    """A plan that meets each call with one of `faults` with this probability."""
    rng = random.Random(seed)  # noqa: S311 - a plan, not a secret
    return lambda _: rng.choice(faults) if rng.random() < share else ""


@contextmanager
def front(upstream: str, trouble: Trouble) -> Iterator[str]:
    """A server in front of `upstream` that makes `trouble`; its address."""
    host = upstream.removeprefix("http://")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # head and body go out in two pieces; the second would wait 40 ms for an answer

        def log_message(self, *_: object) -> None:
            return

        def _pass(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            fault = trouble.next()
            self.close_connection = bool(fault)
            if fault == "drop":
                return
            if fault in ("refuse", "break"):
                self._refuse(fault)
                return
            with closing(HTTPConnection(host, timeout=60)) as line:
                line.request(self.command, self.path, body=body, headers=dict(self.headers.items()))
                with line.getresponse() as answer:
                    data = answer.read()
            if fault == "lose":
                return
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in DROPPED_HEADERS | {"content-length"}:
                    self.send_header(name, value)
            length = answer.getheader("content-length") if self.command == "HEAD" else str(len(data))
            self.send_header("content-length", length or "0")
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if fault == "cut" else data)

        def _refuse(self, fault: str) -> None:
            code, status = ("SlowDown", 503) if fault == "refuse" else ("InternalError", 500)
            if "x-amz-target" in self.headers:
                code = "ThrottlingException" if fault == "refuse" else "InternalServerError"
                data = f'{{"__type": "{code}", "message": "planted"}}'.encode()
            else:
                data = f"<Error><Code>{code}</Code><Message>planted</Message></Error>".encode()
            self.send_response(400 if code == "ThrottlingException" else status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" else data)

    for verb in ("GET", "PUT", "POST", "HEAD", "DELETE"):
        setattr(Handler, f"do_{verb}", Handler._pass)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
