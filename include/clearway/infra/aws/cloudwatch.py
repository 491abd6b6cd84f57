"""Figures as custom metrics of CloudWatch."""

import logging
from collections.abc import Sequence

from clearway.infra.aws.client import client
from clearway.infra.environment import Environment
from clearway.infra.watch.metrics import Point, finite

LOG = logging.getLogger("clearway.metrics")
MAX_POINTS = 500  # of a call: 1,000 are taken, and a megabyte
MAX_ATTEMPTS = 2  # a stage does not wait for its figures


class CloudWatchMetrics:
    """Metrics below `metrics.namespace`, each with the dimension Environment."""

    def __init__(self, env: Environment) -> None:
        self._namespace, self._environment = env.metrics.namespace, env.name

    def put(self, points: Sequence[Point]) -> None:
        from botocore import exceptions as botocore  # noqa: PLC0415

        told = [_datum(point, self._environment) for point in finite(points)]
        for first in range(0, len(told), MAX_POINTS):
            batch = told[first : first + MAX_POINTS]
            try:
                client("cloudwatch", max_attempts=MAX_ATTEMPTS).put_metric_data(
                    Namespace=self._namespace, MetricData=batch
                )
            except (botocore.BotoCoreError, botocore.ClientError) as error:
                LOG.warning("%d figures are lost, CloudWatch did not take them: %s", len(batch), error)


def _datum(point: Point, environment: str) -> dict[str, object]:
    labels = {"Environment": environment, **point.labels}
    return {
        "MetricName": point.name,
        "Value": float(point.value),
        "Unit": point.unit.value,
        "Dimensions": [{"Name": name, "Value": value[:1024]} for name, value in labels.items()],
    }
