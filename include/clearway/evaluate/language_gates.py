"""The gates of a language model: evidence in, checks out. Pure; one function per question, all listed in GATES.

Bits per byte: smaller is better. FAIL: the evidence speaks against the model. INCONCLUSIVE: it does not speak clearly
enough, so a person decides.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from clearway.contracts.verdict import Check, Judgement, Verdict, at_least, at_most, judge
from clearway.evaluate.evidence import CANDIDATE, CHAMPION
from clearway.evaluate.gates import first_model
from clearway.evaluate.language_evidence import COMPRESSOR, TextComparison, TextEvidence
from clearway.product_language import LanguageGates

# As for rows and days: fewer blocks make the paired intervals useless.
MIN_BLOCKS = 5
# Share of what the champion saves against the compressor that a successor may give up: nine tenths of the proven effect
# stay (the fixed-margin rule of non-inferiority trials, ICH E10).
TOLERATED_SHARE = 0.1
# A slice is fewer texts than all of them, so it may lose twice as much before it counts as broken.
SLICE_ROOM = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TextCase:
    """All a gate may look at.

    Args:
        has_champion: whether the release document names one, comparable or not.
        schema: the package's input columns. `text`: the declared one.
    """

    evidence: TextEvidence
    gates: LanguageGates
    has_champion: bool
    schema: tuple[str, ...]
    text: str

    @property
    def margin(self) -> float:
        """How many more bits per byte than the champion's are still as good; 0 where it saved nothing."""
        known = self.evidence.comparisons.get(CHAMPION)
        return 0.0 if known is None else TOLERATED_SHARE * max(0.0, known.bits_compressor - known.bits_other)


def judge_texts(case: TextCase, extra: Iterable[Check] = ()) -> Judgement:
    """Every gate, in the order of GATES, then what was measured outside (latency, the live server)."""
    return judge([check for gate in GATES for check in gate(case)] + list(extra))


def reads_the_text_alone(case: TextCase) -> Iterator[Check]:
    """Exactly the declared column."""
    holds = case.schema == (case.text,)
    reason = f"the model reads {list(case.schema)}, declared is {case.text!r}"
    yield Check(name="columns_declared", verdict=Verdict.PASS if holds else Verdict.FAIL, reason=reason)


def enough_evidence(case: TextCase) -> Iterator[Check]:
    """Blocks of akin texts are the unit of evidence."""
    found = case.evidence
    verdict = Verdict.PASS if found.num_blocks >= MIN_BLOCKS else Verdict.INCONCLUSIVE
    reason = (
        f"{found.num_documents} documents of {found.num_blocks} blocks; {found.num_repeated} more stand in the "
        "training part and were left out"
    )
    yield Check(
        name="holdout_blocks", verdict=verdict, value=float(found.num_blocks), bound=float(MIN_BLOCKS), reason=reason
    )


def plausible(case: TextCase) -> Iterator[Check]:
    """Good enough to serve, not too good to be true."""
    bits = case.evidence.bits[CANDIDATE]
    yield at_most("bits_max", bits, case.gates.bits_max, reason="bits per byte of held-out text")
    yield at_least("bits_min", bits, case.gates.bits_min, reason="fewer than this is a leak until shown otherwise")


def no_jump(case: TextCase) -> Iterator[Check]:
    """A sudden large gain over the champion is a leak until shown otherwise; over one above the limit it is none."""
    comparison = case.evidence.comparisons.get(CHAMPION)
    if comparison is None:
        return
    if comparison.bits_other > case.gates.bits_max:
        reason = f"the champion's {comparison.bits_other:.4f} bits are beyond the limit itself; a gain says nothing"
        yield Check(name="bits_jump", verdict=Verdict.PASS, reason=reason, is_decisive=False)
        return
    gain = -comparison.difference.estimate
    yield at_most("bits_jump", gain, case.gates.bits_jump, reason="bits per byte gained over the champion")


def better_than_a_compressor(case: TextCase) -> Iterator[Check]:
    """What needs no training at all is the price of not thinking."""
    comparison = case.evidence.comparisons.get(COMPRESSOR)
    if comparison is None:
        reason = f"fewer than {MIN_BLOCKS} blocks; no comparison with the compressor could be made"
        yield Check(name="better_than[compressor]", verdict=Verdict.INCONCLUSIVE, reason=reason)
        return
    yield _within("better_than[compressor]", comparison, 0.0)


def not_worse_than_champion(case: TextCase) -> Iterator[Check]:
    """What serves now, on the documents it has not seen either."""
    if CHAMPION in case.evidence.comparisons:
        yield _within("not_worse[champion]", case.evidence.comparisons[CHAMPION], case.margin)
    elif case.has_champion:
        reason = (
            f"the champion is of another kind, or was trained on all but fewer than {MIN_BLOCKS} blocks of these "
            "documents; no fair comparison is possible"
        )
        yield Check(name="champion_comparable", verdict=Verdict.INCONCLUSIVE, reason=reason)
    else:
        yield first_model(case.gates.first_model)


def slices_hold(case: TextCase) -> Iterator[Check]:
    """No group may be much worse off than everybody; small groups are reported, not gated."""
    gated = [s for s in case.evidence.slices if s.is_gated]
    for s in gated:
        over = "bits per byte over the compressor's on the same texts"
        yield at_most(f"slice_compressor[{s.name}]", s.over_compressor, 0.0, reason=over)
        if s.over_champion is not None:
            over = "bits per byte over the champion's on the same texts"
            yield at_most(f"slice_champion[{s.name}]", s.over_champion, SLICE_ROOM * case.margin, reason=over)
    if not gated:
        few = f"no slice has {case.gates.min_slice_documents} documents"
        yield Check(name="slices", verdict=Verdict.PASS, reason=few, is_decisive=False)


def _within(name: str, comparison: TextComparison, margin: float) -> Check:
    """PASS if even the unfavourable bound is within the margin, FAIL if the estimate is not, else INCONCLUSIVE."""
    found = comparison.difference
    check = at_most(name, found.upper, margin)
    reason = (
        f"bits per byte above the {comparison.other}: {found.estimate:+.4f}, at most {found.upper:+.4f}; "
        f"margin {margin:.4f}"
    )
    if check.verdict is Verdict.FAIL and found.estimate <= margin:
        reason += "; the estimate is within the margin, its bound is not: more documents or a person must decide"
        return Check(name=name, verdict=Verdict.INCONCLUSIVE, value=found.upper, bound=margin, reason=reason)
    return Check(name=name, verdict=check.verdict, value=found.upper, bound=margin, reason=reason)


# The order is the order of the report. To add a gate: a function like those above, a line here, a planted model in the
# tests that it alone stops.
GATES: tuple[Callable[[TextCase], Iterator[Check]], ...] = (
    reads_the_text_alone,
    enough_evidence,
    plausible,
    no_jump,
    not_worse_than_champion,
    better_than_a_compressor,
    slices_hold,
)
