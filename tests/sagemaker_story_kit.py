"""Releases on a SageMaker endpoint, told by the real deploy stage: a champion in service, callers, then a candidate."""

import contextlib
import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aws_kit import Trouble, at_endpoint, front
from clearway.contracts.errors import ClearwayError
from clearway.contracts.refs import ModelRef
from clearway.contracts.release_document import Outcome, Phase, ReleaseDocument
from clearway.contracts.verdict import Verdict
from clearway.deploy import drive, run
from clearway.deploy.reconcile import repair
from clearway.deploy.run import deploy
from clearway.deploy.spec import Outputs
from clearway.deploy.strategies import begin
from clearway.infra.aws import endpoint as endpoint_module
from clearway.infra.aws import fleet
from clearway.infra.aws.endpoint import open_sagemaker
from clearway.infra.environment import Environment
from clearway.product_rollout import Rollout as Settings
from rollout_kit import Killed
from sagemaker_account import Account, Fate
from sagemaker_kit import NAME, PLAN, SHADOW, Street, at_sagemaker, opened_account, stage
from serving_kit import PRODUCT, approved, controls_of, make_package

MAX_TASK_RETRIES = 12


def more(*values: object) -> object:
    """A case beside others."""
    return pytest.param(*values, marks=pytest.mark.long)


class Story:
    """One account, one product, one champion."""

    def __init__(self, env: Environment, account: Account, street: Street) -> None:
        self.env, self.account, self.street = env, account, street
        self._biases = itertools.count(1)
        self._refs: dict[str, ModelRef] = {}
        self.reopen()
        self.champion = make_package(env, 0.1)

    def begin(self) -> None:
        """The champion takes service."""
        assert self._deploy(self.champion, "r1", PLAN).verdict is Verdict.PASS

    def reopen(self) -> None:
        """What a new process begins with."""
        self.endpoint = open_sagemaker(self.env, product=PRODUCT, clock=self.street)
        lease_ttl_s = self.env.release_store.lease_ttl_s
        self.controls = controls_of(self.env, self.endpoint, clock=self.street, lease_ttl_s=lease_ttl_s)

    def document(self) -> ReleaseDocument:
        return self.controls.store.read(PRODUCT)[0]

    def release(self, bias: float, release_id: str, plan: Settings, *, fails_for_callers: float = 0.0) -> Outputs:
        """Release a model; `fails_for_callers`: share of requests it fails once callers come."""
        ref = self._refs.setdefault(release_id, make_package(self.env, bias))
        if fails_for_callers:
            self.street.spoils[ref.digest] = fails_for_callers
        return self._deploy(ref, release_id, plan)

    def again(self, release_id: str, plan: Settings) -> Outputs:
        """The task's retry, in a new process."""
        self.reopen()
        return self._deploy(self._refs[release_id], release_id, plan)

    def insistent(self, release_id: str, plan: Settings) -> Outputs:
        """A release whose task is retried as often as Airflow would, and some more."""
        self._refs.setdefault(release_id, make_package(self.env, 0.2))
        for attempt in range(MAX_TASK_RETRIES):
            try:
                return self.again(release_id, plan)
            except ClearwayError as error:
                assert error.is_retryable, error
                if attempt == MAX_TASK_RETRIES - 1:
                    raise
        raise AssertionError

    def reconcile(self) -> None:
        """What comes by every few minutes: unloads what a failed call left loaded."""
        self.reopen()
        repair(PRODUCT, controls=self.controls, read_alias=lambda: "", project=lambda _: None)

    def visits(
        self, release_id: str, plan: Settings, monkeypatch: pytest.MonkeyPatch, *, victim: str = "", number: int = 1
    ) -> list[str]:
        """Release a model of its own and name the fault points it comes by; Killed at visit `number` of `victim`."""
        ref = self._refs.setdefault(release_id, make_package(self.env, 0.2 + next(self._biases) / 100))
        found: list[str] = []

        def visit(point: str) -> None:
            found.append(point)
            if point == victim and found.count(point) == number:
                raise Killed

        self.reopen()
        with monkeypatch.context() as patch:
            for module in (drive, run, endpoint_module, fleet):
                patch.setattr(module, "fault", visit)
            assert self._deploy(ref, release_id, plan).verdict is Verdict.PASS
        return found

    def check_rest(self, outcome: Outcome, release_id: str) -> None:
        """Document and endpoint say the same, and nothing is left over."""
        document, state = self.document(), self.endpoint.state()
        assert [e.outcome for e in document.history if e.release_id == release_id] == [outcome]
        assert (document.phase, document.lease, document.candidate) == (Phase.IDLE, None, None)
        assert document.champion
        assert state.weights_pct == {document.champion.digest: 100.0}
        assert (state.dead_man, state.mirror, state.broken) == (None, None, {})
        kept = {version.digest for version in (document.champion, document.previous) if version}
        assert set(state.loaded) == kept
        variants = self.account.configs[self.account.endpoints[NAME].config]["ProductionVariants"]
        assert len(variants) == len(kept), "a variant nobody needs is paid for"
        assert list(self.account.endpoints) == [NAME]

    def check_no_duplicates(self) -> None:
        """Every model and configuration was made once, whatever became of the answers."""
        made = [(m["PrimaryContainer"]["Environment"], m["ExecutionRoleArn"]) for m in self.account.models.values()]
        assert len(made) == len({str(one) for one in made})

    def _deploy(self, ref: ModelRef, release_id: str, plan: Settings) -> Outputs:
        inputs = approved(self.env, ref, release_id)
        return deploy(inputs, controls=self.controls, project=lambda _: None, rollout=begin(plan))


