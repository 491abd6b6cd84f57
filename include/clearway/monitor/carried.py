"""What one batch hands to the next: counts, held features, the stream of tests, what labels taught. Pure.

Kept in every summary, so that a batch reads the summary before it and no history.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy.typing as npt

from clearway.measures.false_discovery import Stream
from clearway.monitor.drift_part import DriftPart, FeatureDrift
from clearway.monitor.estimate import Estimator
from clearway.product_monitor import Monitor

# A held feature is back within its limit up to this multiple of it: one in twenty calm batches is just above 1.
CALM_EXCESS = 1.5
# Up to this multiple a feature is near enough to its limit to jump from there. On flights nothing that was this near
# came further than 6.0 times beyond its limit within a week, so it costs no false hold; with 1.5, other codes of the
# carriers after a week at 1.6 were no jump.
JUMP_FROM = 3.0
# Of a feature's values, the share that training never held, with which it is still known, and with which it is strange.
# On flights no week brought more than 0.31, nor 0.30 more than the week before; another unit brings at least 0.83.
KNOWN_UNSEEN, STRANGE_UNSEEN = 0.25, 0.7
# How many times larger or smaller than in any training batch values are that still have their size, and that have
# another one. On flights no week of 58,862 was beyond 3.2 times; hours for minutes are 60 times smaller, less what the
# world does meanwhile.
SAME_SIZE, OTHER_SIZE = 2.0, 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """The state after one batch.

    Args:
        model_digest: champion the counts belong to; another one starts them anew.
        num_batches, num_new_rows: since its first batch, this one included.
        num_unlabelled: batches in a row without enough labels to judge it. had_labels: whether it ever was judged.
        sudden: features that jumped from within their limit to far beyond it, and have not come back.
        calm: features near their limit or within it in the newest batch, whoever served; only from there can one jump.
        strange, known: the same by values that training never held, however near they lie.
        resized, sized: the same by how large values are, zeros apart; a batch without enough of them leaves both.
        stream: window by window, whether anything changed at all; see `false_discovery`.
    """

    model_digest: str | None = None
    num_batches: int = 0
    num_new_rows: int = 0
    num_unlabelled: int = 0
    had_labels: bool = False
    sudden: tuple[str, ...] = ()
    calm: tuple[str, ...] = ()
    strange: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    resized: tuple[str, ...] = ()
    sized: tuple[str, ...] = ()
    stream: Stream = field(default_factory=Stream)
    estimator: Estimator = field(default_factory=Estimator)

    @property
    def held(self) -> tuple[str, ...]:
        """Features that a person has to look at before anything is trained on them."""
        return tuple(sorted({*self.sudden, *self.strange, *self.resized}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """Rows on which the champion could be judged with a batch: those whose labels came with it. [N]

    `labels`, `scores`: None of rows that are labels of their own, which teach nothing about other scores.
    """

    labels: npt.ArrayLike | None
    scores: npt.ArrayLike | None
    num_rows: int


def carry(
    before: Carried,
    *,
    champion: str | None,
    num_passed: int,
    drift: DriftPart | None,
    is_faulty: bool,
    arrived: Arrived,
    policy: Monitor,
) -> Carried:
    """The state after this batch.

    Args:
        num_passed: batches from the one `before` belongs to until this one; 1 if it was the last.
        is_faulty: input was lost; such a batch says nothing about features.
    """
    mine = before if before.model_digest == champion else _begun(before, champion)
    is_judged, estimator = arrived.num_rows >= policy.min_rows, mine.estimator
    if is_judged and arrived.labels is not None and arrived.scores is not None:
        estimator = estimator.after(arrived.labels, arrived.scores)
    after = dataclasses.replace(
        mine,
        num_batches=mine.num_batches + (num_passed if mine.num_batches else 1),
        num_new_rows=mine.num_new_rows + arrived.num_rows,
        num_unlabelled=0 if is_judged else mine.num_unlabelled + (num_passed if mine.num_batches else 1),
        had_labels=mine.had_labels or is_judged,
        estimator=estimator,
    )
    if drift is None or is_faulty:
        return after
    stream = mine.stream
    if drift.p_value is not None:
        stream = stream.after(drift.p_value, alpha=policy.false_discovery_rate)
    return dataclasses.replace(
        after,
        sudden=_jumped(drift.features, policy, mine.calm, mine.sudden, is_calm=_is_calm, is_far=_is_far(policy)),
        calm=tuple(sorted(f.name for f in drift.features if _is_calm(f, up_to=JUMP_FROM))),
        strange=_jumped(drift.features, policy, mine.known, mine.strange, is_calm=_is_known, is_far=_is_strange),
        known=tuple(sorted(f.name for f in drift.features if _is_known(f) or _is_silent(f, mine.known))),
        resized=_jumped(drift.features, policy, mine.sized, mine.resized, is_calm=_has_its_size, is_far=_has_another),
        sized=tuple(sorted(f.name for f in drift.features if _has_its_size(f) or _is_unsized(f, mine.sized))),
        stream=stream,
    )


def _begun(before: Carried, champion: str | None) -> Carried:
    """A champion's first batch. What was calm stays known: a fault may begin with this very batch.

    Limits differ, but none of 732 changes of champions on flights made a calm feature jump (docs/reference/drift.md).
    """
    return Carried(
        model_digest=champion,
        calm=before.calm,
        known=before.known,
        sized=before.sized,
        estimator=before.estimator.of(champion),
    )


def _jumped(
    features: Sequence[FeatureDrift],
    policy: Monitor,
    calm: Sequence[str],
    held: Sequence[str],
    *,
    is_calm: Callable[[FeatureDrift], bool],
    is_far: Callable[[FeatureDrift], bool],
) -> tuple[str, ...]:
    """Features that were calm in the batch before and are far off now, and those held since then that are not calm."""
    if not policy.sudden_excess:
        return ()
    counted = [f for f in features if not (f.is_ignored or f.is_lost)]
    jumped = {f.name for f in counted if f.name in calm and is_far(f)}
    return tuple(sorted(jumped | {f.name for f in counted if f.name in held and not is_calm(f)}))


def _is_far(policy: Monitor) -> Callable[[FeatureDrift], bool]:
    return lambda feature: _excess(feature) >= policy.sudden_excess


def _is_calm(feature: FeatureDrift, *, up_to: float = CALM_EXCESS) -> bool:
    return feature.distance is not None and feature.limit is not None and _excess(feature) <= up_to


def _is_known(feature: FeatureDrift) -> bool:
    return feature.unseen is not None and feature.unseen <= KNOWN_UNSEEN


def _is_silent(feature: FeatureDrift, known: Sequence[str]) -> bool:
    """Whether it said nothing in this batch, and was known: a week without rain says nothing of its unit."""
    return feature.unseen is None and feature.name in known


def _is_strange(feature: FeatureDrift) -> bool:
    return feature.unseen is not None and feature.unseen >= STRANGE_UNSEEN


def _has_its_size(feature: FeatureDrift) -> bool:
    return feature.size_factor is not None and feature.size_factor <= SAME_SIZE


def _has_another(feature: FeatureDrift) -> bool:
    return feature.size_factor is not None and feature.size_factor >= OTHER_SIZE


def _is_unsized(feature: FeatureDrift, sized: Sequence[str]) -> bool:
    return feature.size_factor is None and feature.name in sized


def _excess(feature: FeatureDrift) -> float:
    return feature.distance / feature.limit if feature.distance is not None and feature.limit else 0.0
