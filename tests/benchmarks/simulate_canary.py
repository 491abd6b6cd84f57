"""How often are canaries judged wrongly, and how soon rightly: the shipping verdict code beside rules people copy.

    python tests/benchmarks/simulate_canary.py [--runs 10000]

Every run is a stream of looks; a look brings 200 requests to the candidate and 1,800 to the control (10 %), errors 1 %
where nothing is wrong. All rules see the same streams. JSON lines on stdout. Rules, by the shape of their published
examples (numbers from their documentation, nothing of their code):

    flagger      success of the candidate below 99 % counts as a failed check; rolled back at 10 failed checks
    argo         success below 95 % counts as a failure; rolled back at more than 3
    z per look   one-sided z-test of this look against the control at 1 %, rolled back at the first rejection
"""
# ruff: noqa: T201

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from statistics import NormalDist, median

import numpy as np

from clearway.contracts.observed import ArmCounts, Observed
from clearway.contracts.verdict import Verdict
from clearway.evidence.engine import Kind, Metric, Rules, State, look

CANDIDATE, CONTROL, BASE = 200, 1_800, 0.01
FLAGGER_SUCCESS, FLAGGER_CHECKS = 0.99, 10
ARGO_SUCCESS, ARGO_FAILURES = 0.95, 3
Z_LIMIT = NormalDist().inv_cdf(0.99)
# Number of failures up to which the 99 % upper bound of a rate stays within alpha, for 10,000 runs at 1 % (exact).
MAX_FALSE_AT_10_000 = 77
Stream = list[tuple[int, int]]  # cumulative errors of candidate and control, per look
Broken = Callable[[Observed, np.random.Generator], Observed]


def rules_of(margin: float, *, alpha: float = 0.01) -> Rules:
    """What the simulated rollouts are judged by: errors, one step."""
    return Rules(alpha=alpha, beta=0.05, num_steps=1, metrics=(Metric(kind=Kind.ERRORS, margin=margin),))


def streams(
    num_runs: int, rates: tuple[float, float], *, looks: int, sizes: tuple[int, int], seed: int
) -> Iterator[Stream]:
    """Random streams; the seed is the stream."""
    rng = np.random.default_rng(seed)
    for _ in range(num_runs):
        yield [(int(a), int(b)) for a, b in rng.binomial(sizes, rates, (looks, 2)).cumsum(0)]


def observed(at_s: float, sizes: tuple[int, int], errors: tuple[int, int]) -> Observed:
    """A reading of the server's counters."""
    arms = {
        name: ArmCounts(
            num_requests=num, num_errors=bad, latencies=(num, 0), num_scores=0, score_sum=0.0, score_square_sum=0.0
        )
        for name, num, bad in zip(("candidate", "control"), sizes, errors, strict=True)
    }
    return Observed(server_id="one", at_s=at_s, epoch=1, latency_bounds_s=(1.0,), arms=arms)


def clearway(
    stream: Stream, rules: Rules, sizes: tuple[int, int], *, broken: Callable[[Observed], Observed] = lambda x: x
) -> tuple[Verdict, int]:
    """The first FAIL, else the first PASS, and the candidate's requests until then."""
    state, passed = State(), 0
    for i, errors in enumerate([(0, 0), *stream]):
        reading = broken(observed(float(i), (sizes[0] * i, sizes[1] * i), errors))
        found = look(
            rules,
            state,
            reading,
            candidate="candidate",
            control="control",
            epoch=1,
            now_s=float(i),
            weight_pct=10.0,
            min_requests=sizes[0],
        )
        state = found.state
        if found.judgement.verdict is Verdict.FAIL:
            return Verdict.FAIL, sizes[0] * i
        if found.judgement.verdict is Verdict.PASS:
            passed = passed or sizes[0] * i
    return (Verdict.PASS, passed) if passed else (Verdict.INCONCLUSIVE, 0)


def per_look(stream: Stream) -> Iterator[tuple[int, int]]:
    """Errors of each look alone."""
    before = (0, 0)
    for now in stream:
        yield now[0] - before[0], now[1] - before[1]
        before = now


def flagger(stream: Stream) -> int:
    """Looks until rolled back, 0 for never."""
    num_failed = 0
    for i, (bad, _) in enumerate(per_look(stream), start=1):
        num_failed += 1 - bad / CANDIDATE < FLAGGER_SUCCESS
        if num_failed >= FLAGGER_CHECKS:
            return i
    return 0


def argo(stream: Stream) -> int:
    """Looks until rolled back, 0 for never."""
    num_failed = 0
    for i, (bad, _) in enumerate(per_look(stream), start=1):
        num_failed += 1 - bad / CANDIDATE < ARGO_SUCCESS
        if num_failed > ARGO_FAILURES:
            return i
    return 0


def z_per_look(stream: Stream) -> int:
    """Looks until rolled back, 0 for never."""
    for i, (bad, control_bad) in enumerate(per_look(stream), start=1):
        pooled = (bad + control_bad) / (CANDIDATE + CONTROL)
        spread = math.sqrt(pooled * (1 - pooled) * (1 / CANDIDATE + 1 / CONTROL))
        if spread and (bad / CANDIDATE - control_bad / CONTROL) / spread > Z_LIMIT:
            return i
    return 0