@contextlib.contextmanager
def told(
    env: Environment,
    home: Path,
    *,
    upstream: str = "",
    trouble: Trouble | None = None,
    first: bool = True,
    **settings: Any,
) -> Iterator[Story]:
    """A story in an account of its own.

    `trouble`: what stands before SageMaker; `first`: a champion is in service; `settings`: of section sagemaker.
    """
    street = Street()
    env = at_sagemaker(env, **settings)
    with opened_account(env, street, home=home, upstream=upstream) as (account, _), contextlib.ExitStack() as more:
        street.account = account
        if trouble is not None:
            address = more.enter_context(front(stage().address, trouble))
            patch = more.enter_context(pytest.MonkeyPatch.context())
            more.enter_context(contextlib.contextmanager(at_endpoint)(address, patch))
        story = Story(env, account, street)
        if first:
            story.begin()
        yield story


def fate_at(story: Story, kind: str, *, has_shadow: bool, after_s: float = 0.0) -> list[Fate]:
    """The first update to a configuration with a shadow, or the next one to one without, ends like this.

    Returns: the fate as long as it has not come.
    """
    fates, seen = [Fate(kind, after_s=after_s)], list[bool]()

    def next_fate() -> Fate:
        name, asked = story.account.asked[-1]
        if name == "UpdateEndpoint":
            seen.append("ShadowProductionVariants" in story.account.configs[asked["EndpointConfigName"]])
            if seen[-1] is has_shadow and True in seen and fates:
                return fates.pop()
        return Fate()

    story.account.next_fate = next_fate
    return fates


def tell_taken_back(env: Environment, home: Path, *, seed: int) -> None:
    """SageMaker takes an update back, in one of four ways and at a place of this seed: red, with the reason."""
    rng = random.Random(seed)  # noqa: S311
    kind = ("late", "silent", "stranger", "told")[seed % 4]
    plan = PLAN if kind == "late" else rng.choice([PLAN, PLAN.model_copy(update={"strategy": "blue_green"})])
    with told(env, home) as story:
        fates = [Fate(kind, after_s=rng.uniform(1.0, 300.0))]
        story.account.next_fate = lambda: fates.pop() if fates else Fate()
        outputs = story.insistent("r2", plan)  # taken back within a change of weights: an error, then red
        assert outputs.verdict is Verdict.FAIL, outputs.reason
        assert ("went back by itself" if kind == "late" else "taken back") in outputs.reason, outputs.reason
        assert "configuration clearway-" in outputs.reason
        document = story.document()
        assert (document.phase, document.history[-1].outcome) == (Phase.IDLE, Outcome.ABORTED)
        assert story.endpoint.state().weights_pct == {story.champion.digest: 100.0}


def tell_copies_taken_back(env: Environment, home: Path, *, seed: int) -> None:
    """SageMaker takes copies of requests back as they begin, or while they are given: red, with the reason."""
    kind = ("late", "silent", "stranger", "told")[seed % 4]
    with told(env, home, capture_pct=100) as story:
        after_s = random.Random(seed).uniform(1.0, 100.0)  # noqa: S311
        fates = fate_at(story, kind, has_shadow=True, after_s=after_s)
        outputs = story.insistent("r2", SHADOW)
        assert not fates
        assert outputs.verdict is Verdict.FAIL, outputs.reason
        assert ("went back by itself" if kind == "late" else "taken back") in outputs.reason, outputs.reason
        assert "configuration clearway-" in outputs.reason
        story.check_rest(Outcome.ABORTED, "r2")
        assert set(story.street.answered) == {story.champion.digest}
