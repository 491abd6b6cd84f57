"""Retraining events over a line that loses, doubles and delays them; store, claims and reconciler are the real ones."""

import heapq
from dataclasses import dataclass, field

import numpy as np

from clearway import reconcile
from clearway.infra.clock import FakeClock
from clearway.infra.environment import Environment
from clearway.infra.layout import Layout
from clearway.infra.storage import open_storage
from clearway.monitor.decide import Answer, Decision, Window
from clearway.monitor.history import store_decision
from clearway.product import LoadedProduct
from clearway.release import Request, claim_evidence

NUM_DECISIONS = 5
# Of every sending: chance to vanish, chance to come twice; of every run: chance to die before its claim.
LOST, DOUBLED, DIES = 0.4, 0.3, 0.2
MEAN_DELAY_S, MAX_START_S, TICK_S, MERGED_WITHIN_S = 300.0, 90.0, 60.0, 20.0
LONGEST_S = 24 * 3600.0


@dataclass
class Line:
    """What lies on the line and what came of it. `acted`: the evidence of each run that went on, newest last."""

    env: Environment
    product: LoadedProduct
    rng: np.random.Generator
    queue: list[tuple[float, int, str, object]] = field(default_factory=list)
    acted: list[tuple[str, ...]] = field(default_factory=list)
    num_sent: int = 0
    num_runs: int = 0

    def put(self, at_s: float, kind: str, what: object) -> None:
        self.num_sent += 1
        heapq.heappush(self.queue, (at_s, self.num_sent, kind, what))

    def send(self, digest: str, *, now_s: float) -> None:
        """One event on its way: gone, once or twice, each with a delay of its own."""
        if self.rng.random() < LOST:
            return
        for _ in range(2 if self.rng.random() < DOUBLED else 1):
            self.put(now_s + self.rng.exponential(MEAN_DELAY_S), "event", digest)

    def start_run(self, first: str, *, now_s: float) -> None:
        """An event becomes a run; those that come right behind it are merged into the same one."""
        evidence = [first]
        while self.queue and self.queue[0][2] == "event" and self.queue[0][0] <= now_s + MERGED_WITHIN_S:
            evidence.append(str(heapq.heappop(self.queue)[3]))
        if self.rng.random() >= DIES:  # the newest decision last, as the release DAG sorts them
            self.put(now_s + self.rng.uniform(0, MAX_START_S), "run", tuple(sorted(set(evidence))))

    def claim(self, evidence: tuple[str, ...]) -> None:
        self.num_runs += 1
        run = f"run-{self.num_runs}"
        request = Request(product="flights", release_id=run, window_start="", start="", end="", evidence=evidence)
        if claim_evidence(self.env, request) == run:
            self.acted.append(evidence)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Decisions after which no release ran on evidence as new, decisions on which two ran, steps of the trial."""

    num_lost: int
    num_doubled: int
    num_sent: int


def trial(env: Environment, product: LoadedProduct, *, seed: int) -> Trial:
    """Five decisions, weeks apart or minutes, until the reconciler finds nothing left to announce."""
    line = Line(env=env, product=product, rng=np.random.default_rng(seed))
    storage, layout, clock = open_storage(env.store_root), Layout(env.store_root, "flights"), FakeClock()
    digests = [f"{seed:032x}{number:032x}" for number in range(NUM_DECISIONS)]
    for number, at_s in enumerate(np.sort(line.rng.uniform(0, 6 * 3600.0, NUM_DECISIONS))):
        line.put(float(at_s), "decided", number)
        if line.rng.random() < DOUBLED:  # the monitor's task ran twice
            line.put(float(at_s) + line.rng.exponential(MEAN_DELAY_S), "decided", number)
    line.put(TICK_S, "tick", None)
    while line.queue:
        clock.at_s, _, kind, what = heapq.heappop(line.queue)
        if kind == "decided":
            _decide(storage, layout, digests[int(str(what))], int(str(what)), now_s=clock.at_s)
            line.send(digests[int(str(what))], now_s=clock.at_s)
        elif kind == "event":
            line.start_run(str(what), now_s=clock.at_s)
        elif kind == "run":
            line.claim(what)  # type: ignore[arg-type]
        elif clock.at_s < LONGEST_S and (line.queue or not all(storage.exists(layout.claim(d)) for d in digests)):
            for payload in reconcile.lost_decisions(env, product, clock=clock):
                line.send(payload["evidence_digest"], now_s=clock.at_s)
            line.put(clock.at_s + TICK_S, "tick", None)
    newest = [evidence[-1] for evidence in line.acted]
    return Trial(
        num_lost=sum(not any(digest <= acted for acted in newest) for digest in digests),
        num_doubled=len(newest) - len(set(newest)),
        num_sent=line.num_sent,
    )


def _decide(storage: object, layout: Layout, digest: str, number: int, *, now_s: float) -> None:
    decision = Decision(answer=Answer.RETRAIN, signals=(), evidence_digest=digest, reasons=("planted",))
    window = Window(batch_id=f"2013-05-{number + 1:02d}", model_digest="a" * 64)
    store_decision(storage, layout, decision, window, as_of="2013-06-01T00:00:00Z", now_s=now_s)  # type: ignore[arg-type]
