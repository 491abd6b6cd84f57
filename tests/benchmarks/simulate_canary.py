"""How often are canaries judged wrongly, and how soon rightly: the shipping verdict code beside rules people copy.

    python tests/benchmarks/simulate_canary.py [--runs 10000]

Every run is a stream of looks; a look brings 200 requests to the candidate and 1,800 to the control (10 %), errors 1 %
where nothing is wrong. All rules see the same streams. JSON lines on stdout. Rules, by the shape of their published
examples (numbers from their documentation, nothing of their code):

    flagger      success of the candidate below 99 % counts as a failed check; rolled back at 10 failed checks
    argo         success below 95 % counts as a failure; rolled back at more than 3
    z per look   one-sided z-test of this look against the control at 1 %, rolled back at the first rejection

Latency: lognormal, median 8 ms, in the buckets of the server's histogram; slow is over 10 ms. Neither published example
has a rule that sees it (Flagger's asks for 99 % under 500 ms). Log-loss: both versions score the same rows (shadow),
their errors correlated as those of a retrained model are; noise 1.12 costs 1 % of log-loss.
"""
# ruff: noqa: T201

import argparse
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from statistics import NormalDist, median
from typing import Any, NamedTuple

import numpy as np

from clearway.contracts.observed import ArmCounts, Mirrored, MirroredRow, Observed
from clearway.contracts.verdict import Verdict
from clearway.evidence import shadow, slo
from clearway.evidence.engine import Kind, Metric, Rules, State, look
from clearway.serve.counters import LATENCY_BOUNDS_S

CANDIDATE, CONTROL, BASE = 200, 1_800, 0.01
FLAGGER_SUCCESS, FLAGGER_CHECKS = 0.99, 10
ARGO_SUCCESS, ARGO_FAILURES = 0.95, 3
Z_LIMIT = NormalDist().inv_cdf(0.99)
# Number of failures up to which the 99 % upper bound of a rate stays within alpha, for 10,000 runs at 1 % (exact).
MAX_FALSE_AT_10_000 = 77
SLOW_S, MEDIAN_S, SPREAD = 0.01, 0.008, 0.35
LOSS_MARGIN = 0.005  # 1 % of the champion's log-loss of 0.526
Stream = list[tuple[int, int]]  # cumulative errors of candidate and control, per look
Line = dict[str, Any]
Broken = Callable[[list[Observed], np.random.Generator], Observed]  # from the readings so far, newest last


def rules_of(margin: float, *, alpha: float = 0.01) -> Rules:
    """What most simulated rollouts are judged by: errors, one step."""
    return Rules(alpha=alpha, beta=0.05, num_steps=1, metrics=(Metric(kind=Kind.ERRORS, margin=margin),))


def streams(
    num_runs: int, rates: tuple[float, float], *, looks: int, sizes: tuple[int, int], seed: int
) -> Iterator[Stream]:
    """Random streams; the seed is the stream."""
    rng = np.random.default_rng(seed)
    for _ in range(num_runs):
        yield [(int(a), int(b)) for a, b in rng.binomial(sizes, rates, (looks, 2)).cumsum(0)]


def observed(at_s: float, *arms: ArmCounts, bounds_s: tuple[float, ...] = (1.0,)) -> Observed:
    """A reading of the server's counters: candidate, control."""
    named = dict(zip(("candidate", "control"), arms, strict=True))
    return Observed(server_id="one", at_s=at_s, epoch=1, latency_bounds_s=bounds_s, arms=named)


def arm(num: int, errors: int, latencies: tuple[int, ...] = (), scores: tuple[float, float] = (0.0, 0.0)) -> ArmCounts:
    """What one version did; `scores`: sum and sum of squares."""
    return ArmCounts(
        num_requests=num,
        num_errors=errors,
        latencies=latencies or (num, 0),
        num_scores=num,
        score_sum=scores[0],
        score_square_sum=scores[1],
    )


