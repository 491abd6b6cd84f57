"""What a task does about devices: ask, start or give the slots back, make room when told, leave."""

import dataclasses
import logging
from collections.abc import Callable

from clearway.contracts.errors import ConfigError
from clearway.devices.board import Board, Yield, folder_of
from clearway.devices.ledger import DAY_S, Ledger, Use, faded_usage
from clearway.devices.override import standing_override
from clearway.devices.priority import Factors, priority, share_factor, tier_factor, urgency
from clearway.devices.sharing import Ask, Held, Rules, rank, refusal, victims
from clearway.devices.want import Want
from clearway.infra.clock import Clock
from clearway.infra.environment import Environment
from clearway.infra.storage import open_storage

LOG = logging.getLogger("clearway.devices")


class Desk:
    """The desk of one device class.

    Args:
        is_waiting: whether the task behind an ask still waits; an ask nobody stands behind is withdrawn.
        is_running: whether a job still runs; one that ended without leaving is taken off the board.
    """

    def __init__(
        self,
        env: Environment,
        device: str,
        *,
        clock: Clock,
        is_waiting: Callable[[Ask], bool] = lambda _: True,
        is_running: Callable[[str], bool] = lambda _: True,
    ) -> None:
        if device not in env.devices.classes:
            raise ConfigError(f"device class {device!r} is unknown; allowed: {sorted(env.devices.classes)}")
        self._env, self._clock, self._is_waiting, self._is_running = env, clock, is_waiting, is_running
        self._storage, self._folder = open_storage(env.store_root), folder_of(env.store_root, device)
        self._board, self._ledger = Board(self._storage, self._folder), Ledger(self._storage, self._folder)
        settings = env.devices
        self._rules = Rules(
            slots=settings.classes[device].slots,
            margin=settings.margin,
            min_run_s=settings.min_run_s,
            max_yields=settings.max_yields,
        )

    def priority_of(self, want: Want) -> float:
        """How urgent this is now."""
        now_s = self._clock.now_s()
        half_life_s = self._env.devices.half_life_days * DAY_S
        uses = self._ledger.recent(now_s=now_s, half_life_s=half_life_s)
        uses += [_use(held, ended_s=now_s) for held in self._board.held()]
        usage = faded_usage(uses, now_s=now_s, half_life_s=half_life_s)
        slack_s = want.deadline_hours * 3600 if want.deadline_hours else float("inf")
        return priority(
            Factors(
                tier=tier_factor(want.risk_tier),
                urgency=urgency(slack_s=slack_s),
                share=share_factor(want.team, usage=usage, shares=self._env.devices.shares),
                override=standing_override(self._storage, self._folder, want.product, now_s=now_s),
            )
        )

    def ask(self, ask_id: str, want: Want, *, task: tuple[str, str, str]) -> Ask:
        """The ask of a run's stage: the one on the board, or a new one at today's priority."""
        known = [ask for ask in self._board.asks() if ask.id == ask_id]
        known += [held.ask for held in self._board.held() if held.ask.id == ask_id]
        if known:
            return known[0]
        if want.slots > self._rules.slots:
            raise ConfigError(
                f"product {want.product!r} asks for {want.slots} slots of {want.device!r}; allowed: "
                f"{self._rules.slots}; correct resources.slots, or give the class more"
            )
        mine = Ask(
            id=ask_id,
            task=task,
            product=want.product,
            team=want.team,
            slots=want.slots,
            priority=self.priority_of(want),
            asked_s=self._clock.now_s(),
            max_run_s=want.max_minutes * 60,
            is_preemptible=want.is_preemptible,
        )
        self._board.ask(mine)
        return mine

    def refusal(self, mine: Ask) -> str:
        """Why these slots have to be given back; empty if the job may start."""
        asks, held, leaving = self._look(mine)
        others = [h for h in held if h.ask.id != mine.id]  # an earlier try of the same job is gone
        return refusal(mine, asks=asks, held=others, leaving=leaving, rules=self._rules, now_s=self._clock.now_s())

    def hold(self, mine: Ask, job_id: str) -> Held:
        """The job has started; again for the same job changes nothing."""
        known = next((h for h in self._board.held() if h.job_id == job_id), None)
        held = known or Held(ask=mine, job_id=job_id, started_s=self._clock.now_s())
        self._board.hold(held)
        return held

    def must_yield(self, job_id: str) -> bool:
        """Whether this job has to make room now; the first time puts it on record."""
        if self._board.is_ordered(job_id):
            return True
        asks, held, leaving = self._look()
        chosen = victims(asks=asks, held=held, leaving=leaving, rules=self._rules, now_s=self._clock.now_s())
        mine = next((h for h in chosen if h.job_id == job_id), None)
        if mine is None:
            return False
        first = min(asks, key=rank)
        order = Yield(
            job_id=job_id,
            ask_id=mine.ask.id,
            priority=mine.ask.priority,
            for_ask=first.id,
            for_priority=first.priority,
            at_s=self._clock.now_s(),
        )
        if self._board.order(order):
            LOG.warning("job %s makes room for %s: %s", job_id, first.id, order)
        return True

    def leave(self, job_id: str, *, will_return: bool = False) -> None:
        """The job has ended, or made room and waits again; its device-seconds go on record, once."""
        held = next((h for h in self._board.held() if h.job_id == job_id), None)
        if held is None:
            return
        self._ledger.record(_use(held, ended_s=self._clock.now_s()))
        if will_return:
            self._board.ask(dataclasses.replace(held.ask, num_yields=held.ask.num_yields + 1))
        self._board.leave(held.ask.id)

    def _look(self, mine: Ask | None = None) -> tuple[list[Ask], list[Held], set[str]]:
        """What truly waits and runs, and which jobs are leaving. A run that computes, or is about to with `mine`, waits
        for nothing: it asked ahead for a later stage, which may not keep out the one before it."""
        asks, held = self._board.asks(), []
        for job in self._board.held():
            if self._is_running(job.job_id):
                held.append(job)
            else:  # whoever made room waits again, even if its own task is slower than this one
                self.leave(job.job_id, will_return=self._board.is_ordered(job.job_id))
        busy = {job.ask.task[:2] for job in held} | ({mine.task[:2]} if mine else set())
        asks = [ask for ask in asks if ask.task[:2] not in busy]
        while asks and not self._is_waiting(first := min(asks, key=rank)):
            LOG.warning("ask %s is withdrawn: no task waits for it any more", first.id)
            self._board.withdraw(first.id)
            asks.remove(first)
        return asks, held, {job.job_id for job in held if self._board.is_ordered(job.job_id)}


def _use(held: Held, *, ended_s: float) -> Use:
    ask = held.ask
    return Use(
        team=ask.team,
        product=ask.product,
        job_id=held.job_id,
        slots=ask.slots,
        started_s=held.started_s,
        ended_s=ended_s,
    )
