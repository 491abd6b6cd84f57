"""Two versions that answered the same rows, one of them unheard: differences row by row, over all rows and per slice.

For differences of predictions (is the new model another one?), of losses once labels are there, of a business metric:
whatever the caller subtracts, candidate minus control, divided by the largest difference there can be.

alpha     chance that a harmless candidate is ever found harmful, shared by Bonferroni between the decisive groups: all
          rows, and each slice. A slice found harmful is then named, which an average of e-values could not do.
beta      chance that a candidate worse by the margin passes. Every decisive group must show "no harm" by itself.

Rows are numbered by the log they come from, so a row delivered again is not counted again, and a row that is missing is
noticed. A row that only the candidate failed to answer counts as the largest difference: a model must not look well by
crashing on what is hard.
"""

import dataclasses
import math
from dataclasses import dataclass
from enum import StrEnum

from clearway.contracts.errors import ConfigError
from clearway.contracts.observed import Mirrored, MirroredRow
from clearway.contracts.verdict import Check, Judgement, Verdict, judge
from clearway.evidence import paired
from clearway.evidence.curve import Point, with_point
from clearway.evidence.paired import NO_BAND, NO_BETS, Band
from clearway.evidence.reading import MAX_AGE_S
from clearway.evidence.two_rates import shown

ALL = "all"