def error_readings(stream: Stream, sizes: tuple[int, int]) -> Iterator[Observed]:
    """Readings of a server whose only news is errors."""
    for i, (a, b) in enumerate([(0, 0), *stream]):
        yield observed(float(i), arm(sizes[0] * i, a), arm(sizes[1] * i, b))


class End(NamedTuple):
    """How a run ended: its verdict, the look it came at, and the look of the first PASS (0 for none)."""

    verdict: Verdict
    at: int
    passed_at: int


def verdict_of(readings: Iterable[Observed], rules: Rules, *, min_requests: int = 1, ends_at_pass: bool = False) -> End:
    """The first FAIL (or PASS, if that ends the step), else whether it ever passed."""
    state, passed = State(), 0
    for i, reading in enumerate(readings):
        found = look(
            rules, state, reading, candidate="candidate", control="control", epoch=1, now_s=float(i), weight_pct=10.0,
            min_requests=min_requests,
        )  # fmt: skip
        state = found.state
        if found.judgement.verdict is Verdict.FAIL:
            return End(Verdict.FAIL, i, passed)
        if found.judgement.verdict is Verdict.PASS:
            passed = passed or i
            if ends_at_pass:
                break
    return End(Verdict.PASS if passed else Verdict.INCONCLUSIVE, passed, passed)


