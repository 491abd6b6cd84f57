"""Rollouts of every strategy by real processes, killed with SIGKILL at any fault point, on a real server with callers.

The points are recorded from an undisturbed run of the same story, once per point and step, so a new one is found as
soon as it exists. Looks come four times a second in place of one, so that a story takes a quarter of the time.
"""

import contextlib
import functools
import itertools
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

import onnx
from onnx import TensorProto, helper

from clearway.contracts import release_document as documents
from clearway.contracts.release_document import Outcome, Phase, ReleaseDocument
from clearway.deploy import drive, gathering, machine, run
from clearway.deploy.reconcile import repair
from clearway.deploy.spec import Inputs, Outputs
from clearway.deploy.strategies import begin
from clearway.infra import faults
from clearway.infra.clock import FakeClock
from clearway.infra.environment import Environment
from clearway.product_rollout import AbTest, Rollout, Shadow, Watch
from crowd_kit import Crowd
from serving_kit import (
    CATEGORICAL,
    NUMERIC,
    PRODUCT,
    approved,
    client_of,
    controls_of,
    environment_at,
    free_port,
    linear_onnx,
    make_package,
    running_server,
)

RATE_PER_S = 150.0
POLL_S = 0.25
LEASE_TTL_S = 30.0
STORY_TIMEOUT_S = 60.0
PATIENT_S, IMPATIENT_S = 15.0, 2.0  # the dead-man timer as shipped, and one that is waited for
SPLIT = Rollout(
    strategy="canary",
    steps_pct=(50.0, 100.0),
    min_requests=30,
    min_step_s=0.5,
    max_step_s=60.0,
    error_margin=0.2,
    slow_s=10.0,  # nobody is slow here: a machine that stands still for a moment is no story
    slow_margin=0.3,
    shadow=Shadow(min_rows=50, margin=0.2),
    ab_test=AbTest(share_pct=50.0, horizon_s=1.5),
    watch=Watch(min_s=0.5, min_requests=50),
)
PLANS = {
    "canary": SPLIT,
    "A/B test": SPLIT.model_copy(update={"strategy": "ab_test"}),
    "shadow, then canary": SPLIT.model_copy(update={"strategy": ("shadow", "canary")}),
    "all at once, then watch": SPLIT.model_copy(update={"strategy": ("blue_green", "watch")}),
    "shadow, canary, watch": SPLIT.model_copy(update={"strategy": ("shadow", "canary", "watch")}),
}
# Who comes after the kill: the task's retry at once, the same after the server has given the traffic back by itself, or
# the reconciler once the lease is over.
Healer = Literal["retry", "late retry", "reconciler"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A fault point, and where the release stood when it was reached; an empty `stage` is the first time anywhere."""

    point: str
    stage: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One deployment in a process of its own; `victim`: where it is killed, None for nowhere."""

    env: Environment
    inputs: Inputs
    plan: Rollout
    victim: Place | None
    dead_man_s: float


def carry_out(job: Job, report: Connection) -> None:
    """What the process does: the deploy verb, in which every fault point is told where the release stands."""
    os.environ["CLEARWAY_FAULT"] = f"{job.victim.point}=kill" if job.victim else ""
    machine.POLL_S = gathering.POLL_S = POLL_S
    drive.DEAD_MAN_S = job.dead_man_s
    controls = controls_of(job.env, client_of(job.env), lease_ttl_s=LEASE_TTL_S)
    visits = list[Place]()

    def reached(point: str) -> None:
        visits.append(Place(point=point, stage=stage_of(controls.store.read(PRODUCT)[0])))
        if job.victim and job.victim.stage in {"", visits[-1].stage}:
            faults.fault(point)

    for module in (run, drive):
        module.fault = reached
    outputs = run.deploy(job.inputs, controls=controls, project=lambda _: None, rollout=begin(job.plan))
    report.send((outputs, visits))


def stage_of(document: ReleaseDocument) -> str:
    """Where a release stands, in words: phase, and step of the plan."""
    return f"{document.phase.value} {document.rollout.step.label}" if document.rollout else document.phase.value


@functools.cache
def _processes() -> multiprocessing.context.ForkServerContext:
    """Processes that are forked from one that has imported everything, and share nothing with this one."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *filter(None, [before])])
    try:
        forkserver.ensure_running()
    finally:
        os.environ["PYTHONPATH"] = before
    return context


def run_job(job: Job) -> tuple[int, tuple[Outputs, list[Place]] | None]:
    """Exit code (negative: the signal that ended it), and what it reported if it got that far."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = _processes().Process(target=carry_out, args=(job, theirs))
    process.start()
    theirs.close()
    with contextlib.closing(ours):
        found = None
        if ours.poll(STORY_TIMEOUT_S):
            with contextlib.suppress(EOFError):
                found = ours.recv()
    process.join(STORY_TIMEOUT_S)
    assert process.exitcode is not None, f"{job.inputs.release_id} does not end"
    return process.exitcode, found


def failing_onnx(bias: float) -> bytes:
    """`linear_onnx` that has no finite score for rows above 0.95: none of the golden ones, every `FAR` one."""
    made = onnx.load_from_string(linear_onnx(bias, num_numeric=len(NUMERIC), num_categorical=len(CATEGORICAL)))
    for node in made.graph.node:
        node.output[:] = ["honest" if name == "score" else name for name in node.output]
    made.graph.initializer.extend(
        helper.make_tensor(name, TensorProto.FLOAT, [], [value])
        for name, value in {"limit": 0.95, "nought": 0.0}.items()
    )
    for operator, inputs, output in (
        ("Sub", ["limit", "honest"], "left"),
        ("Sqrt", ["left"], "root"),
        ("Mul", ["root", "nought"], "nothing"),
        ("Add", ["honest", "nothing"], "score"),
    ):
        made.graph.node.append(helper.make_node(operator, inputs, [output]))
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


class NotReached(AssertionError):
    """The story ended before it came by the place: a bad candidate was found at an earlier look, a good one passed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A story that ended as it must."""

    outcome: Outcome | None
    num_requests: int


class LiveStories:
    """A real server, a champion with a way back, and callers; stories follow one another."""

    def __init__(self, env: Environment, crowd: Crowd) -> None:
        self.env, self.crowd, self.endpoint = env, crowd, client_of(env)
        self.controls = controls_of(env, self.endpoint, lease_ttl_s=LEASE_TTL_S)
        self._numbers = itertools.count()
        for _ in range(2):
            inputs = self._release(is_bad=False)
            run.deploy(inputs, controls=self.controls, project=lambda _: None)

    def undisturbed(self, plan: Rollout, *, is_bad: bool) -> list[Place]:
        """Tell a story without a kill; every place it comes by, each once."""
        inputs = self._release(is_bad=is_bad)
        before = self.document()
        code, found = run_job(self._job(inputs, plan))
        assert code == 0, "an undisturbed run failed"
        assert found is not None
        entry = documents.outcome_of(self.document(), inputs.release_id)
        assert entry is not None
        assert entry.outcome is (Outcome.ABORTED if is_bad else Outcome.PROMOTED), found[0]
        self._check_rest(inputs, before, entry.outcome)
        return list(dict.fromkeys(found[1]))

    def tell(self, plan: Rollout, victim: Place, healer: Healer, *, is_bad: bool) -> Told:
        """Release, kill, heal; AssertionError where it does not end in full success or full return as stored."""
        inputs, before, first = self._release(is_bad=is_bad), self.document(), len(self.crowd.answers)
        first_table, dead_man_s = len(self.crowd.tables), IMPATIENT_S if healer == "late retry" else PATIENT_S
        code, _ = run_job(self._job(inputs, plan, victim=victim, dead_man_s=dead_man_s))
        if code == 0:
            raise NotReached(f"{victim} was not reached")
        assert code == -signal.SIGKILL, f"exit code {code} at {victim}"
        intent = self.document()
        if healer == "reconciler":
            later = FakeClock(self.controls.clock.now_s() + 10 * LEASE_TTL_S)
            controls = controls_of(self.env, self.endpoint, clock=later, lease_ttl_s=LEASE_TTL_S)
            repair(PRODUCT, controls=controls, read_alias=lambda: "", project=lambda _: None)
        else:
            if healer == "late retry" and self.endpoint.state().dead_man:
                time.sleep(IMPATIENT_S + 1.0)
                assert before.champion
                assert self.endpoint.state().weights_pct == {before.champion.digest: 100.0}, "no one took over"
            code, _ = run_job(self._job(inputs, plan, dead_man_s=dead_man_s))
            assert code == 0, f"the retry ended with {code}"
        outcome = _wanted(intent, inputs.release_id, healer, is_bad=is_bad)
        self._check_rest(inputs, before, outcome)
        self.crowd.wait_for(20)
        self._check_callers(before, inputs, first)
        self._check_tables(before, inputs, first_table)
        return Told(outcome=outcome, num_requests=len(self.crowd.answers) - first)

    def document(self) -> ReleaseDocument:
        return self.controls.store.read(PRODUCT)[0]

    def _release(self, *, is_bad: bool) -> Inputs:
        number = next(self._numbers)
        bias = 0.1 + number * 1e-4
        ref = make_package(self.env, bias, model=failing_onnx(bias) if is_bad else b"")
        self.crowd.biases[ref.digest] = bias
        return approved(self.env, ref, f"story-{number}")

    def _job(self, inputs: Inputs, plan: Rollout, *, victim: Place | None = None, dead_man_s: float = PATIENT_S) -> Job:
        champion = self.document().champion
        values = {champion.digest: 0.2, inputs.model.digest: 0.9} if champion else {}
        self.crowd.outcomes = values if "ab_test" in plan.chain else {}
        return Job(env=self.env, inputs=inputs, plan=plan, victim=victim, dead_man_s=dead_man_s)

    def _check_rest(self, inputs: Inputs, before: ReleaseDocument, outcome: Outcome | None) -> None:
        """Nothing is left over, and document and server say the same."""
        document, state = self.document(), self.endpoint.state()
        assert before.champion
        assert before.previous
        old, older, new = before.champion.digest, before.previous.digest, inputs.model.digest
        champion, previous = (new, old) if outcome is Outcome.PROMOTED else (old, older)
        endings = [entry.outcome for entry in document.history if entry.release_id == inputs.release_id]
        assert endings == ([outcome] if outcome else [])
        assert (document.phase, document.lease, document.candidate) == (Phase.IDLE, None, None)
        assert document.champion
        assert document.previous
        assert (document.champion.digest, document.previous.digest) == (champion, previous)
        assert (state.weights_pct, state.mirror, state.dead_man) == ({champion: 100.0}, None, None)
        assert set(state.loaded) == {champion, previous}

    def _check_callers(self, before: ReleaseDocument, inputs: Inputs, first: int) -> None:
        """Everybody was answered, by a version that served."""
        answers, champion = self.crowd.answers[first:], before.champion
        failed = [a.why for a in answers if a.why]
        assert not failed, failed[:3]
        assert champion
        served = {a.digest for a in answers}
        assert served <= {champion.digest, inputs.model.digest}, served
        current = self.document().champion
        assert current
        assert {a.digest for a in answers[-10:]} == {current.digest}

    def _check_tables(self, before: ReleaseDocument, inputs: Inputs, first: int) -> None:
        """At no moment was there a share without an owner."""
        assert before.champion
        mine = {before.champion.digest, inputs.model.digest}
        tables = self.crowd.tables[first:]
        unowned = [table for table in tables if not set(table) <= mine or sum(table.values()) != 100.0]
        assert tables
        assert not unowned, unowned[:3]


def _wanted(intent: ReleaseDocument, release_id: str, healer: Healer, *, is_bad: bool) -> Outcome | None:
    """The one end that the intent stored at the moment of the kill allows; None: it had moved nothing yet."""
    if entry := documents.outcome_of(intent, release_id):
        return entry.outcome
    if healer != "reconciler":
        return Outcome.ABORTED if is_bad else Outcome.PROMOTED
    if intent.phase is Phase.IDLE:
        return None
    # A rollout that lives on evidence is given up by whoever finds it abandoned.
    is_given_up = intent.phase is Phase.ABORTING or documents.is_gathering(intent)
    return Outcome.ABORTED if is_given_up else Outcome.PROMOTED


@contextlib.contextmanager
def live_stories(home: Path) -> Iterator[LiveStories]:
    """A server and callers for the length of a block."""
    env = Environment.load({"CLEARWAY__HOME": str(home), "CLEARWAY__STORAGE__ROOT": (home / "store").as_uri()})
    env = environment_at(env, free_port())
    with running_server(env):
        crowd = Crowd(env, rate_per_s=RATE_PER_S)
        stories = LiveStories(env, crowd)
        with crowd.asking():
            yield stories
