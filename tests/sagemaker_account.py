"""An AWS account's SageMaker endpoints as moto does not have them; `sagemaker_server.py` serves it over HTTP.

Models, endpoint configurations and endpoints with names that are taken once; an Updating window in which changes are
refused; updates that fail, or that are taken back silently; guardrails that fall back to all at once without a word
where SageMaker's do; weights; invocations, answered by real containers of ours (the ASGI app that one runs, each with
its package loaded and verified); a shadow variant, whose container gets a copy of each request or of a part of them;
CloudWatch's figures of them per minute, incomplete if told so; captured
answers in S3. Time is a clock that both sides share. Requests and answers are held against botocore's service models.

Not modelled: starting times and costs of instances, several instances of a variant, autoscaling, networks, rights. What
is not documented is refused here: callers when all weights are 0, a weight for a shadow variant, a question to it.
"""

import asyncio
import itertools
import json
import math
import random
import shutil
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import botocore.session
import numpy as np
from botocore import xform_name

from clearway.contracts.errors import ClearwayError
from clearway.infra.clock import Clock
from clearway.infra.environment import Environment, SageMaker
from clearway.infra.storage import open_storage
from clearway.serve.process import trust_account_key
from clearway.serve.sagemaker import Container, make_container
from serving_kit import call_async
from shape_kit import misfits

Asked = dict[str, Any]
NOW_S = 1.7e9
SECTION = "CLEARWAY__SAGEMAKER__"
DIGEST = f"{SECTION}MODEL_DIGEST"
CAPTURE_S = 60.0  # between two files of captured answers
MODELS = {name: botocore.session.get_session().get_service_model(name) for name in ("sagemaker", "cloudwatch")}


class Refused(Exception):
    """An answer with an error. Args: code, text, HTTP status."""

    def __init__(self, code: str, text: str, status: int = 400, **more: Any) -> None:
        super().__init__(text)
        self.code, self.status, self.more = code, status, more


@dataclass
class Fate:
    """What becomes of an update: `ok`; `silent` and `told` go back to the configuration before, without and with a
    reason; `stranger`: one of the models is another one than it says; `late`: fine, and `after_s` later taken back."""

    kind: str = "ok"
    after_s: float = 0.0


@dataclass
class Call:
    """One finished request to a variant."""

    status: int
    took_s: float


@dataclass
class FakeEndpoint:
    """One endpoint."""

    config: str
    weights: dict[str, float]
    shadow: tuple[str, float] | None = None  # name and weight of the shadow variant
    status: str = "Creating"
    pending: str = ""
    reason: str = ""
    done_s: float = 0.0
    fate: Fate = field(default_factory=Fate)
    wanted: dict[str, float] = field(default_factory=dict)
    goes_back: tuple[float, str, dict[str, float]] | None = None


