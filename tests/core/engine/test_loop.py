"""The loop on one device: parts add up to the whole, helpers do what they say, nonsense stops it."""

from dataclasses import replace

import pytest
import torch

from clearway.contracts.errors import ConfigError, DataError
from clearway.engine.adamw import AdamW
from clearway.engine.gradients import GROWTH_STEPS, LossScale
from clearway.engine.loop import train
from clearway.engine.plan import DataParallel, Plan, Precision, Schedule
from clearway.engine.world import World
from engine_kit import RECIPE, SINGLE, Curve, digest, keep_in, run, together

ALONE = World()


def weights(trained) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trained.model.parameters()])


def test_micro_steps_add_up_to_the_whole_batch():
    whole, parts = (run(ALONE, task=Curve(dropout=0.0), plan=Plan(num_micro_steps=n)) for n in (1, 4))
    torch.testing.assert_close(weights(whole), weights(parts), rtol=1e-4, atol=1e-5)


def test_recomputing_changes_no_bit():
    plain, recomputed = (run(ALONE, plan=Plan(is_recomputing=value)) for value in (False, True))
    assert digest(plain) == digest(recomputed)


def test_the_fused_optimizer_agrees_with_the_plain_one():
    plain, fused = (run(ALONE, plan=Plan(is_fused=value)) for value in (False, True))
    torch.testing.assert_close(weights(plain), weights(fused), rtol=1e-3, atol=1e-4)


def test_batches_read_ahead_are_those_sliced_in_place():
    tasks = [Curve(is_resident=value) for value in (True, False)]
    ends = [digest(run(ALONE, task=task, plan=Plan(num_micro_steps=2))) for task in tasks]
    assert ends[0] == ends[1]
    assert tasks[0].seen == tasks[1].seen


def test_an_error_while_reading_ahead_reaches_the_caller():
    class Broken(Curve):
        def batch(self, index):
            if len(self.seen) == 7:
                raise OSError("the disk is gone")
            return super().batch(index)

    with pytest.raises(OSError, match="the disk is gone"):
        run(ALONE, task=Broken(is_resident=False))


def test_the_average_follows_the_weights():
    expected = torch.cat([p.detach().flatten() for p in Curve().build().parameters()])
    for steps in (1, 2, 3):
        expected = expected.lerp(weights(run(ALONE, stop_after=steps)), 0.25)
    trained = run(ALONE, recipe=replace(RECIPE, average_decay=0.75), stop_after=3)
    found = torch.cat([tensor.flatten() for tensor in trained.average.values()])
    torch.testing.assert_close(found, expected)


def test_clipping_bounds_the_first_step():
    """AdamW hides the size of a gradient, so its mean is looked at: a tenth of the clipped gradient."""
    seen = {}

    class Watched(AdamW):
        def update(self, **how):
            super().update(**how)
            seen.setdefault("norm", torch.cat([m.flatten() for m in self.mean.values()]).norm().item() * 10)

    def norm_of(clip_norm):
        seen.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("clearway.engine.loop.AdamW", Watched)
            run(ALONE, task=Curve(dropout=0.0), recipe=replace(RECIPE, clip_norm=clip_norm, max_steps=1))
        return seen["norm"]

    free = norm_of(1e9)
    assert free > 0.5
    assert norm_of(free / 2) == pytest.approx(free / 2, rel=1e-4)


def test_float16_learns_and_its_scale_is_resumed(tmp_path):
    plan = Plan(precision=Precision.FLOAT16)
    whole = run(ALONE, plan=plan)
    keeping = keep_in(tmp_path)
    assert not run(ALONE, plan=plan, keeping=keeping, stop_after=17).is_complete
    rest = run(ALONE, plan=plan, keeping=keeping)
    assert rest.resumed_step == 17
    assert digest(rest) == digest(whole)
    assert whole.history[-1][2] < whole.history[0][2]


def test_the_loss_scale_shrinks_at_once_and_grows_slowly():
    scale = LossScale(scale=8.0)
    scale.update(is_finite=False)
    assert scale.scale == 4.0
    for _ in range(GROWTH_STEPS):
        scale.update(is_finite=True)
    assert scale.scale == 8.0


@pytest.mark.parametrize("plan", [SINGLE, Plan(precision=Precision.BFLOAT16)], ids=["float32", "bfloat16"])
def test_interrupted_at_any_step_it_ends_at_the_same_bits(tmp_path, plan):
    recipe = replace(RECIPE, average_decay=0.9, clip_norm=1.0, schedule=Schedule.COSINE, num_epochs=2)
    whole_task, rest_task = Curve(), Curve()
    whole = run(ALONE, recipe=recipe, plan=plan, task=whole_task)
    for step in range(1, whole.num_steps, 3):
        keeping = keep_in(tmp_path / str(step), every_s=1e9)
        assert run(ALONE, recipe=recipe, plan=plan, keeping=keeping, stop_after=step).num_samples == step * 16
        rest_task.seen.clear()
        rest = run(ALONE, recipe=recipe, plan=plan, keeping=keeping, task=rest_task)
        assert rest.resumed_step == step  # not one step lost
        assert rest_task.seen == whole_task.seen[step:]
        assert digest(rest) == digest(whole)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_state(tmp_path):
    keeping = keep_in(tmp_path)
    with pytest.raises(DataError, match=r"loss became nan at step \d"):
        run(ALONE, task=Curve(poisoned=Curve().num_samples - 1), keeping=keeping)
    rest = run(ALONE, keeping=keeping)
    assert all(torch.isfinite(p).all() for p in rest.model.parameters())


def test_reports_are_told_as_they_come_and_may_end_the_run():
    class Enough(Exception):
        pass

    told = []

    def on_report(point):
        told.append(point)
        if len(told) == 3:
            raise Enough

    with pytest.raises(Enough):
        train(Curve(), RECIPE, SINGLE, world=ALONE, keeping=None, should_stop=lambda: False, on_report=on_report)
    assert [point[0] for point in told] == [1, 2, 3]


def test_paces_say_how_fast_and_how_long_it_waited():
    trained = run(ALONE)
    assert [pace.epoch for pace in trained.paces] == [1, 2, 3, 4]
    assert sum(pace.num_samples for pace in trained.paces) == trained.num_samples == 640
    assert all(0 <= pace.wait_share < 1 and pace.samples_per_s > 0 for pace in trained.paces)


def test_a_small_model_without_blocks_is_not_recomputed():
    class Small(Curve):
        def blocks(self, model):
            return []

    with pytest.raises(ConfigError, match="names no blocks"):
        run(ALONE, task=Small(), plan=Plan(is_recomputing=True))


def test_sharded_parameters_are_not_kept_in_one_file(tmp_path):
    plan = Plan(data_parallel=DataParallel.FSDP2)
    ended = together(lambda world: run(world, plan=plan, keeping=keep_in(tmp_path)), num_ranks=1)
    assert "is_sharded" in ended[0].error
