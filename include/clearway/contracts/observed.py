"""What an endpoint counted, per version."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmCounts:
    """What one version did for callers since the server started; probes are not counted. All numbers only rise.

    Args:
        num_requests: requests it was chosen for.
        num_errors: of these, not answered with scores, for whatever reason but a caller who hung up.
        latencies: answered requests per bound of `Observed.latency_bounds_s`, and those above the last.
        num_scores, score_sum, score_square_sum: rows scored, and moments of their scores.
    """

    num_requests: int
    num_errors: int
    latencies: tuple[int, ...]
    num_scores: int
    score_sum: float
    score_square_sum: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """One reading of an endpoint's counters.

    Args:
        server_id: the process that counted; another id means that counting began anew.
        at_s: Unix seconds of the reading, by the endpoint's clock.
        epoch: newest epoch the endpoint has seen.
        latency_bounds_s: upper bounds in seconds, rising.
        arms: digest → counts.
    """

    server_id: str
    at_s: float
    epoch: int
    latency_bounds_s: tuple[float, ...]
    arms: dict[str, ArmCounts]
