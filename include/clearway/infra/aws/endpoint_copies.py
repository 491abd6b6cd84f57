"""What became of copies of requests: answers of the shadow variant beside those that callers got, row by row.

SageMaker captures what both variants were asked and what they answered. Two answers belong together when both versions
were asked the very same bytes: a version answers the same request the same way each time, so it does not matter which
of several equal requests is which. Callers need to send nothing for it, and nothing is guessed.

Rows are kept in the store, in numbered chunks that are created once each, so that whoever drives the rollout next goes
on counting where the one before stopped:

    <store>/endpoints/<name>/copies/<log>/00000012.json

Requests that the shadow never answered are captured nowhere. They are counted by CloudWatch, minute by minute: those
that it failed beyond what the answering version failed in the same minute. Nothing younger than CloudWatch's newest
whole minute is counted at all, so a candidate that breaks down does not pass by its answers from before.
"""

import hashlib
import json
import logging
import math
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from clearway.contracts.errors import Unavailable
from clearway.contracts.manifest import canonical_json
from clearway.contracts.observed import Mirrored, MirroredRow
from clearway.infra.aws.endpoint_control import MAX_TRIES, Copies, Giving, Held
from clearway.infra.aws.endpoint_metrics import LATE_S, REFRESH_S, Counted, EndpointMetrics, unread_captures
from clearway.infra.storage import Storage, join

log = logging.getLogger("clearway.endpoint")

