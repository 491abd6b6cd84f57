"""The training loop: any task, one process or one of many, resumable at any step.

Everything a step does is a function of the state and its position: samples, noise, learning rate. So a run that was
killed and resumed takes the same steps as one that was not. Every decision that ranks must share (to stop, to save,
that a loss is no number) rides on the one sum that the loss needs anyway.
"""

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from clearway.contracts.errors import ConfigError, DataError
from clearway.engine.adamw import AdamW, local
from clearway.engine.checkpoints import FileKeeper
from clearway.engine.gradients import LossScale, clip_factor, global_norm, scale_
from clearway.engine.keeping import Keeper, Keeping, State
from clearway.engine.meter import Meter, Pace, peak_flops
from clearway.engine.order import Sampler, learning_rate, noise_seed, num_steps
from clearway.engine.parallel import parallelize
from clearway.engine.plan import DataParallel, Plan, Precision, Recipe
from clearway.engine.prefetch import Feed, open_feed
from clearway.engine.task import Context, Task
from clearway.engine.world import CPU, World
from clearway.infra.faults import fault

LOG = logging.getLogger("clearway.train")
# Points of the loss curve per epoch: enough to see a bend, few enough for one MLflow request.
POINTS_PER_EPOCH = 10

Report = list[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What came out.

    Args:
        model: the task's module in evaluation mode; sharded if the plan shards (`parallel.full_tensors` gathers it).
        average: moving average of the parameters by name, laid out like them; {} if none was asked for.
        history: [step, epochs done, mean loss, learning rate] per report.
        is_complete: False when the run was asked to stop: its checkpoint is written, and the same call goes on.
        is_bitwise: False once it was resumed by another number of ranks.
        num_samples: seen by all ranks since this process started; `paces`: the same by epoch.
    """

    model: nn.Module
    average: dict[str, Tensor]
    history: list[Report]
    is_complete: bool
    is_bitwise: bool
    num_steps: int
    resumed_step: int
    num_samples: int
    paces: list[Pace]


def train(
    task: Task,
    recipe: Recipe,
    plan: Plan,
    *,
    world: World,
    keeping: Keeping | None,
    should_stop: Callable[[], bool],
    on_report: Callable[[Report], None] | None = None,
) -> Trained:
    """Train to the end, or until any rank is asked to stop.

    `on_report`: told of every point of the curve on every rank, as soon as it is known; what it raises ends the run.

    Raises: DataError if the loss or a parameter stops being finite (nothing of that state is kept); ConfigError if the
        plan does not suit task, device or number of ranks.
    """
    loop = _Loop(task, recipe, plan, world, keeping=keeping, on_report=on_report or (lambda _: None))
    return loop.run(should_stop)


@dataclass(slots=True, kw_only=True)
class _Progress:
    """What a checkpoint holds beside tensors."""

    num_updates: int = 0  # steps that float16 did not have to skip
    window_loss: float = 0.0  # sum of mean losses since the last report
    is_bitwise: bool = True
    scale: LossScale = field(default_factory=LossScale)
    history: list[Report] = field(default_factory=list)

    @classmethod
    def of(cls, saved: dict[str, Any]) -> "_Progress":
        return cls(**(saved | {"scale": LossScale(**saved["scale"])}))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sums:
    """What ranks add up after a step: [sum of the loss, its terms, how many want to stop, how many want to save]."""

    step: int
    values: Tensor
    is_copied: "torch.cuda.Event | None"

    def read(self) -> list[float]:
        if self.is_copied is not None:
            self.is_copied.synchronize()
        found: list[float] = self.values.tolist()
        return found


class _Loop:
    def __init__(
        self,
        task: Task,
        recipe: Recipe,
        plan: Plan,
        world: World,
        *,
        keeping: Keeping | None,
        on_report: Callable[[Report], None],
    ) -> None:
        self.task, self.recipe, self.plan, self.world, self.keeping = task, recipe, plan, world, keeping
        self.on_report = on_report
        task.place(world.device)
        self.parallel = parallelize(task, plan, world)
        self.optimizer = AdamW(
            self.parallel.model.named_parameters(),
            weight_decay=recipe.weight_decay,
            beta_square=recipe.beta_square,
            is_decayed=task.is_decayed,
            is_fused=plan.is_fused,
        )
        self.average = self._first_average()
        self.sampler = self._sampler()
        self.num_steps = num_steps(task.num_samples, recipe)
        self.report_every = max(1, self.sampler.steps_per_epoch // POINTS_PER_EPOCH)
        self.step, self.progress = 0, _Progress()
        self.num_samples, self.paces = 0, list[Pace]()
        # A GPU works through a queue: reading its numbers one step late keeps the queue from running dry.
        self.lag = 0 if world.device.type == "cpu" else 1
        self.pending: deque[_Sums] = deque()
        self.must_stop, self.must_save, self.saved_s = False, False, time.monotonic()
        self.meter = Meter(
            flops_per_sample=task.flops_per_sample,
            peak=peak_flops(world.device, plan.precision),
            num_devices=world.size,
        )
        self.keeper = _keeper(keeping, plan, world)
        self._restore()

    def run(self, should_stop: Callable[[], bool]) -> Trained:
        resumed = self.step
        self.parallel.called.train()
        feed = open_feed(self.task, self.sampler, self.world, first_step=self.step, num_steps=self.num_steps)
        try:
            while self.step < self.num_steps and not self.must_stop:
                self._one_step(feed, is_asked_to_stop=should_stop())
                fault("engine.step")
                if self.must_save and not self.must_stop:
                    self._save()
        finally:
            feed.close()
        self._save()
        if self.keeper is not None:
            self.keeper.wait()
        self._context(0)  # whoever draws random numbers next draws those of the position, resumed or not
        return Trained(
            model=self.parallel.model.eval(),
            average=self.average,
            history=self.progress.history,
            is_complete=self.step == self.num_steps,
            is_bitwise=self.progress.is_bitwise,
            num_steps=self.num_steps,
            resumed_step=resumed,
            num_samples=self.num_samples,
            paces=self.paces,
        )

    def _one_step(self, feed: Feed, *, is_asked_to_stop: bool) -> None:
        """One optimizer step on this rank's share of the global batch."""
        size = self.sampler.batch_size(self.step)
        # Gradients are averaged over ranks, so the share of each is scaled up: the sum is that of the global mean.
        scale = self.parallel.num_data_ranks / (size * self.task.terms_per_sample)
        if self.plan.precision is Precision.FLOAT16:
            scale *= self.progress.scale.scale
        total, num_terms = self._gradients(feed, scale=scale)
        self._update()
        self.step += 1
        self.num_samples += size
        self.meter.count(size)
        self._share(total, num_terms, is_asked_to_stop)
        while len(self.pending) > self.lag:
            self._account(self.pending.popleft())
        if self.step % self.sampler.steps_per_epoch == 0:
            self._end_epoch()

    def _gradients(self, feed: Feed, *, scale: float) -> tuple[Tensor, int]:
        """Forward and backward over all micro-steps; the summed loss of this rank, and its terms."""
        totals, num_terms = [], 0
        for micro in range(self.plan.num_micro_steps):
            self.meter.before_batch()
            batch = feed.next()
            self.meter.after_batch()
            context = self._context(micro)
            with self.parallel.micro_step(is_last=micro == self.plan.num_micro_steps - 1):
                with self.parallel.autocast():
                    total, count = self.task.loss(self.parallel.called, batch, context)
                torch.autograd.backward(total * scale)
            totals.append(total.detach())
            num_terms += count
        return totals[0] if len(totals) == 1 else torch.stack(totals).sum(), num_terms

    def _context(self, micro: int) -> Context:
        rank = self.parallel.data_rank
        seed = noise_seed(seed=self.recipe.seed, step=self.step, rank=rank, micro=micro)
        torch.default_generator.manual_seed(seed)
        if self.world.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        return Context(step=self.step, micro=micro, seed=seed, device=self.world.device)

    def _update(self) -> None:
        """Apply the gradients; with float16 not if they overflowed."""
        parameters, progress = self.optimizer.parameters.values(), self.progress
        is_scaled, factor = self.plan.precision is Precision.FLOAT16, torch.ones((), device=self.world.device)
        if is_scaled or self.recipe.clip_norm is not None:
            norm = global_norm(parameters)
            if is_scaled:
                factor, norm = factor / progress.scale.scale, norm / progress.scale.scale
                is_finite = bool(torch.isfinite(norm))
                progress.scale.update(is_finite=is_finite)
                if not is_finite:
                    self.optimizer.clear()
                    return
            if self.recipe.clip_norm is not None:
                factor = factor * clip_factor(norm, limit=self.recipe.clip_norm)
            scale_(parameters, factor)
        progress.num_updates += 1
        lr = learning_rate(self.step, self.recipe, num_steps=self.num_steps)
        self.optimizer.update(step=progress.num_updates, lr=lr)
        self._move_average()

    def _first_average(self) -> dict[str, Tensor]:
        if self.recipe.average_decay is None:
            return {}
        return {name: p.detach().clone() for name, p in self.optimizer.parameters.items()}

    @torch.no_grad()
    def _move_average(self) -> None:
        for name, average in self.average.items():
            local(average).lerp_(local(self.optimizer.parameters[name]), 1 - (self.recipe.average_decay or 0.0))

    def _sampler(self) -> Sampler:
        return Sampler(
            self.task.num_samples,
            self.recipe,
            rank=self.parallel.data_rank,
            num_ranks=self.parallel.num_data_ranks,
            num_parts=self.plan.num_micro_steps,
            device=self.world.device if self.task.is_resident else CPU,
        )

    def _share(self, total: Tensor, num_terms: int, is_asked_to_stop: bool) -> None:
        """Add up over the ranks, without waiting for a GPU."""
        is_due = self.keeping is not None and time.monotonic() - self.saved_s >= self.keeping.every_s
        flags = [float(num_terms), float(is_asked_to_stop), float(is_due and self.world.rank == 0)]
        if total.device.type == "cpu":
            sums = torch.tensor([float(total), *flags], dtype=torch.float64)
        else:
            sums = torch.cat([total.double().view(1), torch.tensor(flags, dtype=torch.float64, device=total.device)])
        if self.world.size > 1:
            dist.all_reduce(sums)
        is_copied = None
        if sums.device.type == "cuda":
            sums, is_copied = sums.to("cpu", non_blocking=True), torch.cuda.Event()  # type: ignore[no-untyped-call]
            is_copied.record()
        self.pending.append(_Sums(step=self.step, values=sums, is_copied=is_copied))

    def _account(self, sums: _Sums) -> None:
        total, num_terms, stops, saves = sums.read()
        loss = total / num_terms
        if not abs(loss) < float("inf"):  # also catches NaN
            raise DataError(
                f"loss became {loss} at step {sums.step}; check the samples of this dataset, "
                f"or lower lr (now {self.recipe.lr})"
            )
        self.progress.window_loss += loss
        if sums.step % self.report_every == 0 or sums.step == self.num_steps:
            self._report(sums.step)
        self.must_stop, self.must_save = self.must_stop or stops > 0, self.must_save or saves > 0

    def _report(self, step: int) -> None:
        since = step % self.report_every or self.report_every
        lr = learning_rate(step - 1, self.recipe, num_steps=self.num_steps)
        point = [step, step / self.sampler.steps_per_epoch, self.progress.window_loss / since, lr]
        self.progress.history.append(point)
        self.progress.window_loss = 0.0
        self.on_report(point)

    def _end_epoch(self) -> None:
        epoch = self.step // self.sampler.steps_per_epoch
        pace = self.meter.read(epoch)
        self.paces.append(pace)
        if self.world.rank == 0:
            text = "epoch %d of %d done: %.0f samples/s, %.1f %% of the time waiting for them"
            LOG.info(text, epoch, self.recipe.num_epochs, pace.samples_per_s, 100 * pace.wait_share)

    def _tensors(self) -> dict[str, Tensor]:
        """The live state by name."""
        model = {f"model.{name}": tensor for name, tensor in self.parallel.model.state_dict().items()}
        average = {f"average.{name}": tensor for name, tensor in self.average.items()}
        return model | self.optimizer.tensors() | average

    def _save(self) -> None:
        while self.pending:
            self._account(self.pending.popleft())
        self.must_save, self.saved_s = False, time.monotonic()
        if self.keeper is None:
            return
        self._check_finite()
        self.keeper.save(
            State(
                step=self.step,
                tensors=self._tensors(),
                progress=asdict(self.progress),
                world_size=self.world.size,
            )
        )

    def _check_finite(self) -> None:
        """Every rank looks at its part and learns of all others'. Raises: DataError."""
        parameters = self.optimizer.parameters.items()
        broken = [name for name, p in parameters if not torch.isfinite(local(p)).all()]
        count = torch.tensor(float(len(broken)), device=self.world.device)
        if self.world.size > 1:
            dist.all_reduce(count)
        if count > 0:
            raise DataError(
                f"parameters {broken or 'of another rank'} are not finite after step {self.step}; "
                f"lower lr ({self.recipe.lr})"
            )

    def _restore(self) -> None:
        state = None if self.keeper is None else self.keeper.load(self._tensors())
        if state is None:
            return
        self.step, self.progress = state.step, _Progress.of(state.progress)
        if state.world_size != self.world.size:
            self.progress.is_bitwise = False
            LOG.warning("resumed what %d ranks left with %d: not bitwise", state.world_size, self.world.size)
        LOG.info("resumed at step %d of %d", self.step, self.num_steps)


def _keeper(keeping: Keeping | None, plan: Plan, world: World) -> Keeper | None:
    if keeping is None:
        return None
    if keeping.is_sharded:
        from clearway.engine.sharded import ShardedKeeper  # noqa: PLC0415 - 0.7 s of imports

        return ShardedKeeper(keeping, world)
    if plan.data_parallel is DataParallel.FSDP2 or plan.tensor_parallel > 1 or keeping.copy is not None:
        raise ConfigError(
            "one file holds only what rank 0 has, and is not copied; with sharded parameters or a copy, keep sharded "
            "checkpoints (is_sharded)"
        )
    return FileKeeper(keeping, world)