class Account:
    """What the server knows; tests read and change it directly.

    Args:
        env: whose store and keys the containers use.
        upstream: address of moto; "" where nothing but SageMaker is asked.
        update_s: seconds that an update takes.
    """

    def __init__(
        self, env: Environment, clock: Clock, *, home: Path, upstream: str = "", update_s: float = 25.0
    ) -> None:
        self.env, self.clock, self.home, self.upstream, self.update_s = env, clock, home, upstream, update_s
        self.models: dict[str, dict[str, Any]] = {}
        self.configs: dict[str, dict[str, Any]] = {}
        self.endpoints: dict[str, FakeEndpoint] = {}
        self.alarms: dict[str, dict[str, Any]] = {}
        self.next_fate: Callable[[], Fate] = Fate
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.misfits: list[str] = []
        self.unguarded: list[str] = []  # updates whose guardrails SageMaker would have left out silently
        self.calls: dict[tuple[str, str], dict[int, list[Call]]] = defaultdict(lambda: defaultdict(list))  # by minute
        self.withheld: set[str] = set()  # names of metrics that do not arrive
        self.is_shadow_captured = True
        self._captured: dict[tuple[str, str], list[str]] = defaultdict(list)
        self._captured_s = -math.inf
        self._containers: dict[str, Container] = {}  # by model
        self._copying = random.Random(6)  # noqa: S311 - which requests are copied
        self._random, self._numbers = random.Random(5), itertools.count()  # noqa: S311 - splits traffic
        self._lock, self._capturing = threading.RLock(), threading.Lock()  # the second: a starting container asks S3

    def close(self) -> None:
        """End what containers run."""
        for container in self._containers.values():
            container.server.prediction_log.close()
            container.server.versions.close()

    def knows(self, operation: str) -> bool:
        """Whether it is a call of endpoints, their figures and their alarms; all others are moto's."""
        return hasattr(self, f"_{xform_name(operation)}")

    def handle(self, operation: str, asked: dict[str, Any]) -> dict[str, Any]:
        """One call of the control plane or of CloudWatch."""
        service = "cloudwatch" if operation in {"GetMetricData", "DescribeAlarms"} else "sagemaker"
        shapes = MODELS[service].operation_model(operation)
        with self._lock:
            self.asked.append((operation, asked))
            self._check(shapes.input_shape, asked, operation)
            self.advance()
            if not self.upstream:  # else whenever S3 is asked
                self.flush_captured()
            answer: dict[str, Any] = getattr(self, f"_{xform_name(operation)}")(asked)
            self._check(shapes.output_shape, answer, f"answer of {operation}")
            return answer

    def advance(self) -> None:
        """Let happen what is due."""
        now_s = self.clock.now_s()
        for name, endpoint in list(self.endpoints.items()):
            if endpoint.status in {"Creating", "Updating"} and now_s >= endpoint.done_s:
                self._finish(name, endpoint)
            if endpoint.status == "Deleting" and now_s >= endpoint.done_s:
                del self.endpoints[name]
            if endpoint.goes_back and endpoint.status == "InService" and now_s >= endpoint.goes_back[0]:
                _, config, weights = endpoint.goes_back
                self._serve(endpoint, config)
                endpoint.weights = weights  # the fleet that was there before, as it was

    def invoke(self, name: str, body: bytes, headers: Mapping[str, str]) -> tuple[bytes, str]:
        """The answer and the variant that gave it."""
        with self._lock:
            self.advance()
            endpoint = self.endpoints.get(name)
            if endpoint is None or not endpoint.config or endpoint.status in {"Creating", "Failed", "Deleting"}:
                raise Refused("ValidationError", f"Endpoint {name} of account 123456789012 not found.")
            variant = headers.get("x-amzn-sagemaker-target-variant") or self._choose(endpoint)
            if variant not in endpoint.weights:
                raise Refused("ValidationError", f"Variant {variant} is not hosted by endpoint {name}")
            container = self._containers[self._model_of(endpoint.config, variant)]
        sent = [(b"content-type", b"application/json")]
        if attribute := headers.get("x-amzn-sagemaker-custom-attributes"):
            sent.append((b"x-amzn-sagemaker-custom-attributes", attribute.encode()))
        status, answer = self._ask(container, name, variant, body, sent)
        self._copy(name, body, sent)
        if status != 200:
            text = answer.decode()
            more = {"OriginalStatusCode": status, "OriginalMessage": text, "LogStreamArn": "arn:aws:logs:::"}
            raise Refused("ModelError", f"Received client error ({status}) from primary", 424, **more)
        return answer, variant

    def call(self, name: str, row: dict[str, Any], *, failing: Mapping[str, float]) -> str:
        """A caller's request without the way there, for stories with many: the digest that answered, or "".

        `failing`: digest → share of such requests that it fails; of copies: that it gives no answer at all.
        """
        body = json.dumps({"instances": [row]}).encode()
        with self._lock:
            self.advance()
            endpoint = self.endpoints[name]
            variant = self._choose(endpoint)
            model = self._model_of(endpoint.config, variant)
            digest = self._digest_of(model)
            loaded = self._containers[model].server.versions.serving.loaded[digest]
        if self._random.random() < failing.get(digest, 0.0):
            self._note(name, variant, 500, 0.002, body, b"{}")
            return ""
        scores = loaded.score([row])
        answer = json.dumps({"predictions": scores, "model_digest": digest}).encode()
        self._note(name, variant, 200, 0.002, body, answer)
        self._copy(name, body, [(b"content-type", b"application/json")], failing=failing)
        return digest

    def put_alarm(self, name: str, *, state: str = "OK", missing: str = "breaching") -> None:
        self.alarms[name] = {"AlarmName": name, "StateValue": state, "TreatMissingData": missing}

    def flush_captured(self) -> None:
        """Write captured answers to S3, or below a folder where the store is one; at most once in CAPTURE_S."""
        with self._capturing:
            if not self._captured or self.clock.now_s() - self._captured_s < CAPTURE_S:
                return
            waiting, self._captured = self._captured, defaultdict(list)
            self._captured_s = self.clock.now_s()
        for (folder, variant), lines in waiting.items():
            hour = f"{datetime.fromtimestamp(self.clock.now_s(), UTC):%Y/%m/%d/%H}"
            uri = f"{folder}/{variant}/{hour}/{next(self._numbers):08d}.jsonl"
            if uri.startswith("file:"):
                open_storage(folder).write(uri, "\n".join(lines).encode())
                continue
            bucket, _, key = uri.removeprefix("s3://").partition("/")
            s3 = boto3.session.Session().client("s3", endpoint_url=self.upstream)
            s3.put_object(Bucket=bucket, Key=key, Body="\n".join(lines).encode())

    # The operations, by their names.

    def _create_model(self, asked: Asked) -> Asked:
        name = asked["ModelName"]
        self._take(self.models, name, asked, "model")
        return _arn_of("Model", name)

    def _describe_model(self, asked: Asked) -> Asked:
        found = self._found(self.models, asked["ModelName"], "model")
        return (
            _arn_of("Model", asked["ModelName"])
            | {"CreationTime": NOW_S}
            | {key: value for key, value in found.items() if key != "Tags"}
        )

    def _create_endpoint_config(self, asked: Asked) -> Asked:
        name = asked["EndpointConfigName"]
        shadows = asked.get("ShadowProductionVariants", [])
        if shadows and (len(shadows) > 1 or len(asked["ProductionVariants"]) > 1):
            text = (
                "you can only specify one variant for ProductionVariants and one variant for ShadowProductionVariants"
            )
            raise Refused("ValidationException", text)
        names = [variant["VariantName"] for variant in (*asked["ProductionVariants"], *shadows)]
        if len(set(names)) != len(names):
            raise Refused("ValidationException", f"Duplicate variant names {names}")
        for variant in (*asked["ProductionVariants"], *shadows):
            self._found(self.models, variant["ModelName"], "model")
        self._take(self.configs, name, asked, "endpoint configuration")
        return _arn_of("EndpointConfig", name)

    def _describe_endpoint_config(self, asked: Asked) -> Asked:
        found = self._found(self.configs, asked["EndpointConfigName"], "endpoint configuration")
        named = _arn_of("EndpointConfig", asked["EndpointConfigName"]) | {"CreationTime": NOW_S}
        return named | {key: value for key, value in found.items() if key != "Tags"}

    def _create_endpoint(self, asked: Asked) -> Asked:
        name, config = asked["EndpointName"], asked["EndpointConfigName"]
        self._found(self.configs, config, "endpoint configuration")
        endpoint = FakeEndpoint(config="", weights={})
        self._take(self.endpoints, name, endpoint, "endpoint")
        self._begin(endpoint, config)
        return _arn_of("Endpoint", name)

    def _update_endpoint(self, asked: Asked) -> Asked:
        endpoint, config = self._changeable(asked["EndpointName"]), asked["EndpointConfigName"]
        new = self._found(self.configs, config, "endpoint configuration")["ProductionVariants"]
        if "DeploymentConfig" in asked:
            old = self.configs[endpoint.config]["ProductionVariants"]
            is_known = not any(v["InstanceType"].startswith("ml.inf1.") for v in new)
            if not is_known or {v["VariantName"] for v in old} != {v["VariantName"] for v in new}:
                self.unguarded.append(config)
        endpoint.status = "Updating"
        self._begin(endpoint, config)
        return _arn_of("Endpoint", asked["EndpointName"])

    def _update_endpoint_weights_and_capacities(self, asked: Asked) -> Asked:
        endpoint = self._changeable(asked["EndpointName"])
        wanted = dict(endpoint.weights)
        for wish in asked["DesiredWeightsAndCapacities"]:
            if wish["VariantName"] not in wanted:
                raise Refused("ValidationException", f"Could not find variant {wish['VariantName']}")
            wanted[wish["VariantName"]] = wish["DesiredWeight"]
        endpoint.wanted, endpoint.status = wanted, "Updating"
        endpoint.done_s, endpoint.fate = self.clock.now_s() + self.update_s, self.next_fate()
        return _arn_of("Endpoint", asked["EndpointName"])

    def _describe_endpoint(self, asked: Asked) -> Asked:
        endpoint = self._found(self.endpoints, asked["EndpointName"], "endpoint")
        found = _arn_of("Endpoint", asked["EndpointName"]) | {
            "EndpointName": asked["EndpointName"],
            "EndpointConfigName": endpoint.config or endpoint.pending,
            "EndpointStatus": endpoint.status,
            "CreationTime": NOW_S,
            "LastModifiedTime": NOW_S,
        }
        if endpoint.weights:
            found["ProductionVariants"] = [
                {
                    "VariantName": name,
                    "CurrentWeight": float(np.float32(weight)),
                    "DesiredWeight": weight,
                    "DesiredInstanceCount": 1,
                }
                for name, weight in endpoint.weights.items()
            ]
        if endpoint.shadow:
            variant, weight = endpoint.shadow
            shadow = {"VariantName": variant, "CurrentWeight": weight, "DesiredWeight": weight}
            found["ShadowProductionVariants"] = [shadow | {"DesiredInstanceCount": 1}]
        if endpoint.reason:
            found["FailureReason"] = endpoint.reason
        if endpoint.pending and endpoint.config:
            found["PendingDeploymentSummary"] = {"EndpointConfigName": endpoint.pending}
        return found

    def _delete_endpoint(self, asked: Asked) -> Asked:
        endpoint = self._found(self.endpoints, asked["EndpointName"], "endpoint")
        if endpoint.status in {"Creating", "Updating", "Deleting"}:
            raise Refused("ValidationException", f"Cannot update in-progress endpoint {asked['EndpointName']}")
        endpoint.status, endpoint.done_s = "Deleting", self.clock.now_s() + self.update_s
        return {}

    def _describe_alarms(self, asked: Asked) -> Asked:
        return {"MetricAlarms": [self.alarms[name] for name in asked["AlarmNames"] if name in self.alarms]}

    def _get_metric_data(self, asked: Asked) -> Asked:
        results = []
        for query in asked["MetricDataQueries"]:
            metric, stat = query["MetricStat"]["Metric"], query["MetricStat"]["Stat"]
            place = {dimension["Name"]: dimension["Value"] for dimension in metric["Dimensions"]}
            points = self._points(metric["MetricName"], place["EndpointName"], place["VariantName"], asked)
            values = {minute: _statistic(stat, points[minute]) for minute in sorted(points, reverse=True)}
            found = {"Timestamps": list(values), "Values": list(values.values())}
            results.append({"Id": query["Id"], "StatusCode": "Complete"} | found)
        return {"MetricDataResults": results}

    # What is behind them.

    def _points(self, name: str, endpoint: str, variant: str, asked: Asked) -> dict[int, list[float]]:
        if name in self.withheld:
            return {}
        value: Callable[[Call], float] = {
            "Invocations": lambda call: 1.0,
            "Invocation4XXErrors": lambda call: float(400 <= call.status < 500),
            "Invocation5XXErrors": lambda call: float(call.status >= 500),
            "InvocationModelErrors": lambda call: float(call.status != 200),
            "ModelLatency": lambda call: call.took_s * 1e6,
        }[name]
        known = self.calls[endpoint, variant]
        return {m: [value(call) for call in known[m]] for m in known if asked["StartTime"] <= m < asked["EndTime"]}

    def _ask(
        self, container: Container, name: str, variant: str, body: bytes, sent: list[tuple[bytes, bytes]]
    ) -> tuple[int, bytes]:
        began = time.perf_counter()
        found = asyncio.run(call_async(container, "POST", "/invocations", body, headers=sent))
        self._note(name, variant, found.status, time.perf_counter() - began, body, found.body)
        return found.status, found.body

    def _copy(
        self, name: str, body: bytes, sent: list[tuple[bytes, bytes]], *, failing: Mapping[str, float] | None = None
    ) -> None:
        """The same request for the shadow variant; its share is its weight beside the production variant's."""
        with self._lock:
            endpoint = self.endpoints[name]
            if endpoint.shadow is None:
                return
            (variant, weight), (beside,) = endpoint.shadow, endpoint.weights.values()
            model = self._model_of(endpoint.config, variant)
            if self._copying.random() * beside >= weight:
                return
        if self._copying.random() < (failing or {}).get(self._digest_of(model), 0.0):
            self._note(name, variant, 500, 0.002, body, b"")
            return
        self._ask(self._containers[model], name, variant, body, sent)

    def _note(self, name: str, variant: str, status: int, took_s: float, asked: bytes, answer: bytes) -> None:
        now_s = self.clock.now_s()
        self.calls[name, variant][int(now_s // 60) * 60].append(Call(status=status, took_s=took_s))
        endpoint = self.endpoints[name]
        capture = self.configs[endpoint.config].get("DataCaptureConfig")
        is_shadow = endpoint.shadow is not None and variant == endpoint.shadow[0]
        if capture and status == 200 and (self.is_shadow_captured or not is_shadow):
            modes = {option["CaptureMode"] for option in capture["CaptureOptions"]}
            given = {"Input": ("endpointInput", asked), "Output": ("endpointOutput", answer)}
            record: dict[str, Any] = {
                "captureData": {
                    where: {
                        "observedContentType": "application/json",
                        "mode": mode.upper(),
                        "data": data.decode(),
                        "encoding": "JSON",
                    }
                    for mode, (where, data) in given.items()
                    if mode in modes
                },
                "eventMetadata": {
                    "eventId": str(next(self._numbers)),
                    "inferenceTime": datetime.fromtimestamp(now_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                },
                "eventVersion": "0",
            }
            if is_shadow:
                record["eventMetadata"]["invocationSource"] = "ShadowExperiment"
            with self._capturing:
                self._captured[f"{capture['DestinationS3Uri']}/{name}", variant].append(json.dumps(record))

    def _choose(self, endpoint: FakeEndpoint) -> str:
        names, weights = list(endpoint.weights), list(endpoint.weights.values())
        if not any(weights):
            raise Refused("ValidationError", "No variant takes traffic")
        return self._random.choices(names, weights)[0]

    def _model_of(self, config: str, variant: str) -> str:
        return {v["VariantName"]: v["ModelName"] for v in variants_of(self.configs[config])}[variant]

    def _digest_of(self, model: str) -> str:
        digest: str = self.models[model]["PrimaryContainer"]["Environment"][DIGEST]
        return digest

    def _begin(self, endpoint: FakeEndpoint, config: str) -> None:
        endpoint.pending, endpoint.reason = config, ""
        endpoint.done_s, endpoint.fate = self.clock.now_s() + self.update_s, self.next_fate()

    def _finish(self, name: str, endpoint: FakeEndpoint) -> None:
        fate, endpoint.fate = endpoint.fate, Fate()
        if not endpoint.pending:  # weights alone
            if fate.kind in {"ok", "late"}:
                endpoint.weights = endpoint.wanted
            endpoint.status, endpoint.reason = "InService", "planted" if fate.kind == "told" else ""
            return
        before, weights, config, endpoint.pending = endpoint.config, endpoint.weights, endpoint.pending, ""
        reason = self._start(config)
        if not reason and fate.kind in {"silent", "told"}:
            reason = "Alarm went off: rolled back" if fate.kind == "told" else "silent"
        if reason:
            endpoint.reason = "" if reason == "silent" else reason
            endpoint.status = "InService" if before else "Failed"
            endpoint.config = before or config
            return
        if fate.kind == "stranger":
            newest = variants_of(self.configs[config])[-1]["ModelName"]
            self.models[newest]["PrimaryContainer"]["Environment"][DIGEST] = "5" * 64
        self._serve(endpoint, config)
        if fate.kind == "late" and before:
            endpoint.goes_back = (self.clock.now_s() + fate.after_s, before, weights)

    def _serve(self, endpoint: FakeEndpoint, config: str) -> None:
        variants = self.configs[config]["ProductionVariants"]
        endpoint.status, endpoint.config, endpoint.goes_back = "InService", config, None
        endpoint.weights = {v["VariantName"]: v["InitialVariantWeight"] for v in variants}
        shadows = self.configs[config].get("ShadowProductionVariants", ())
        endpoint.shadow = next(((v["VariantName"], v["InitialVariantWeight"]) for v in shadows), None)

    def _start(self, config: str) -> str:
        """Start a container per variant; "" or why one does not pass its health check."""
        for variant in variants_of(self.configs[config]):
            given = self.models[variant["ModelName"]]["PrimaryContainer"]["Environment"]
            if variant["ModelName"] in self._containers:
                continue
            home = self.home / f"container-{next(self._numbers)}"
            told = {name.removeprefix(SECTION).lower(): value for name, value in given.items() if SECTION in name}
            section = SageMaker.model_validate(self.env.sagemaker.model_dump() | told, strict=False)
            env = self.env.model_copy(update={"home": home, "sagemaker": section})
            try:
                if self.env.aws.signing_secret:
                    trust_account_key(env)
                else:
                    shutil.copytree(self.env.home / "keys", home / "keys")
                container = make_container(env)
            except (ClearwayError, OSError) as error:
                failed = (
                    f"The container for production variant {variant['VariantName']} did not pass the ping health check"
                )
                return f"{failed}. {error}"
            self._containers[variant["ModelName"]] = container
        return ""

    def _changeable(self, name: str) -> FakeEndpoint:
        endpoint: FakeEndpoint = self._found(self.endpoints, name, "endpoint")
        if endpoint.status != "InService":
            raise Refused("ValidationException", f"Cannot update in-progress endpoint {name}.")
        return endpoint

    def _take(self, taken: dict[str, Any], name: str, value: Any, what: str) -> None:
        if name in taken:
            raise Refused("ValidationException", f'Cannot create already existing {what} "{name}".')
        taken[name] = value

    def _found(self, known: Mapping[str, Any], name: str, what: str) -> Any:
        if name not in known:
            raise Refused("ValidationException", f'Could not find {what} "{name}".')
        return known[name]

    def _check(self, shape: Any, value: dict[str, Any], where: str) -> None:
        if shape is None:
            assert not value, where
            return
        missing = [name for name in shape.required_members if name not in value]
        self.misfits += [f"{where} lacks {missing}"] if missing else []
        self.misfits += list(misfits(shape, value, where))


def variants_of(config: Asked) -> list[Asked]:
    """Of an endpoint configuration, the shadow last."""
    return [*config["ProductionVariants"], *config.get("ShadowProductionVariants", ())]


def _arn_of(kind: str, name: str) -> Asked:
    return {f"{kind}Arn": f"arn:aws:sagemaker:us-east-1:123456789012:{xform_name(kind, '-')}/{name.lower()}"}


def _statistic(stat: str, values: list[float]) -> float:
    if not stat.startswith("PR"):
        return sum(values) if stat == "Sum" else float(len(values))
    bound = float(stat.removeprefix("PR(:").removesuffix(")"))
    return 100.0 * sum(value <= bound for value in values) / len(values)