def new_each_look(stream: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """What each look brings."""
    before = (0, 0)
    for now in stream:
        yield now[0] - before[0], now[1] - before[1]
        before = now


def flagger(stream: Stream) -> int:
    """Looks until rolled back, 0 for never."""
    num_failed = 0
    for i, (bad, _) in enumerate(new_each_look(stream), start=1):
        num_failed += 1 - bad / CANDIDATE < FLAGGER_SUCCESS
        if num_failed >= FLAGGER_CHECKS:
            return i
    return 0


def argo(stream: Stream) -> int:
    """Looks until rolled back, 0 for never."""
    num_failed = 0
    for i, (bad, _) in enumerate(new_each_look(stream), start=1):
        num_failed += 1 - bad / CANDIDATE < ARGO_SUCCESS
        if num_failed > ARGO_FAILURES:
            return i
    return 0


def z_per_look(stream: Stream) -> int:
    """Looks until rolled back, 0 for never."""
    for i, (bad, control_bad) in enumerate(new_each_look(stream), start=1):
        pooled = (bad + control_bad) / (CANDIDATE + CONTROL)
        spread = math.sqrt(pooled * (1 - pooled) * (1 / CANDIDATE + 1 / CONTROL))
        if spread and (bad / CANDIDATE - control_bad / CONTROL) / spread > Z_LIMIT:
            return i
    return 0


def summary(looks: Sequence[int], per_look: int) -> Line:
    """How many came to it, and the candidate's requests until then."""
    took = [x * per_look for x in looks if x]
    return {"num": len(took), "median requests": median(took) if took else None}


def side_by_side(num_runs: int, factor: float, *, looks: int) -> Line:
    """Errors of the candidate are `factor` times those of the control."""
    sizes, rules = (CANDIDATE, CONTROL), rules_of(0.01)
    found: dict[str, list[int]] = {"clearway": [], "flagger": [], "argo": [], "z per look": []}
    num_passed = 0
    for stream in streams(num_runs, (BASE * factor, BASE), looks=looks, sizes=sizes, seed=7):
        end = verdict_of(error_readings(stream, sizes), rules, min_requests=CANDIDATE)
        found["clearway"].append(end.at if end.verdict is Verdict.FAIL else 0)
        num_passed += end.passed_at > 0
        for name, rule in (("flagger", flagger), ("argo", argo), ("z per look", z_per_look)):
            found[name].append(rule(stream))
    lines = {name: summary(each, CANDIDATE) for name, each in found.items()}
    return {"errors": f"{factor:g}x", "runs": num_runs, "looks": looks, **lines, "passed first": num_passed}


def bucket_shares(factor: float) -> list[float]:
    """Share of answers per bucket of the server's histogram, if answers take `factor` times the usual."""
    usual = NormalDist(math.log(MEDIAN_S * factor), SPREAD)
    up_to = [usual.cdf(math.log(bound)) for bound in LATENCY_BOUNDS_S]
    return [b - a for a, b in zip([0.0, *up_to], [*up_to, 1.0], strict=True)]


def slower(num_runs: int, factor: float, *, looks: int) -> Line:
    """Answers of the candidate take `factor` times as long."""
    rng = np.random.default_rng(21)
    rules = Rules(alpha=0.01, beta=0.05, num_steps=1, metrics=(Metric(kind=Kind.SLOW, margin=0.05, above_s=SLOW_S),))
    first_slow = LATENCY_BOUNDS_S.index(SLOW_S) + 1
    ours, z, num_passed = [], [], 0
    for _ in range(num_runs):
        one = rng.multinomial(CANDIDATE, bucket_shares(factor), looks).cumsum(0)
        other = rng.multinomial(CONTROL, bucket_shares(1.0), looks).cumsum(0)
        nothing = arm(0, 0, (0,) * len(one[0]))
        readings = [observed(0.0, nothing, nothing, bounds_s=LATENCY_BOUNDS_S)]
        for i, (a, b) in enumerate(zip(one.tolist(), other.tolist(), strict=True), start=1):
            arms = arm(CANDIDATE * i, 0, tuple(a)), arm(CONTROL * i, 0, tuple(b))
            readings.append(observed(float(i), *arms, bounds_s=LATENCY_BOUNDS_S))
        end = verdict_of(readings, rules, min_requests=CANDIDATE)
        ours.append(end.at if end.verdict is Verdict.FAIL else 0)
        num_passed += end.passed_at > 0
        slow = zip(one[:, first_slow:].sum(1).tolist(), other[:, first_slow:].sum(1).tolist(), strict=True)
        z.append(z_per_look(list(slow)))
    lines = {"clearway": summary(ours, CANDIDATE), "z per look": summary(z, CANDIDATE)}
    return {"latency": f"{factor:g}x", "runs": num_runs, "looks": looks, **lines, "passed first": num_passed}


def loss_differences(rng: np.random.Generator, num: int, noise: float) -> np.ndarray:
    """Log-loss of the candidate minus the champion's on the same rows; `noise` 1 makes both equally good."""
    truth = rng.normal(-1.2, 1.0, num)
    signs = np.where(rng.random(num) < 1 / (1 + np.exp(-truth)), -1.0, 1.0)
    shared, own = rng.normal(0, 0.5, num), rng.normal(0, 0.5, num)
    candidate = truth + noise * (0.9 * shared + math.sqrt(1 - 0.9**2) * own)
    return np.clip(np.logaddexp(0, signs * candidate) - np.logaddexp(0, signs * (truth + shared)), -1, 1)


def worse_losses(num_runs: int, noise: float, *, looks: int, per_look: int = 200) -> Line:
    """Shadowed rows with labels, `per_look` per look; harm of a paired look by z is its mean over its error."""
    rng = np.random.default_rng(22)
    rules = shadow.Rules(alpha=0.01, beta=0.05, direction=shadow.Direction.WORSE, margin=LOSS_MARGIN)
    ours, z, passes = [], [], []
    for _ in range(num_runs):
        rows = loss_differences(rng, looks * per_look, noise).reshape(looks, per_look)
        over = rows.mean(1) / (rows.std(1) / math.sqrt(per_look)) > Z_LIMIT
        z.append(int(over.argmax()) + 1 if over.any() else 0)
        state, at, passed_at = shadow.State(), 0, 0
        for i, new in enumerate(rows.tolist()):
            batch = Mirrored(
                log_id="one", first=i * per_look, at_s=float(i), epoch=1, candidate="a", control="b",
                rows=tuple(MirroredRow(difference=x) for x in new),
            )  # fmt: skip
            found = shadow.look(
                rules, state, batch, candidate="a", control="b", epoch=1, now_s=float(i), min_rows=per_look
            )
            state = found.state
            if found.judgement.verdict is Verdict.PASS:
                passed_at = passed_at or i + 1
            if found.judgement.verdict is Verdict.FAIL:
                at = i + 1
                break
        ours.append(at)
        passes.append(passed_at)
    lines = {"clearway": summary(ours, per_look), "z per look": summary(z, per_look)}
    return {
        "log-loss, noise": noise,
        "runs": num_runs,
        "looks": looks,
        **lines,
        "passed first": summary(passes, per_look),
    }


def until_passed(num_runs: int, margin: float) -> Line:
    """How long a healthy candidate takes."""
    sizes, rules = (CANDIDATE, CONTROL), rules_of(margin)
    each = streams(num_runs, (BASE, BASE), looks=60, sizes=sizes, seed=11)
    found = [verdict_of(error_readings(s, sizes), rules, ends_at_pass=True) for s in each]
    took = [end.at * CANDIDATE for end in found if end.verdict is Verdict.PASS]
    return {"healthy, margin": margin, "runs": num_runs, "passed": len(took), "median requests": median(took)}


def at_the_margin(num_runs: int, margin: float) -> Line:
    """How often a candidate that is worse by the margin passes, if nothing takes it back."""
    sizes, rules = (CANDIDATE, CONTROL), rules_of(margin, alpha=1e-9)
    each = streams(num_runs, (BASE + margin, BASE), looks=20, sizes=sizes, seed=12)
    found = [verdict_of(error_readings(s, sizes), rules, ends_at_pass=True).verdict for s in each]
    return {"worse by the margin": margin, "runs": num_runs, "passed": found.count(Verdict.PASS)}


def one_by_one(num_runs: int) -> Line:
    """A look after every tenth request: 20 % errors, and 20,000 healthy requests, at alpha 0.1 %."""
    sizes, rules = (1, 9), rules_of(0.01, alpha=0.001)
    each = streams(num_runs, (0.2, BASE), looks=400, sizes=sizes, seed=13)
    bad = [verdict_of(error_readings(s, sizes), rules) for s in each]
    took = sorted(end.at for end in bad if end.verdict is Verdict.FAIL)
    quantiles = {"median requests": median(took), "p95": took[int(0.95 * len(took))]}
    return {"20 % errors": num_runs, "found": len(took), **quantiles}


def false_alarms(num_runs: int, sizes: tuple[int, int]) -> Line:
    """2,000 looks of healthy requests at alpha 0.1 %."""
    each = streams(num_runs, (BASE, BASE), looks=2_000, sizes=sizes, seed=14)
    rules = rules_of(0.01, alpha=0.001)
    num = sum(verdict_of(error_readings(s, sizes), rules).verdict is Verdict.FAIL for s in each)
    requests = {"candidate requests": 2_000 * sizes[0], "requests": 2_000 * sum(sizes)}
    return {"false alarms": num, "runs": num_runs, **requests}


def watched(num_runs: int, rates: tuple[float, float]) -> Line:
    """A version that has all callers, 50 looks of 200 requests, limits 2 % errors and 5 % slow answers, alpha 1 %."""
    rng, found = np.random.default_rng(16), []
    limits = slo.Objective(kind=Kind.ERRORS, limit=0.02), slo.Objective(kind=Kind.SLOW, limit=0.05, above_s=SLOW_S)
    rules = slo.Rules(alpha=0.01, objectives=limits)
    for _ in range(num_runs):
        state = slo.State()
        for i, (errors, slow) in enumerate([(0, 0), *rng.binomial(200, rates, (50, 2)).cumsum(0).tolist()]):
            arms = arm(200 * i, errors, (200 * i - slow, slow, 0)), arm(0, 0, (0, 0, 0))
            seen = observed(float(i), *arms, bounds_s=(SLOW_S, 1.0))
            looked = slo.look(rules, state, seen, version="candidate", epoch=1, now_s=float(i), min_requests=1)
            state = looked.state
            if looked.judgement.verdict is Verdict.FAIL:
                found.append(200 * i)
                break
    what = {"watched, errors and slow answers": list(rates), "runs": num_runs, "taken back": len(found)}
    return {**what, "median requests": median(found) if found else None}


def bad_readings(rng: np.random.Generator, *, looks: int) -> tuple[list[Observed], str]:
    """A candidate with five times the errors, or twice as many slow answers, or other scores; otherwise healthy."""
    what = ("errors", "slow", "scores")[int(rng.integers(3))]
    columns = []
    for num, is_bad in ((CANDIDATE, True), (CONTROL, False)):
        errors = rng.binomial(num, BASE * 5 if is_bad and what == "errors" else BASE, looks).cumsum()
        slow = rng.binomial(num, 0.4 if is_bad and what == "slow" else 0.2, looks).cumsum()
        mean = rng.normal(0.45 if is_bad and what == "scores" else 0.3, 0.1 / math.sqrt(num), looks)
        variance = 0.01 * rng.chisquare(num - 1, looks) / num
        sums, squares = (num * mean).cumsum(), (num * (mean**2 + variance)).cumsum()
        columns.append(list(zip(*(x.tolist() for x in (errors, slow, sums, squares)), strict=True)))
    readings = [observed(0.0, *(arm(0, 0, (0, 0, 0)) for _ in range(2)), bounds_s=(SLOW_S, 1.0))]
    for i, rows in enumerate(zip(*columns, strict=True), start=1):
        arms = [
            arm(num * i, e, (num * i - s, s, 0), (total, squares))
            for num, (e, s, total, squares) in zip((CANDIDATE, CONTROL), rows, strict=True)
        ]
        readings.append(observed(float(i), *arms, bounds_s=(SLOW_S, 1.0)))
    return readings, what


def broken_metrics(num_runs: int) -> Line:
    """Bad candidates, each judged by readings of which a fifth to all are damaged in one way or another.

    Whatever harms the candidate, all three metrics decide, and the first PASS counts as promoted.
    """
    rng = np.random.default_rng(15)
    slow, score = Metric(kind=Kind.SLOW, margin=0.05, above_s=SLOW_S), Metric(kind=Kind.SCORE, margin=0.05)
    rules = Rules(alpha=0.01, beta=0.05, num_steps=1, metrics=(Metric(kind=Kind.ERRORS, margin=0.01), slow, score))
    promoted: dict[str, int] = {}
    ends = dict.fromkeys(Verdict, 0)
    for _ in range(num_runs):
        readings, what = bad_readings(rng, looks=20)
        damage = int(rng.integers(len(DAMAGES)))
        is_damaged = rng.random(len(readings)) < rng.uniform(0.2, 1.0)
        seen = [DAMAGES[damage](readings[: i + 1], rng) if is_damaged[i] else readings[i] for i in range(len(readings))]
        verdict = verdict_of(seen, rules, min_requests=CANDIDATE, ends_at_pass=True).verdict
        ends[verdict] += 1
        if verdict is Verdict.PASS:
            promoted[f"{what}, damage {damage}"] = promoted.get(f"{what}, damage {damage}", 0) + 1
    line = {"bad canaries with broken metrics": num_runs, "ways": len(DAMAGES), "promoted": ends[Verdict.PASS]}
    return {**line, "rolled back": ends[Verdict.FAIL], "held": ends[Verdict.INCONCLUSIVE], "which": promoted}


def _changed(reading: Observed, **changes: object) -> Observed:
    return Observed(**{f: getattr(reading, f) for f in reading.__slots__} | changes)


def _arms(reading: Observed, change: Callable[[ArmCounts], dict[str, object]]) -> Observed:
    def changed(old: ArmCounts) -> ArmCounts:
        return ArmCounts(**{f: getattr(old, f) for f in old.__slots__} | change(old))

    return _changed(reading, arms={name: changed(old) for name, old in reading.arms.items()})


DAMAGES: list[Broken] = [
    lambda r, _: _changed(r[-1], arms={}),
    lambda r, _: _changed(r[-1], arms={"control": r[-1].arms["control"]}),
    lambda r, _: _changed(r[-1], arms={"candidate": r[-1].arms["candidate"]}),
    lambda r, _: _changed(r[-1], arms={"other": r[-1].arms["candidate"], "control": r[-1].arms["control"]}),
    lambda r, g: _changed(r[-1], server_id=str(g.integers(1_000))),
    lambda r, g: _changed(r[-1], at_s=r[-1].at_s - float(g.uniform(0, 100))),
    lambda r, _: _changed(r[-1], at_s=math.nan),
    lambda r, g: _changed(r[-1], epoch=int(g.integers(2, 9))),
    lambda r, g: r[int(g.integers(len(r)))],
    lambda r, _: _changed(r[-1], latency_bounds_s=()),
    lambda r, g: _changed(r[-1], latency_bounds_s=(math.nan, 1.0) if g.random() < 0.5 else (1.0, SLOW_S)),
    lambda r, _: _changed(r[-1], latency_bounds_s=(SLOW_S / 4, SLOW_S / 2)),
    lambda r, _: _arms(r[-1], lambda a: {"num_errors": -1}),
    lambda r, _: _arms(r[-1], lambda a: {"num_requests": math.inf}),
    lambda r, _: _arms(r[-1], lambda a: {"num_requests": a.num_requests / 7}),
    lambda r, _: _arms(r[-1], lambda a: {"score_sum": math.nan}),
    lambda r, _: _arms(r[-1], lambda a: {"score_square_sum": 0.0}),
    lambda r, _: _arms(r[-1], lambda a: {"num_scores": 0}),
    lambda r, _: _arms(r[-1], lambda a: {"num_errors": a.num_requests + 1}),
    lambda r, g: _arms(r[-1], lambda a: {"num_requests": int(g.integers(1_000))}),
    lambda r, _: _arms(r[-1], lambda a: {"num_requests": 0, "num_errors": 0}),
    lambda r, _: _arms(r[-1], lambda a: {"latencies": ()}),
    lambda r, _: _changed(r[0], at_s=r[-1].at_s),
    lambda r, g: _changed(r[int(g.integers(len(r)))], at_s=r[-1].at_s),
]  # fmt: skip


def lines(num: int) -> Iterator[Line]:
    """All simulations, `num` runs of the largest."""
    yield side_by_side(num, 1.0, looks=20)
    for factor in (2.0, 3.0, 4.0):
        yield side_by_side(num // 10, factor, looks=60)
    for factor in (1.0, 1.2):
        yield slower(num // 10, factor, looks=60)
    for noise in (1.0, 1.12):
        yield worse_losses(num // 50, noise, looks=100)
    for margin in (0.005, 0.01, 0.02):
        yield until_passed(num // 20, margin)
    yield at_the_margin(num // 5, 0.01)
    yield one_by_one(num // 10)
    yield false_alarms(num // 5, (1, 9))
    yield false_alarms(num // 10, (10, 90))
    yield broken_metrics(num)
    for rates in ((0.005, 0.01), (0.02, 0.05), (0.04, 0.01), (0.1, 0.01), (0.005, 0.1)):
        yield watched(num // 10, rates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    began = time.process_time()
    for line in lines(parser.parse_args().runs):
        print(json.dumps({**line, "cpu_s": round(time.process_time() - began, 1)}), flush=True)
        began = time.process_time()


if __name__ == "__main__":
    main()
