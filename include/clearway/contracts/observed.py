"""What an endpoint counted, per version."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmCounts:
    """What one version did for callers since the server started; probes are not counted. All numbers only rise.

    Args:
        num_requests: requests it was chosen for, but those whose caller hung up.
        num_errors: of these, the ones it gave no scores for. Not what every version refuses, which is the caller's
            fault; but what another version then answered in its place is an error of this one, and of this one alone.
        latencies: finished requests per bound of `Observed.latency_bounds_s`, and those above the last; the wait for
            an answer in its place is part of it.
        num_scores, score_sum, score_square_sum: requests it answered, and moments of the mean score of each: rows of
            one request are not independent of each other.
        num_outcomes, outcome_sum, outcome_square_sum: what callers reported to have become of its answers, 0 to 1 each,
            larger is better.
    """

    num_requests: int
    num_errors: int
    latencies: tuple[int, ...]
    num_scores: int
    score_sum: float
    score_square_sum: float
    num_outcomes: int = 0
    outcome_sum: float = 0.0
    outcome_square_sum: float = 0.0


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


@dataclass(frozen=True, slots=True, kw_only=True)
class MirroredRow:
    """One row that both versions were given, the candidate without being heard.

    Args:
        difference: score of the candidate minus that of the control, as a part of the largest difference there can be
            (-1 to 1); None where the candidate alone gave no answer.
        slices: those it belongs to, as `column=value`.
    """

    difference: float | None
    slices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirrored:
    """Consecutive rows of one process's log of mirrored rows.

    Args:
        log_id: the process that wrote them; each numbers its own rows from 0.
        first: number of the first row.
        at_s: when it was read, Unix seconds.
        epoch: newest epoch that process has seen.
        candidate, control: digests of the versions that answered.
        num_dropped: requests that were not mirrored since mirroring began, because the candidate could not keep up.
    """

    log_id: str
    first: int
    at_s: float
    epoch: int
    candidate: str
    control: str
    rows: tuple[MirroredRow, ...]
    num_dropped: int = 0