class Direction(StrEnum):
    """WORSE: larger is worse (losses); SHIFTED: both ways are too much (predictions)."""

    WORSE = "worse"
    SHIFTED = "shifted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """All rows, or those of one slice.

    Args:
        name: `ALL`, or a slice as rows name it.
        is_decisive: False for a dry run: measured and reported, never counted.
    """

    name: str
    is_decisive: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What is judged.

    Args:
        margin: mean difference that is too much, as a part of the largest there can be.
        tolerated: mean difference up to which it is no harm yet; at most `margin`. WORSE only: SHIFTED has `margin`.
    """

    alpha: float
    beta: float
    direction: Direction
    margin: float
    groups: tuple[Group, ...] = (Group(name=ALL),)
    tolerated: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """One group so far.

    Args:
        harm_above, no_harm_above: capital of the bets on a harmful difference above 0, and on there being none.
        harm_below, no_harm_below: the same below 0. SHIFTED only.
        is_harmful: shown at some look; it stays shown.
        is_safe: shown by all rows so far; a candidate that turns bad loses it again.
    """

    harm_above: tuple[float, ...] = NO_BETS
    harm_below: tuple[float, ...] = NO_BETS
    no_harm_above: tuple[float, ...] = NO_BETS
    no_harm_below: tuple[float, ...] = NO_BETS
    is_harmful: bool = False
    is_safe: bool = False
    band: Band = NO_BAND


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """All that is known; JSON through clearway.contracts.codec.

    Args:
        next_row: per log, the first row not counted yet.
        distrust: the first batch that no healthy process writes, if there was one; then nothing passes by itself.
        curve: of the first group.
    """

    next_row: dict[str, int] = dataclasses.field(default_factory=dict)
    distrust: str = ""
    tallies: tuple[Tally, ...] = ()
    curve: tuple[Point, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """A look's result."""

    state: State
    judgement: Judgement


def look(
    rules: Rules,
    state: State,
    batch: Mirrored,
    *,
    candidate: str,
    control: str,
    epoch: int,
    now_s: float,
    min_rows: int,
) -> Looked:
    """Count the rows that are new and judge. Raises: ConfigError for rules that decide nothing or make no sense."""
    check_rules(rules)
    tallies = state.tallies or tuple(Tally() for _ in rules.groups)
    problem = _unusable(state, batch, candidate=candidate, control=control, epoch=epoch, now_s=now_s)
    nonsense = "" if problem else _nonsense(batch)
    if nonsense and not state.distrust:
        text = f"rows are not trusted any more ({nonsense}); a person must decide"
        state = dataclasses.replace(state, distrust=text)
    if not problem and not nonsense:
        begin = state.next_row.get(batch.log_id, 0)
        fresh = batch.rows[begin - batch.first :]
        after = {**state.next_row, batch.log_id: begin + len(fresh)}
        tallies = tuple(_added(t, g, fresh, rules) for g, t in zip(rules.groups, tallies, strict=True))
        curve = with_point(state.curve, _point(tallies[0], rules, at_s=batch.at_s)) if fresh else state.curve
        state = dataclasses.replace(state, next_row=after, curve=curve)
    state = dataclasses.replace(state, tallies=tallies)
    checks = [judged(g, t, rules, min_rows) for g, t in zip(rules.groups, tallies, strict=True)]
    if text := problem or nonsense or state.distrust:
        checks.append(Check(name="reading", verdict=Verdict.INCONCLUSIVE, reason=text))
    return Looked(state=state, judgement=judge(checks))


def check_rules(rules: Rules) -> None:
    """Raises: ConfigError naming what is wrong."""
    if not any(group.is_decisive for group in rules.groups):
        raise ConfigError("a comparison needs at least one decisive group; all of them are dry runs")
    if len({group.name for group in rules.groups}) != len(rules.groups):
        raise ConfigError(f"groups {[g.name for g in rules.groups]} name one twice; name each once")
    for name, level in (("alpha", rules.alpha), ("beta", rules.beta), ("margin", rules.margin)):
        if not 0 < level < 1:
            raise ConfigError(f"{name} {level} is not allowed; choose above 0, below 1")
    if not 0 <= rules.tolerated <= rules.margin:
        raise ConfigError(f"tolerated difference {rules.tolerated} is not allowed; choose 0 to {rules.margin}")


def harm_e(tally: Tally, rules: Rules) -> float:
    """E-value of harm; of both directions, their average."""
    above = paired.e_value(tally.harm_above)
    return above if rules.direction is Direction.WORSE else (above + paired.e_value(tally.harm_below)) / 2


def _unusable(state: State, batch: Mirrored, *, candidate: str, control: str, epoch: int, now_s: float) -> str:
    if batch.epoch != epoch:
        return f"rows belong to epoch {batch.epoch}, not {epoch}"
    if (batch.candidate, batch.control) != (candidate, control):
        return f"rows were answered by {batch.candidate} and {batch.control}, not by {candidate} and {control}"
    if not math.isfinite(batch.at_s) or now_s - batch.at_s > MAX_AGE_S:
        return f"rows are {now_s - batch.at_s:.0f} s old, at most {MAX_AGE_S:.0f} s are allowed"
    begin = state.next_row.get(batch.log_id, 0)
    if batch.first > begin:
        return f"rows {begin} to {batch.first - 1} of {batch.log_id} are missing; read the log from row {begin}"
    if batch.rows and batch.first + len(batch.rows) <= begin:
        return f"rows up to {batch.first + len(batch.rows) - 1} of {batch.log_id} came twice"
    return ""


def _nonsense(batch: Mirrored) -> str:
    if batch.first < 0:
        return f"row number {batch.first} is below 0"
    wrong = [r.difference for r in batch.rows if r.difference is not None and not -1 <= r.difference <= 1]
    return f"difference {wrong[0]} is not within -1 and 1" if wrong else ""


def _added(tally: Tally, group: Group, rows: tuple[MirroredRow, ...], rules: Rules) -> Tally:
    mine = [r.difference for r in rows if group.name == ALL or group.name in r.slices]
    seen = [1.0 if x is None else x for x in mine]
    margin, is_shift = rules.margin, rules.direction is Direction.SHIFTED
    after = dataclasses.replace(
        tally,
        harm_above=paired.add(tally.harm_above, paired.bet_above(seen, margin if is_shift else rules.tolerated)),
        no_harm_above=paired.add(tally.no_harm_above, paired.bet_below(seen, margin)),
        harm_below=paired.add(tally.harm_below, paired.bet_below(seen, -margin)) if is_shift else NO_BETS,
        no_harm_below=paired.add(tally.no_harm_below, paired.bet_above(seen, -margin)) if is_shift else NO_BETS,
        band=paired.widen(tally.band, seen, alpha=_share(rules)),
    )
    no_harm = paired.e_value(after.no_harm_above)
    if is_shift:
        no_harm = min(no_harm, paired.e_value(after.no_harm_below))
    return dataclasses.replace(
        after,
        is_harmful=tally.is_harmful or harm_e(after, rules) >= 1 / _share(rules),
        is_safe=no_harm >= 1 / rules.beta,
    )


def _point(tally: Tally, rules: Rules, *, at_s: float) -> Point:
    low, estimate, high = paired.limits(tally.band, alpha=_share(rules)) or (None, None, None)
    found = shown(harm_e(tally, rules))
    return Point(at_s=at_s, weight_pct=0.0, estimate=estimate, low=low, high=high, harm_e=found)


def _share(rules: Rules) -> float:
    return rules.alpha / sum(group.is_decisive for group in rules.groups)


def judged(group: Group, tally: Tally, rules: Rules, min_rows: int) -> Check:
    """What one group says so far."""
    least = max(1, min_rows)
    band = paired.limits(tally.band, alpha=_share(rules))
    seen = f"mean difference {band[1]:+.4f} ({band[0]:+.4f} to {band[2]:+.4f}) of {tally.band.num} rows" if band else ""
    if tally.is_harmful:
        verdict, text = Verdict.FAIL, f"harm shown: {seen}; e-value {harm_e(tally, rules):.3g}"
    elif tally.band.num < least:
        verdict, text = Verdict.INCONCLUSIVE, f"too few rows: {tally.band.num}, {least} are asked for"
    elif tally.is_safe:
        verdict, text = Verdict.PASS, f"less than {rules.margin:g}: {seen}"
    else:
        verdict, text = Verdict.INCONCLUSIVE, f"neither harm nor its absence shown yet: {seen}; margin {rules.margin:g}"
    return Check(
        name="all rows" if group.name == ALL else f"slice[{group.name}]",
        verdict=verdict,
        value=shown(harm_e(tally, rules)),
        bound=1 / _share(rules),
        reason=text,
        is_decisive=group.is_decisive,
    )
