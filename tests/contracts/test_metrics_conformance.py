"""What every Metrics owes its callers. A new one adds itself to SINKS and passes."""

import logging
import math
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from clearway.infra.aws.client import client
from clearway.infra.aws.cloudwatch import CloudWatchMetrics
from clearway.infra.environment import Environment
from clearway.infra.watch.metrics import LOG, LocalMetrics, Metrics, Point, Unit, open_metrics, text_of

# Sum of all figures of a name with exactly these labels; None if there is none.
SumOf = Callable[[str, Mapping[str, str]], float | None]


@contextmanager
def local(env: Environment) -> Iterator[tuple[Metrics, SumOf]]:
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    before = LOG.level
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)

    def sum_of(name: str, labels: Mapping[str, str]) -> float | None:
        head = text_of(Point(name=name, value=0, labels=labels), environment=env.name).rpartition("}")[0] + "} "
        values = [float(line.removeprefix(head).split()[0]) for line in lines if line.startswith(head)]
        return sum(values) if values else None

    try:
        yield LocalMetrics(env), sum_of
    finally:
        LOG.removeHandler(handler)
        LOG.setLevel(before)


@contextmanager
def cloudwatch(env: Environment) -> Iterator[tuple[Metrics, SumOf]]:
    settings = env.metrics.model_copy(update={"kind": "cloudwatch", "namespace": f"test/{uuid.uuid4().hex}"})
    env = env.model_copy(update={"metrics": settings})

    def sum_of(name: str, labels: Mapping[str, str]) -> float | None:
        now = datetime.now(UTC)
        dimensions = [{"Name": k, "Value": v} for k, v in {"Environment": env.name, **labels}.items()]
        found = client("cloudwatch").get_metric_statistics(
            Namespace=settings.namespace,
            MetricName=name,
            Dimensions=dimensions,
            StartTime=now - timedelta(hours=1),
            EndTime=now + timedelta(hours=1),
            Period=86_400,
            Statistics=["Sum"],
        )["Datapoints"]
        return sum(point["Sum"] for point in found) if found else None

    found = open_metrics(env)
    assert isinstance(found, CloudWatchMetrics)
    yield found, sum_of


SINKS: dict[str, Callable[[Environment], AbstractContextManager[tuple[Metrics, SumOf]]]] = {
    "local": local,
    "cloudwatch": cloudwatch,
}
Sink = tuple[Metrics, SumOf]


@pytest.fixture(
    params=[pytest.param(name, marks=pytest.mark.slow if name != "local" else ()) for name in sorted(SINKS)]
)
def sink(request: pytest.FixtureRequest, env: Environment) -> Iterator[Sink]:
    if request.param != "local":
        request.getfixturevalue("aws")
    with SINKS[request.param](env) as found:
        yield found


def test_a_figure_arrives_with_its_value_and_labels(sink: Sink) -> None:
    metrics, sum_of = sink
    labels = {"Product": "flights", "Stage": "train"}
    metrics.put(
        [Point(name="StageSeconds", value=12.5, unit=Unit.SECONDS, labels=labels), Point(name="Other", value=1)]
    )
    assert sum_of("StageSeconds", labels) == pytest.approx(12.5)
    assert sum_of("StageSeconds", {**labels, "Stage": "tune"}) is None
    assert sum_of("Other", {}) == 1


def test_more_figures_than_one_call_takes_all_arrive(sink: Sink) -> None:
    metrics, sum_of = sink
    metrics.put([Point(name="Many", value=1)] * 1_201)
    assert sum_of("Many", {}) == 1_201


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
def test_what_is_no_number_is_left_out_and_the_rest_arrives(sink: Sink, value: float) -> None:
    metrics, sum_of = sink
    metrics.put([Point(name="Bad", value=value), Point(name="Good", value=2)])
    assert (sum_of("Bad", {}), sum_of("Good", {})) == (None, 2)


def test_nothing_is_taken_too(sink: Sink) -> None:
    metrics, sum_of = sink
    metrics.put([])
    assert sum_of("Many", {}) is None
