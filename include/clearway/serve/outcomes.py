"""What became of answered requests, reported by callers: each counted once, for the version that answered."""

from collections import OrderedDict
from collections.abc import Container
from typing import Annotated

import msgspec

from clearway.serve.counters import Counters
from clearway.serve.decode import MAX_KEY_LENGTH, MAX_ROWS, parse_whole
from clearway.serve.refusal import Refusal

MAX_SEEN = 100_000  # about 20 MB; the oldest is forgotten first, and would then count again

_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_KEY_LENGTH)]


class Outcome(msgspec.Struct, forbid_unknown_fields=True):
    """One answered row and its value: 0 the worst, 1 the best."""

    key: _Text
    model_digest: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    value: Annotated[float, msgspec.Meta(ge=0, le=1)]
    request_id: _Text | None = None


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    outcomes: list[Outcome]


def read_outcomes(data: bytes) -> list[Outcome]:
    """Raises: Refusal 400 for what is no JSON, 413 for too many, 422 for another shape."""
    try:
        found = msgspec.convert(parse_whole(data), _Body).outcomes
    except msgspec.ValidationError as error:
        raise Refusal(422, "bad_body", f"the body is no list of outcomes: {str(error)[:200]}") from error
    if len(found) > MAX_ROWS:
        raise Refusal(413, "too_many_rows", f"the body has {len(found)} outcomes; allowed: {MAX_ROWS}, split it")
    return found


class Outcomes:
    """Those counted so far; used on the event loop only."""

    def __init__(self, counters: Counters, *, max_seen: int = MAX_SEEN) -> None:
        self._counters, self._max_seen = counters, max_seen
        self._seen: OrderedDict[int, None] = OrderedDict()

    def count(self, outcomes: list[Outcome], *, loaded: Container[str]) -> int:
        """How many were new. Raises: Refusal 422 for a version that is not loaded; then none is counted."""
        for index, outcome in enumerate(outcomes):
            if outcome.model_digest not in loaded:
                text = (
                    f"outcome {index} names version {outcome.model_digest}, which is not loaded; send what it answered"
                )
                raise Refusal(422, "not_loaded", text)
        num_new = 0
        for outcome in outcomes:
            mark = hash((outcome.request_id, outcome.key))
            if mark not in self._seen:
                self._seen[mark] = None
                self._counters.count_outcome(outcome.model_digest, outcome.value)
                num_new += 1
        while len(self._seen) > self._max_seen:
            self._seen.popitem(last=False)
        return num_new
