"""What each version did for callers, from what SageMaker keeps: CloudWatch's minutes, and captured answers.

Requests, errors and latencies are CloudWatch's. A minute counts once it is `delay_s` old and whole: for every request
SageMaker reports one 4XX and one 5XX figure, 0 or 1, so a minute in which their numbers differ is still arriving, and
nothing from it on is counted. A reading whose newest minute is too old says so by its time, and clears nobody.

Scores are those of the captured answers, by the digest that the container itself wrote into them.
"""

import dataclasses
import json
import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from clearway.contracts.errors import Unavailable
from clearway.contracts.observed import ArmCounts
from clearway.infra.aws.client import MAX_ATTEMPTS, client, complete, explained
from clearway.infra.aws.endpoint_control import Held
from clearway.infra.storage import Storage, join

log = logging.getLogger("clearway.endpoint")

# Bounds that CloudWatch is asked for, in seconds; each is one metric of the bill.
LATENCY_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 10.0)
MINUTE_S = 60
HOUR_S = 3600
# The driver looks every second; CloudWatch has news once a minute and is paid per question.
REFRESH_S = 30.0
MAX_QUERIES = 500  # of one GetMetricData call
LATE_S = 2 * HOUR_S  # files of captured answers may come this late
_SUMS = {
    "requests": "Invocations",
    "e4": "Invocation4XXErrors",
    "e5": "Invocation5XXErrors",
    "em": "InvocationModelErrors",
}
_COUNTS = {"n4": "Invocation4XXErrors", "n5": "Invocation5XXErrors", "timed": "ModelLatency"}
Minutes = dict[str, dict[int, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """One reading.

    Args:
        at_s: up to when it may be taken for the present; stands still while no minute comes.
        begin_s: nothing before this minute is counted; another one means that counting began anew.
        until_s: nothing from this minute on is counted.
        errors: digest → minute → requests it gave no answer to.
    """

    at_s: float
    begin_s: int
    arms: dict[str, ArmCounts]
    until_s: int = 0
    errors: dict[str, dict[int, int]] = field(default_factory=dict)


@dataclass(slots=True)
class _Scores:
    """Sums of one version's scores; changed in place, since answers come one by one and never twice."""

    num: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, score: float) -> None:
        self.num, self.total, self.squares = self.num + 1, self.total + score, self.squares + score * score


@dataclass(slots=True)
class _Captured:
    """What was read of one version so far."""

    seen: set[str] = field(default_factory=set)
    read_s: float = 0.0
    scores: _Scores = field(default_factory=_Scores)


class EndpointMetrics:
    """Readings of one endpoint. Args: capture_uri: folder of captured answers; "" where none are."""

    def __init__(self, endpoint: str, *, storage: Storage, capture_uri: str, delay_s: float) -> None:
        self._endpoint, self._storage, self._capture_uri, self._delay_s = endpoint, storage, capture_uri, delay_s
        self._captured: dict[str, _Captured] = {}
        self._held: Mapping[str, Held] = {}
        self._begin_s, self._read_s = 0, -math.inf
        self._last = Counted(at_s=0.0, begin_s=0, arms={})

    def read(self, held: Mapping[str, Held], *, now_s: float, since_s: float | None = None) -> Counted:
        """Counts of these versions since they were first read together, or since then. Raises: Unavailable."""
        if self._held != held:
            self._held, self._captured, self._read_s = dict(held), {}, -math.inf
            self._begin_s = int((now_s if since_s is None else since_s) // MINUTE_S) * MINUTE_S
        if now_s - self._read_s >= REFRESH_S:
            self._last, self._read_s = self._read(held, now_s=now_s), now_s
        return dataclasses.replace(self._last, at_s=min(now_s, self._last.at_s))

    def _read(self, held: Mapping[str, Held], *, now_s: float) -> Counted:
        until, first = int((now_s - self._delay_s) // MINUTE_S) * MINUTE_S, self._begin_s
        minutes = self._asked(held, first, until) if held and until > first else {digest: _nothing() for digest in held}
        until = min([until, *(m for kept in minutes.values() for m in _unfinished(kept))])
        newest = max((m for kept in minutes.values() for m in kept["requests"] if m < until), default=first)
        whole = {digest: _until(minutes[digest], until) for digest in held}
        errors = {digest: _errors(whole[digest]) for digest in held}
        arms = {
            digest: _arm(whole[digest], errors[digest], self._scores(digest, held[digest], now_s=now_s))
            for digest in held
        }
        at_s = newest + 2 * MINUTE_S + self._delay_s + REFRESH_S
        return Counted(at_s=at_s, begin_s=first, arms=arms, until_s=until, errors=errors)

    def _asked(self, held: Mapping[str, Held], first: int, until: int) -> dict[str, Minutes]:
        queries, meant = [], dict[str, tuple[str, str]]()
        for arm, (digest, version) in enumerate(sorted(held.items())):
            for name, metric, stat in _questions():
                meant[f"a{arm}_{name}"] = digest, name
                queries.append(_query(f"a{arm}_{name}", self._endpoint, version.variant, metric, stat))
        found = {digest: _nothing() for digest in held}
        for start in range(0, len(queries), MAX_QUERIES):
            for result in self._results(queries[start : start + MAX_QUERIES], first, until):
                digest, name = meant[result["Id"]]
                for at, value in zip(result["Timestamps"], result["Values"], strict=True):
                    found[digest][name][int(at.timestamp()) // MINUTE_S * MINUTE_S] = float(value)
        return found

    def _results(self, queries: list[dict[str, Any]], first: int, until: int) -> Iterator[dict[str, Any]]:
        asked: dict[str, Any] = {
            "MetricDataQueries": queries,
            "StartTime": datetime.fromtimestamp(first, UTC),
            "EndTime": datetime.fromtimestamp(until, UTC),
        }
        while True:
            with explained(f"metrics of endpoint {self._endpoint}"):
                page = self._whole_page(asked)
            yield from page["MetricDataResults"]
            if not page.get("NextToken"):
                return
            asked["NextToken"] = page["NextToken"]

    def _whole_page(self, asked: dict[str, Any]) -> dict[str, Any]:
        """A page in which CloudWatch left nothing out for an error of its own."""
        for _ in range(MAX_ATTEMPTS):
            page = complete(client("cloudwatch").get_metric_data, "MetricDataResults", **asked)
            bad = [r["Id"] for r in page["MetricDataResults"] if r.get("StatusCode") in {"InternalError", "Forbidden"}]
            if not bad:
                return page
        raise Unavailable(f"CloudWatch does not tell {bad} of endpoint {self._endpoint}; try again")

    def _scores(self, digest: str, version: Held, *, now_s: float) -> _Scores:
        if not self._capture_uri:
            return _Scores()
        kept = self._captured.setdefault(digest, _Captured())
        folder, first_s = (
            join(self._capture_uri, self._endpoint, version.variant),
            max(self._begin_s, kept.read_s - LATE_S),
        )
        for data in unread_captures(self._storage, folder, seen=kept.seen, first_s=first_s, now_s=now_s):
            for score in captured_scores(data, digest=digest, since_s=self._begin_s):
                kept.scores.add(score)
        kept.read_s = now_s
        return kept.scores


def unread_captures(storage: Storage, folder: str, *, seen: set[str], first_s: float, now_s: float) -> Iterator[bytes]:
    """What was captured of a variant in the hours from `first_s` to now, file by file; `seen` grows by each."""
    for hour in range(int(first_s // HOUR_S), int(now_s // HOUR_S) + 1):
        for uri in storage.list(join(folder, f"{datetime.fromtimestamp(hour * HOUR_S, UTC):%Y/%m/%d/%H}")):
            if uri not in seen:
                data = storage.read(uri)
                seen.add(uri)
                yield data


def captured_scores(data: bytes, *, digest: str, since_s: float) -> Iterator[float]:
    """Mean score of each captured answer that this version gave to a caller; probes say so and are left out."""
    for line in data.decode("utf-8", "replace").splitlines():
        try:
            record = json.loads(line)
            at = datetime.fromisoformat(record["eventMetadata"]["inferenceTime"])
            answer = json.loads(record["captureData"]["endpointOutput"]["data"])
            is_ours = answer["model_digest"] == digest and at.timestamp() >= since_s and not answer.get("is_probe")
            scores = [float(score) for score in answer["predictions"]] if is_ours else []
        except (ValueError, KeyError, TypeError, AttributeError):
            log.warning("a captured answer cannot be read and counts for nothing", extra={"line": line[:200]})
            continue
        if scores:
            yield sum(scores) / len(scores)


def _questions() -> Iterator[tuple[str, str, str]]:
    for name, metric in _SUMS.items():
        yield name, metric, "Sum"
    for name, metric in _COUNTS.items():
        yield name, metric, "SampleCount"
    for i, bound_s in enumerate(LATENCY_BOUNDS_S):
        yield f"le{i}", "ModelLatency", f"PR(:{bound_s * 1e6:.0f})"  # percent of values up to this many microseconds


def _query(name: str, endpoint: str, variant: str, metric: str, stat: str) -> dict[str, Any]:
    dimensions = [{"Name": "EndpointName", "Value": endpoint}, {"Name": "VariantName", "Value": variant}]
    asked = {"Namespace": "AWS/SageMaker", "MetricName": metric, "Dimensions": dimensions}
    return {"Id": name, "MetricStat": {"Metric": asked, "Period": MINUTE_S, "Stat": stat}}


def _nothing() -> Minutes:
    return {name: {} for name, _, _ in _questions()}


def _until(found: Minutes, end: int) -> Minutes:
    return {name: {m: v for m, v in values.items() if m < end} for name, values in found.items()}


def _unfinished(found: Minutes) -> Iterator[int]:
    """Minutes of which not everything has arrived."""
    names = ("requests", "n4", "n5")
    for minute in {m for name in (*names, "timed") for m in found[name]}:
        asked, *others = (found[name].get(minute, 0.0) for name in names)
        num_timed = asked - found["em"].get(minute, 0.0)  # at least; what never came back has no latency
        if any(other != asked for other in others) or found["timed"].get(minute, 0.0) < num_timed:
            yield minute


def _errors(found: Minutes) -> dict[int, int]:
    """Minute → requests without an answer; a refusal (4XX) is the caller's, not an error."""
    errors = {}
    for minute, value in found["requests"].items():
        refused, failed = (round(found[name].get(minute, 0.0)) for name in ("e4", "e5"))
        unanswered = round(found["em"].get(minute, 0.0)) - refused  # with those that the container never answered
        errors[minute] = min(round(value), max(failed, unanswered))
    return errors


def _arm(found: Minutes, errors: Mapping[int, int], scores: _Scores) -> ArmCounts:
    """Totals. What was not timed counts as slower than every bound."""
    num, buckets = 0, [0] * (len(LATENCY_BOUNDS_S) + 1)
    for minute, value in found["requests"].items():
        asked = round(value)
        num += asked
        timed, reached = round(found["timed"].get(minute, 0.0)), 0
        for i in range(len(LATENCY_BOUNDS_S)):
            up_to = max(reached, min(timed, round(timed * found[f"le{i}"].get(minute, 0.0) / 100)))
            buckets[i] += up_to - reached
            reached = up_to
        buckets[-1] += max(asked, timed) - reached
    return ArmCounts(
        num_requests=num,
        num_errors=sum(errors.values()),
        latencies=tuple(buckets),
        num_scores=scores.num,
        score_sum=scores.total,
        score_square_sum=scores.squares,
    )
