"""Transform jobs of SageMaker that run, for tests/moto_server.py.

The container is a process that is started as SageMaker starts one: `serve`, with the variables of its model. It is
asked /ping until it answers, then sent each file of the prefix as one request, so many at once as it may, each again
after an answer of 429 or above 499. Answers are written with `.out` at the end of their names. Names of models and of
transform jobs are taken once. An image whose name is a path stands for that file. Not modelled: splitting of files,
several machines, networks, rights.
"""

import os
import socket
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from moto.core.responses import ActionResult
from moto.s3.models import s3_backends
from moto.sagemaker.exceptions import ResourceInUseException, ResourceNotFound, ValidationError
from moto.sagemaker.models import SageMakerModelBackend
from moto.sagemaker.responses import SageMakerResponse

GROUP = "/aws/sagemaker/TransformJobs"
PING_S = 0.1
PATIENCE_S = 300.0


def add(machines: Any) -> None:
    """Have moto's SageMaker run them."""
    create, describe = SageMakerResponse.create_transform_job, SageMakerModelBackend.describe_transform_job
    make_model, lock = SageMakerResponse.create_model, threading.Lock()

    def create_model(self: SageMakerResponse) -> ActionResult:
        name = self._get_param("ModelName")
        with lock:
            if name in self.sagemaker_backend._models:
                raise ValidationError(message=f'Cannot create already existing model "{name}".')
            return make_model(self)

    def create_transform_job(self: SageMakerResponse) -> ActionResult:
        backend, name = self.sagemaker_backend, self._get_param("TransformJobName")
        with lock:
            if name in backend.transform_jobs:
                raise ResourceInUseException(message=f"transform job {name} exists already")
            answer = create(self)
        job = backend.transform_jobs[name]
        job.transform_job_status, job.transform_end_time = "InProgress", None
        model = backend.describe_model(self._get_param("ModelName"))
        run = Run(machines, job, model.primary_container, account=self.current_account)
        threading.Thread(target=run.run, daemon=True).start()
        return answer

    def describe_transform_job(self: SageMakerModelBackend, transform_job_name: str) -> dict[str, Any]:
        if transform_job_name not in self.transform_jobs:
            raise ResourceNotFound(message=f"no transform job {transform_job_name}")
        found = describe(self, transform_job_name)
        return {key: value for key, value in found.items() if value not in (None, "")}

    def stop_transform_job(self: SageMakerResponse) -> ActionResult:
        job = self.sagemaker_backend.transform_jobs.get(self._get_param("TransformJobName"))
        if job is None or job.transform_job_status != "InProgress":
            raise ValidationError(message="The request was rejected because the transform job is not running")
        job.transform_job_status = "Stopping"
        machines.stop(job.transform_job_name)
        return ActionResult({})

    SageMakerResponse.create_model = create_model
    SageMakerResponse.create_transform_job = create_transform_job
    SageMakerResponse.stop_transform_job = stop_transform_job
    SageMakerModelBackend.describe_transform_job = describe_transform_job


class Run:
    """One job."""

    def __init__(self, machines: Any, job: Any, container: dict[str, Any], *, account: str) -> None:
        self._machines, self._job, self._container = machines, job, container
        self._bucket = s3_backends[account]["aws"]
        self._codes: list[int] = []
        self._ended = threading.Event()

    def run(self) -> None:
        job, name, reason = self._job, self._job.transform_job_name, ""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        image = self._container["Image"]
        program = [image] if os.path.exists(image) else ["-m", "clearway.serve.sagemaker"]  # noqa: PTH110 - or a name
        given = self._container["Environment"] | (job.environment or {}) | {"SAGEMAKER_BATCH": "true"}
        given |= {"SAGEMAKER_MAX_PAYLOAD_IN_MB": str(job.max_payload_in_mb)}
        self._machines.start(
            name,
            ["python", *program, "serve", "--host", "127.0.0.1", "--port", str(self._port)],
            variables=given,
            home=self._machines.home_of(name),
            log=(GROUP, f"{name}/i-0"),
            on_end=self._note_end,
        )
        if job.transform_job_status == "Stopping":  # it was stopped while its machine began
            self._machines.stop(name)
        try:
            self._wait_for_ping()
            self._send_all()
        except RuntimeError as error:
            reason = str(error)
        self._machines.stop(name)
        self._ended.wait()
        job.transform_end_time = datetime.now(UTC)
        if job.transform_job_status == "Stopping":
            job.transform_job_status = "Stopped"
        elif reason:
            job.failure_reason, job.transform_job_status = f"AlgorithmError: {reason}", "Failed"
        else:
            job.transform_job_status = "Completed"

    def _note_end(self, code: int) -> None:
        self._codes.append(code)
        self._ended.set()

    def _wait_for_ping(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            if self._ended.is_set():
                raise RuntimeError(f"the container ended with exit code {self._codes[0]}")
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/ping", timeout=60) as answer:
                    answer.read()
                return
            except urllib.error.HTTPError as error:
                error.close()
            except (urllib.error.URLError, ConnectionError):
                pass
            time.sleep(PING_S)
        raise RuntimeError("the container did not pass its health check")

    def _send_all(self) -> None:
        place = self._job.transform_input["DataSource"]["S3DataSource"]["S3Uri"].removeprefix("s3://")
        bucket, _, prefix = place.partition("/")
        keys = sorted(key for key in self._bucket.buckets[bucket].keys if key.startswith(prefix))
        if not keys:
            raise RuntimeError(f"no objects below s3://{bucket}/{prefix}")
        into = self._job.transform_output["S3OutputPath"].removeprefix("s3://").partition("/")[2]

        def send(key: str) -> None:
            answer = self._answered(self._bucket.get_object(bucket, key).value)
            self._bucket.put_object(bucket, f"{into}/{key.removeprefix(prefix)}.out", answer)

        with ThreadPoolExecutor(self._job.max_concurrent_transforms) as pool:
            list(pool.map(send, keys))

    def _answered(self, body: bytes) -> bytes:
        headers = {"content-type": self._job.transform_input["ContentType"]}
        headers["accept"] = self._job.transform_output["Accept"]
        retries = self._job.model_client_config["InvocationsMaxRetries"]
        for number in range(retries + 1):
            asked = urllib.request.Request(f"http://127.0.0.1:{self._port}/invocations", data=body, headers=headers)
            try:
                with urllib.request.urlopen(asked, timeout=PATIENCE_S) as answer:
                    found: bytes = answer.read()
                    return found
            except urllib.error.HTTPError as error:
                said, status = error.read(), error.code
                error.close()
            except (urllib.error.URLError, ConnectionError) as error:
                self._ended.wait(60)
                if self._ended.is_set():
                    raise RuntimeError(f"the container ended with exit code {self._codes[0]}") from error
                said, status = str(error).encode(), 503
            is_passing = status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR
            if not is_passing or number == retries:
                break
        raise RuntimeError(f"Bad HTTP status received from algorithm: {status}, {said.decode()[:200]}")
