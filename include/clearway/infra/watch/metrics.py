"""Figures of stages, for alarms and dashboards. A figure that is lost fails nothing."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from clearway.infra.environment import Environment

LOG = logging.getLogger("clearway.metrics")


class Unit(StrEnum):
    """As CloudWatch names them."""

    COUNT = "Count"
    SECONDS = "Seconds"
    NONE = "None"  # money, shares


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One figure. `labels`: what it is about, such as product and stage."""

    name: str
    value: float
    unit: Unit = Unit.COUNT
    labels: Mapping[str, str] = field(default_factory=dict)


class Metrics(Protocol):
    """Where figures go; every implementation passes one suite."""

    def put(self, points: Sequence[Point]) -> None:
        """Publish; what is no finite number is left out. Never raises because of who should receive them."""
        ...


class LocalMetrics:
    """A log line per figure; the model server's own `/metrics` is apart from this."""

    def __init__(self, env: Environment) -> None:
        self._name = env.name

    def put(self, points: Sequence[Point]) -> None:
        for point in finite(points):
            LOG.info("%s", text_of(point, environment=self._name))


def open_metrics(env: Environment) -> Metrics:
    """The implementation that `env.metrics.kind` names."""
    if env.metrics.kind == "cloudwatch":
        from clearway.infra.aws.cloudwatch import CloudWatchMetrics  # noqa: PLC0415 - what one machine never needs

        return CloudWatchMetrics(env)
    return LocalMetrics(env)


def text_of(point: Point, *, environment: str) -> str:
    """`name{labels} value unit`, as Prometheus writes one."""
    labels = {"environment": environment, **point.labels}
    inside = ",".join(f'{name}="{value}"' for name, value in sorted(labels.items()))
    return f"{point.name}{{{inside}}} {point.value:.17g} {point.unit.value}"


def finite(points: Sequence[Point]) -> list[Point]:
    """Those that are numbers; the others are named in the log."""
    for point in points:
        if not math.isfinite(point.value):
            LOG.warning("figure %s of %s is %s and is left out", point.name, dict(point.labels), point.value)
    return [point for point in points if math.isfinite(point.value)]
