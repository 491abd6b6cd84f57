"""What the server counts, and its Prometheus text form.

Plain integers changed on the event loop only; rendering costs nothing until somebody asks.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from clearway.contracts.observed import ArmCounts

# Seconds; from one quick row (0.25 ms) to the body timeout (10 s).
LATENCY_BOUNDS_S = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 10.0)


OK, GONE = 200, 499  # GONE: the caller hung up, which says nothing about the model


class Arm:
    """What one version did for callers; empty digest: requests that never reached a version."""

    __slots__ = (
        "buckets",
        "num_errors",
        "num_outcomes",
        "num_requests",
        "num_rows",
        "num_scores",
        "outcome_square_sum",
        "outcome_sum",
        "score_square_sum",
        "score_sum",
        "sum_s",
    )

    def __init__(self) -> None:
        self.num_requests = self.num_errors = self.num_scores = self.num_rows = 0
        self.score_sum = self.score_square_sum = self.sum_s = 0.0
        self.num_outcomes, self.outcome_sum, self.outcome_square_sum = 0, 0.0, 0.0
        self.buckets = [0] * (len(LATENCY_BOUNDS_S) + 1)

    def counts(self) -> ArmCounts:
        """A copy that stands still."""
        return ArmCounts(
            num_requests=self.num_requests,
            num_errors=self.num_errors,
            latencies=tuple(self.buckets),
            num_scores=self.num_scores,
            score_sum=self.score_sum,
            score_square_sum=self.score_square_sum,
            num_outcomes=self.num_outcomes,
            outcome_sum=self.outcome_sum,
            outcome_square_sum=self.outcome_square_sum,
        )


class Counters:
    """Requests by status, model and probe; per model what a rollout is judged by."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[int, str, bool]] = Counter()
        self.arms: dict[str, Arm] = {}
        self._probes = Arm()

    def count(
        self,
        status: int,
        digest: str,
        *,
        duration_s: float,
        is_probe: bool,
        scores: Sequence[float] = (),
        instead_of: str = "",
        is_callers_fault: bool = False,
    ) -> None:
        """One finished request. Probes are counted apart.

        Args:
            digest: version that answered or refused; empty when none was asked.
            scores: of the answer.
            instead_of: version that was chosen and gave no answer, so that `digest` was asked. It is the one whose
                request and error this is; nothing here says anything of `digest`.
            is_callers_fault: refused, and no other version would have answered. A request, and nobody's error: a
                caller who repeats it must not convict the version it is stuck to.
        """
        self.requests[status, digest, is_probe] += 1
        arm = self._probes if is_probe else self._arm(instead_of or digest)
        if scores and not is_probe:
            (self._arm(digest) if instead_of else arm).num_rows += len(scores)
        arm.sum_s += duration_s
        arm.buckets[bisect_left(LATENCY_BOUNDS_S, duration_s)] += 1
        if status == GONE:
            return
        arm.num_requests += 1
        if instead_of:
            arm.num_errors += 1
        elif status != OK:
            arm.num_errors += not is_callers_fault
        elif scores:
            mean = scores[0] if len(scores) == 1 else sum(scores) / len(scores)
            arm.num_scores += 1
            arm.score_sum += mean
            arm.score_square_sum += mean * mean

    def _arm(self, digest: str) -> Arm:
        arm = self.arms.get(digest)
        if arm is None:
            arm = self.arms[digest] = Arm()
        return arm

    def count_outcome(self, digest: str, value: float) -> None:
        """What became of one answer, 0 to 1."""
        arm = self._arm(digest)
        arm.num_outcomes += 1
        arm.outcome_sum += value
        arm.outcome_square_sum += value * value

    def render(
        self, *, gauges: Mapping[str, float], totals: Mapping[str, float], weights: Mapping[str, float]
    ) -> bytes:
        """Prometheus text exposition, 0.0.4. `totals` only rise, `gauges` may fall, `weights` are per digest."""
        lines = _header("clearway_serve_requests_total", "counter", "Finished requests.")
        for (status, digest, is_probe), count in sorted(self.requests.items()):
            labels = f'code="{status}",model_digest="{digest}",probe="{str(is_probe).lower()}"'
            lines.append(f"clearway_serve_requests_total{{{labels}}} {count}")
        lines += _header("clearway_serve_rows_total", "counter", "Rows scored for callers.")
        rows = sorted((digest, arm.num_rows) for digest, arm in self.arms.items() if arm.num_rows)
        lines += [f'clearway_serve_rows_total{{model_digest="{d}"}} {n}' for d, n in rows]
        lines += _header("clearway_serve_traffic_weight_pct", "gauge", "Share of traffic per loaded version.")
        lines += [f'clearway_serve_traffic_weight_pct{{model_digest="{d}"}} {w:g}' for d, w in weights.items()]
        lines += self._histogram()
        for kind, values in (("gauge", gauges), ("counter", totals)):
            for name, value in values.items():
                lines += [f"# TYPE clearway_serve_{name} {kind}", f"clearway_serve_{name} {value:g}"]
        return ("\n".join(lines) + "\n").encode()

    def _histogram(self) -> list[str]:
        name = "clearway_serve_request_seconds"
        arms = [*self.arms.values(), self._probes]
        lines, reached = _header(name, "histogram", "Time from headers read to answer sent."), 0
        for i, bound in enumerate((*LATENCY_BOUNDS_S, "+Inf")):
            reached += sum(arm.buckets[i] for arm in arms)
            lines.append(f'{name}_bucket{{le="{bound}"}} {reached}')
        return [*lines, f"{name}_sum {sum(arm.sum_s for arm in arms):.6f}", f"{name}_count {reached}"]


def _header(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]


def parse_metric(text: str, name: str) -> Iterable[tuple[str, float]]:
    """(labels, value) of every sample of one metric; for readers such as the status command and the tests."""
    for line in text.splitlines():
        sample, _, value = line.rpartition(" ")
        base, _, labels = sample.partition("{")
        if base == name:
            yield labels.rstrip("}"), float(value)
