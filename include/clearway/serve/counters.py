"""What the server counts, and its Prometheus text form.

Plain integers changed on the event loop only; rendering costs nothing until somebody asks.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping

# Seconds; from one quick row (0.25 ms) to the body timeout (10 s).
LATENCY_BOUNDS_S = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 10.0)


class Counters:
    """Requests by status and model, rows by model, and one latency histogram."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[int, str, bool]] = Counter()
        self.rows: Counter[str] = Counter()
        self._buckets = [0] * (len(LATENCY_BOUNDS_S) + 1)
        self._sum_s = 0.0

    def count(self, status: int, digest: str, *, num_rows: int, duration_s: float, is_probe: bool) -> None:
        """One finished request; `digest` is empty when no model was asked, probes are counted apart."""
        self.requests[status, digest, is_probe] += 1
        if num_rows and not is_probe:
            self.rows[digest] += num_rows
        self._buckets[bisect_left(LATENCY_BOUNDS_S, duration_s)] += 1
        self._sum_s += duration_s

    def render(
        self, *, gauges: Mapping[str, float], totals: Mapping[str, float], weights: Mapping[str, float]
    ) -> bytes:
        """Prometheus text exposition, 0.0.4. `totals` only rise, `gauges` may fall, `weights` are per digest."""
        lines = _header("clearway_serve_requests_total", "counter", "Finished requests.")
        for (status, digest, is_probe), count in sorted(self.requests.items()):
            labels = f'code="{status}",model_digest="{digest}",probe="{str(is_probe).lower()}"'
            lines.append(f"clearway_serve_requests_total{{{labels}}} {count}")
        lines += _header("clearway_serve_rows_total", "counter", "Rows scored for callers.")
        lines += [f'clearway_serve_rows_total{{model_digest="{d}"}} {n}' for d, n in sorted(self.rows.items())]
        lines += _header("clearway_serve_traffic_weight_pct", "gauge", "Share of traffic per loaded version.")
        lines += [f'clearway_serve_traffic_weight_pct{{model_digest="{d}"}} {w:g}' for d, w in weights.items()]
        lines += self._histogram()
        for kind, values in (("gauge", gauges), ("counter", totals)):
            for name, value in values.items():
                lines += [f"# TYPE clearway_serve_{name} {kind}", f"clearway_serve_{name} {value:g}"]
        return ("\n".join(lines) + "\n").encode()

    def _histogram(self) -> list[str]:
        name = "clearway_serve_request_seconds"
        lines, reached = _header(name, "histogram", "Time from headers read to answer sent."), 0
        for bound, count in zip((*LATENCY_BOUNDS_S, "+Inf"), self._buckets, strict=True):
            reached += count
            lines.append(f'{name}_bucket{{le="{bound}"}} {reached}')
        return [*lines, f"{name}_sum {self._sum_s:.6f}", f"{name}_count {reached}"]


def _header(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]


def parse_metric(text: str, name: str) -> Iterable[tuple[str, float]]:
    """(labels, value) of every sample of one metric; for readers such as the status command and the tests."""
    for line in text.splitlines():
        sample, _, value = line.rpartition(" ")
        base, _, labels = sample.partition("{")
        if base == name:
            yield labels.rstrip("}"), float(value)