MAX_ROWS_PER_READING = 5_000
MAX_PAIRS_PER_CHUNK = 5_000  # the rest comes half a minute later
NOT_TRIED = 503  # what a container says when too much is under way (serve/copied.py)
Row = tuple[float | None, list[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answered:
    """One captured request. `scores`: None where it has none; `failed`: the status instead; `slices`: per row."""

    at_s: float
    asked: str
    scores: list[float] | None
    failed: int = 0
    slices: list[list[str]] = field(default_factory=list)


class _Side:
    """What one variant answered and is not paired yet, by what it was asked."""

    def __init__(self) -> None:
        self.seen = set[str]()
        self.waiting = defaultdict[str, deque[_Answered]](deque)
        self._paired = Counter[str]()  # by whoever read before, and not met here yet

    def add(self, answered: _Answered) -> None:
        if self._paired[answered.asked]:
            self._paired[answered.asked] -= 1
        else:
            self.waiting[answered.asked].append(answered)

    def take(self, asked: str) -> None:
        """One of them is paired."""
        if asked not in self.waiting:
            self._paired[asked] += 1
            return
        self.waiting[asked].popleft()
        if not self.waiting[asked]:
            del self.waiting[asked]


class CopiedRows:
    """Rows of one endpoint's copies.

    Args:
        home: folder of what we know of the endpoint.
        capture_uri: folder of captured answers.
        metrics: for this alone, since a reading belongs to the variants that are asked for.
    `on_file` is called after each file of captured answers: there may be hundreds.
    """

    def __init__(
        self, endpoint: str, *, storage: Storage, home: str, capture_uri: str, metrics: EndpointMetrics
    ) -> None:
        self._endpoint, self._storage, self._home, self._capture_uri = endpoint, storage, home, capture_uri
        self._metrics = metrics
        self.on_file: Callable[[], None] = lambda: None
        self._log_id, self._read_s, self._folders_s = "", -math.inf, 0.0
        self._rows, self._num_chunks, self._num_unanswered, self._num_not_tried = list[MirroredRow](), 0, 0, 0
        self._ours, self._theirs = _Side(), _Side()
        self._counted = Counted(at_s=0.0, begin_s=0, arms={})

    def read(self, copies: Copies, *, first: int, epoch: int, now_s: float) -> Mirrored:
        """Rows from number `first` of the newest log on. Raises: Unavailable."""
        if copies.log_id != self._log_id:
            self._begin(copies.log_id)
            self._take_chunks()
        if copies.giving is Giving.GIVEN and now_s - self._read_s >= REFRESH_S:
            self._refresh(copies, now_s)
            self._read_s = now_s
        begin = min(first, len(self._rows))
        return Mirrored(
            log_id=copies.log_id,
            first=begin,
            at_s=min(now_s, self._counted.at_s) if copies.giving is Giving.GIVEN else now_s,
            epoch=epoch,
            candidate=copies.digest if copies.log_id else "",
            control=copies.control if copies.log_id else "",
            rows=tuple(self._rows[begin : begin + MAX_ROWS_PER_READING]),
            num_dropped=self._num_dropped(copies),
        )

    def _begin(self, log_id: str) -> None:
        self._log_id, self._read_s, self._folders_s = log_id, -math.inf, 0.0
        self._rows, self._num_chunks, self._num_unanswered, self._num_not_tried = [], 0, 0, 0
        self._ours, self._theirs = _Side(), _Side()
        self._counted = Counted(at_s=0.0, begin_s=0, arms={})

    def _refresh(self, copies: Copies, now_s: float) -> None:
        places = {copies.control: copies.control_variant, copies.digest: copies.variant}
        held = {d: Held(uri="", variant=variant, since_s=copies.since_s) for d, variant in places.items()}
        self._counted = self._metrics.read(held, now_s=now_s, since_s=copies.since_s)
        self._gather(self._ours, copies.control_variant, copies.control, since_s=copies.since_s, now_s=now_s)
        self._gather(self._theirs, copies.variant, copies.digest, since_s=copies.since_s, now_s=now_s)
        self._folders_s = now_s
        for _ in range(MAX_TRIES):
            self._take_chunks()
            pairs = [[asked, rows] for asked, rows in self._pairs(until_s=self._counted.until_s)]
            unanswered = max(0, _unanswered(self._counted, copies) - self._num_unanswered)
            if not pairs and not unanswered:
                return
            chunk = {"pairs": pairs, "unanswered": unanswered}
            if self._storage.create(self._address(self._num_chunks), canonical_json(chunk)):
                self._apply(json.loads(canonical_json(chunk)))
                return
        raise Unavailable(f"{self._address(self._num_chunks)} is written by others all the time; try again")

    def _pairs(self, *, until_s: float) -> Iterator[tuple[str, list[Row] | None]]:
        """What was asked, and what both answered row by row; None where the shadow had too much to do."""
        num = 0
        for asked, theirs in self._theirs.waiting.items():
            ours = [answered for answered in self._ours.waiting.get(asked, ()) if answered.at_s < until_s]
            for one, other in zip(ours, theirs, strict=False):
                if num == MAX_PAIRS_PER_CHUNK:
                    return
                num += 1
                yield asked, None if other.failed == NOT_TRIED else _row_by_row(one, other)

    def _apply(self, chunk: dict[str, Any]) -> None:
        for asked, rows in chunk["pairs"]:
            self._ours.take(asked)
            self._theirs.take(asked)
            self._num_not_tried += rows is None
            self._rows += [MirroredRow(difference=gap, slices=tuple(slices)) for gap, slices in rows or ()]
        self._rows += [MirroredRow(difference=None)] * chunk["unanswered"]
        self._num_unanswered += chunk["unanswered"]
        self._num_chunks += 1

    def _take_chunks(self) -> None:
        """Those that are in the store and not applied yet."""
        if not self._log_id:
            return
        for uri in self._storage.list(join(self._home, "copies", self._log_id))[self._num_chunks :]:
            self._apply(json.loads(self._storage.read(uri)))

    def _address(self, number: int) -> str:
        return join(self._home, "copies", self._log_id, f"{number:08d}.json")

    def _gather(self, side: _Side, variant: str, digest: str, *, since_s: float, now_s: float) -> None:
        folder, first_s = join(self._capture_uri, self._endpoint, variant), max(since_s, self._folders_s - LATE_S)
        for data in unread_captures(self._storage, folder, seen=side.seen, first_s=first_s, now_s=now_s):
            for answered in _captured(data, digest=digest, since_s=since_s):
                side.add(answered)
            self.on_file()

    def _num_dropped(self, copies: Copies) -> int:
        """Requests that the answering version got and the shadow got no copy of, or did not try."""
        arms = self._counted.arms
        if copies.control not in arms or copies.digest not in arms:
            return self._num_not_tried
        return self._num_not_tried + max(0, arms[copies.control].num_requests - arms[copies.digest].num_requests)


def _unanswered(counted: Counted, copies: Copies) -> int:
    """Copies without an answer, where the version that callers heard did answer."""
    theirs, ours = counted.errors.get(copies.digest, {}), counted.errors.get(copies.control, {})
    return sum(max(0, num - ours.get(minute, 0)) for minute, num in theirs.items())


def _row_by_row(ours: _Answered, theirs: _Answered) -> list[Row]:
    """Differences as parts of the largest there can be, one unit; None per row where the shadow has no scores."""
    assert ours.scores is not None
    num = len(ours.scores)
    found: list[float | None] = [None] * num
    if theirs.scores is not None and len(theirs.scores) == num:
        found = [max(-1.0, min(1.0, b - a)) for a, b in zip(ours.scores, theirs.scores, strict=True)]
    slices = theirs.slices if len(theirs.slices) == num else [list[str]()] * num
    return list(zip(found, slices, strict=True))


def _captured(data: bytes, *, digest: str, since_s: float) -> Iterator[_Answered]:
    """Requests that this version was asked since then; probes, and what only the shadow failed to score, marked so."""
    for line in data.decode("utf-8", "replace").splitlines():
        try:
            record = json.loads(line)
            at_s = datetime.fromisoformat(record["eventMetadata"]["inferenceTime"]).timestamp()
            if at_s < math.floor(since_s):  # times are whole seconds; what was captured before has no input either
                continue
            asked, answer = record["captureData"]["endpointInput"], record["captureData"]["endpointOutput"]["data"]
            said = json.loads(answer)
            if not isinstance(said, dict) or said.get("model_digest") != digest or said.get("is_probe"):
                continue
            scores = [float(score) for score in said["predictions"]] if "failed" not in said else None
            yield _Answered(
                at_s=at_s,
                asked=hashlib.sha256(f"{asked.get('encoding')}\n{asked['data']}".encode()).hexdigest()[:32],
                scores=scores,
                failed=int(said.get("failed", 0)),
                slices=[[str(name) for name in names] for names in said.get("slices", ())],
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            log.warning("a captured request cannot be read and counts for nothing", extra={"line": line[:200]})
