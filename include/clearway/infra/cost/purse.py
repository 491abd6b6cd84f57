"""What a release may still spend: asked before each of its jobs starts.

A job gets a time limit that what is left can pay for, so that a budget is passed by no more than its service rounds up.
"""

import dataclasses
import json
import logging
import statistics
from dataclasses import dataclass

from clearway.contracts.errors import ClearwayError, ConfigError
from clearway.contracts.verdict import Verdict
from clearway.infra.cost.ledger import BATCH_CHAIN, LEDGER, LIMIT, RELEASE_CHAIN, Begun, Ledger, StageEstimate, stage_of
from clearway.infra.cost.prices import rate_of, total
from clearway.infra.environment import Environment
from clearway.infra.jobs import JobRunner, JobSpec, JobState
from clearway.product import LoadedProduct

LOG = logging.getLogger("clearway.cost")
NUM_PAST = 5  # releases an estimate is the mean of: a month of weekly ones
MIN_JOB_S = 60  # services bill a minute at least; a job that may not even run for that long cannot do anything
ON_DEVICES = ("tune", "train")  # what `resources.max_minutes` limits
S_PER_HOUR, S_PER_MINUTE = 3600.0, 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Stands for the Outputs of a stage that was not started."""

    verdict: Verdict
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """`spec`: the job as it may start; `refused`: why it may not."""

    spec: JobSpec
    refused: Refused | None = None


class Purse:
    """Of the runs of one chain. `stages`: those that are jobs, in order; only releases have a budget."""

    def __init__(
        self, env: Environment, product: LoadedProduct, runner: JobRunner, *, is_release: bool, stages: tuple[str, ...]
    ) -> None:
        self._env, self._product, self.runner = env, product.spec, runner
        self._chain, self._stages = RELEASE_CHAIN if is_release else BATCH_CHAIN, stages
        self._ledger = Ledger(env, product.spec.name)

    def admit(self, spec: JobSpec, *, now_s: float) -> Admission:
        """Whether the job may start, and for how long. One that runs or has succeeded already is always admitted.

        Raises: ConfigError if there is a budget, and no price to hold it by.
        """
        release_id = _release_of(spec)
        spec = dataclasses.replace(spec, team=self._product.owners[0], max_seconds=int(self._limit_s(spec.stage)))
        begun = self._ledger.begun(release_id) or self._begin(release_id, now_s)
        has_budget = self._product.resources.max_money and self._chain == RELEASE_CHAIN
        admission = self._within(spec, begun) if has_budget and self._is_new(spec) else Admission(spec=spec)
        if admission.refused is None:
            self._ledger.note(release_id, spec)
        return admission

    def _is_new(self, spec: JobSpec) -> bool:
        attempts = self.runner.attempts(spec.key)
        return not attempts or self.runner.state(attempts[-1]) is JobState.FAILED

    def settle(self, spec: JobSpec) -> None:
        """Write what bills can be written of the release of a job; one that cannot is written by whoever looks next,
        and fails no stage."""
        release_id = _release_of(spec)
        try:
            self._ledger.settle(release_id, self.runner)
        except ClearwayError as error:
            LOG.warning("bills of %s are not written yet: %s", release_id, error)

    def _within(self, spec: JobSpec, begun: Begun) -> Admission:
        budget, currency = self._product.resources.max_money, self._ledger.prices.currency
        spent, rate = self._spent(begun), rate_of(self._env, self._ledger.prices, spec.stage)
        expected = self._expected(begun, spec.stage)
        if spent is None or rate is None or expected.cost is None:
            raise ConfigError(
                f"release {begun.release_id} has a budget of {budget:g} {currency} (resources.max_money), and the "
                f"price table lacks what {spec.stage} or a stage before it runs on; add it, or name a table with it as "
                "CLEARWAY__COST__PRICES"
            )
        later = sum(self._known_cost(begun, stage) for stage in self._after(spec.stage))
        if spent + expected.cost + later > budget:
            return Admission(spec=spec, refused=self._refusal(spec.stage, spent, expected, later))
        if rate:
            spec = dataclasses.replace(
                spec, max_seconds=max(MIN_JOB_S, min(spec.max_seconds, int((budget - spent) / rate * S_PER_HOUR)))
            )
        return Admission(spec=spec)

    def _spent(self, begun: Begun) -> float | None:
        """So far; what a service has not billed yet counts as was expected of it."""
        costs = [bill.cost for bill in self._ledger.settle(begun.release_id, self.runner)]
        started = [key for key in self._ledger.unbilled(begun.release_id) if self.runner.attempts(key)]
        return total(costs + [self._expected(begun, stage_of(key)).cost for key in started])

    def _expected(self, begun: Begun, stage: str) -> StageEstimate:
        """Of a stage that was not drawn yet when the release began: its limit."""
        return begun.estimates.get(stage) or self._by_limit(stage)

    def _refusal(self, stage: str, spent: float, expected: StageEstimate, later: float) -> Refused:
        budget, currency = self._product.resources.max_money, self._ledger.prices.currency
        needs = f"{expected.cost:.4g} {currency}"
        by = (
            f"{needs} by its last {expected.num_releases} releases"
            if expected.basis == LEDGER
            else f"at most {needs} by its time limit of {self._limit_s(stage):.0f} s"
        )
        rest = f", what follows {later:.4g}" if later else ""
        return Refused(
            verdict=Verdict.FAIL,
            reason=f"over budget: {stage} needs {by}{rest}, {spent:.4g} of {budget:g} (resources.max_money) are spent; "
            "raise it, or lower resources.max_minutes or jobs.max_seconds, and release again",
        )

    def _begin(self, release_id: str, now_s: float) -> Begun:
        begun = Begun(release_id=release_id, chain=self._chain, at_s=now_s, estimates=self.estimates(now_s=now_s))
        return self._ledger.begin(begun)

    def estimates(self, *, now_s: float) -> dict[str, StageEstimate]:
        """What each stage will cost: the mean of the last releases that ran it, else the most it may take."""
        if self._chain != RELEASE_CHAIN:
            return {}
        past: dict[str, list[float]] = {stage: [] for stage in self._stages}
        for looked, release_id in enumerate(self._ledger.newest(now_s=now_s)):
            if looked == NUM_PAST:
                break
            bills = self._ledger.bills(release_id)
            for stage, known in past.items():
                cost = total([bill.cost for bill in bills if bill.stage == stage])
                if cost is not None and any(bill.stage == stage and bill.has_succeeded for bill in bills):
                    known.append(cost)
        return {
            stage: StageEstimate(cost=statistics.fmean(costs), basis=LEDGER, num_releases=len(costs))
            if costs
            else self._by_limit(stage)
            for stage, costs in past.items()
        }

    def _by_limit(self, stage: str) -> StageEstimate:
        rate = rate_of(self._env, self._ledger.prices, stage)
        return StageEstimate(cost=None if rate is None else rate * self._limit_s(stage) / S_PER_HOUR, basis=LIMIT)

    def _limit_s(self, stage: str) -> float:
        minutes = self._product.resources.max_minutes if stage in ON_DEVICES else 0.0
        longest_s = self._env.jobs.max_seconds
        return min(longest_s, minutes * S_PER_MINUTE) if minutes else longest_s

    def _known_cost(self, begun: Begun, stage: str) -> float:
        """Of a stage to come, where past releases tell; a limit is no expectation."""
        estimate = begun.estimates.get(stage)
        return estimate.cost or 0.0 if estimate is not None and estimate.basis == LEDGER else 0.0

    def _after(self, stage: str) -> tuple[str, ...]:
        return self._stages[self._stages.index(stage) + 1 :]


def _release_of(spec: JobSpec) -> str:
    return str(json.loads(spec.inputs_json)["release_id"])