def side_by_side(num_runs: int, factor: float, *, looks: int) -> None:
    """Errors of the candidate are `factor` times those of the control."""
    sizes, began = (CANDIDATE, CONTROL), time.process_time()
    found: dict[str, list[int]] = {"clearway": [], "flagger": [], "argo": [], "z per look": []}
    rules = rules_of(0.01)
    for stream in streams(num_runs, (BASE * factor, BASE), looks=looks, sizes=sizes, seed=7):
        verdict, num = clearway(stream, rules, sizes)
        found["clearway"].append(num if verdict is Verdict.FAIL else 0)
        for name, rule in (("flagger", flagger), ("argo", argo), ("z per look", z_per_look)):
            found[name].append(rule(stream) * CANDIDATE)
    lines = {
        name: {
            "rolled back": sum(x > 0 for x in each),
            "median requests": median(x for x in each if x) if any(each) else None,
        }
        for name, each in found.items()
    }
    print(json.dumps({"errors": f"{factor:g}x", "runs": num_runs, "looks": looks, **lines,
                      "cpu_s": round(time.process_time() - began, 1)}))  # fmt: skip


def until_passed(num_runs: int, margin: float) -> None:
    """How long a healthy candidate takes."""
    sizes, rules = (CANDIDATE, CONTROL), rules_of(margin)
    found = [clearway(s, rules, sizes) for s in streams(num_runs, (BASE, BASE), looks=60, sizes=sizes, seed=11)]
    took = [num for verdict, num in found if verdict is Verdict.PASS]
    line = {"healthy, margin": margin, "runs": num_runs, "passed": len(took), "median requests": median(took)}
    print(json.dumps(line))


def at_the_margin(num_runs: int, margin: float) -> None:
    """How often a candidate that is worse by the margin passes, if nothing takes it back."""
    sizes, rules = (CANDIDATE, CONTROL), rules_of(margin, alpha=1e-9)
    rates = (BASE + margin, BASE)
    found = [clearway(s, rules, sizes)[0] for s in streams(num_runs, rates, looks=20, sizes=sizes, seed=12)]
    print(json.dumps({"worse by the margin": margin, "runs": num_runs, "passed": found.count(Verdict.PASS)}))


def one_by_one(num_runs: int) -> None:
    """A look after every tenth request: 20 % errors, and 20,000 healthy requests, at alpha 0.1 %."""
    sizes, rules = (1, 9), rules_of(0.01, alpha=0.001)
    bad = [clearway(s, rules, sizes) for s in streams(num_runs, (0.2, BASE), looks=400, sizes=sizes, seed=13)]
    took = sorted(num for verdict, num in bad if verdict is Verdict.FAIL)
    healthy = streams(num_runs, (BASE, BASE), looks=2_000, sizes=sizes, seed=14)
    num_false = sum(clearway(s, rules, sizes)[0] is Verdict.FAIL for s in healthy)
    line = {
        "20 % errors": num_runs,
        "found": len(took),
        "median requests": median(took),
        "p95": took[int(0.95 * len(took))],
    }
    print(json.dumps({**line, "false alarms in 20,000 healthy requests": num_false}))


def broken_metrics(num_runs: int) -> None:
    """Bad candidates (5x errors) whose every reading is damaged in one way or another."""
    sizes, rules, promoted = (CANDIDATE, CONTROL), rules_of(0.01), 0
    rng = np.random.default_rng(15)
    for stream in streams(num_runs, (BASE * 5, BASE), looks=20, sizes=sizes, seed=16):
        damage = DAMAGES[int(rng.integers(len(DAMAGES)))]
        share = float(rng.uniform(0.2, 1.0))

        def broken(reading: Observed, damage: Broken = damage, share: float = share) -> Observed:
            return damage(reading, rng) if rng.random() < share else reading

        promoted += clearway(stream, rules, sizes, broken=broken)[0] is Verdict.PASS
    print(json.dumps({"bad canaries with broken metrics": num_runs, "promoted": promoted}))


def _changed(reading: Observed, **changes: object) -> Observed:
    return Observed(**{f: getattr(reading, f) for f in reading.__slots__} | changes)


def _arm(arm: ArmCounts, **changes: object) -> ArmCounts:
    return ArmCounts(**{f: getattr(arm, f) for f in arm.__slots__} | changes)


DAMAGES: list[Broken] = [
    lambda r, _: _changed(r, arms={}),
    lambda r, _: _changed(r, arms={"control": r.arms["control"]}),
    lambda r, _: _changed(r, arms={"candidate": r.arms["candidate"]}),
    lambda r, _: _changed(r, arms={"other": r.arms["candidate"], "control": r.arms["control"]}),
    lambda r, g: _changed(r, server_id=str(g.integers(1_000))),
    lambda r, g: _changed(r, at_s=r.at_s - float(g.uniform(0, 100))),
    lambda r, _: _changed(r, at_s=math.nan),
    lambda r, g: _changed(r, epoch=int(g.integers(0, 5))),
    lambda r, _: _changed(r, arms={k: _arm(a, num_errors=-1) for k, a in r.arms.items()}),
    lambda r, _: _changed(r, arms={k: _arm(a, score_sum=math.nan) for k, a in r.arms.items()}),
    lambda r, _: _changed(r, arms={k: _arm(a, num_errors=a.num_requests + 1) for k, a in r.arms.items()}),
    lambda r, g: _changed(r, arms={k: _arm(a, num_requests=int(g.integers(1_000))) for k, a in r.arms.items()}),
    lambda r, _: _changed(r, arms={k: _arm(a, num_requests=0, num_errors=0) for k, a in r.arms.items()}),
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    num = parser.parse_args().runs
    side_by_side(num, 1.0, looks=20)
    for factor in (2.0, 3.0, 4.0):
        side_by_side(num // 10, factor, looks=60)
    for margin in (0.005, 0.01, 0.02):
        until_passed(num // 20, margin)
    at_the_margin(num // 5, 0.01)
    one_by_one(num // 10)
    broken_metrics(num)


if __name__ == "__main__":
    main()
