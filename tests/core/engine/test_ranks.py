"""Several real processes over gloo: they reach what one process reaches, leave together, and never wait for ever."""

import os
import signal
import socket
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from clearway.engine.gradients import global_norm
from clearway.engine.interrupt import Interrupts
from clearway.engine.loop import train
from clearway.engine.parallel import full_tensors, parallelize
from clearway.engine.plan import DataParallel, Plan
from clearway.engine.world import World
from engine_kit import DDP, RECIPE, SINGLE, Curve, digest, keep_in, results, run, together

pytestmark = pytest.mark.slow  # each starts processes

FSDP2 = Plan(data_parallel=DataParallel.FSDP2)
FULL = replace(RECIPE, clip_norm=0.5, average_decay=0.9, num_epochs=1)


def ending(world: World, plan: Plan) -> tuple[list[list[float]], dict[str, list[float]]]:
    trained = run(world, task=Curve(dropout=0.0), recipe=FULL, plan=plan)
    tensors = full_tensors(trained.model)
    return trained.history, {name: tensor.flatten().tolist() for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    ("plan", "num_ranks"),
    [
        (DDP, 2),
        (replace(DDP, num_micro_steps=2), 2),
        (FSDP2, 2),
        (replace(FSDP2, num_micro_steps=2, is_recomputing=True), 2),
        (Plan(tensor_parallel=2), 2),
        (replace(FSDP2, num_replicas=2), 4),
        (replace(FSDP2, tensor_parallel=2), 4),
    ],
    ids=["ddp", "ddp in parts", "fsdp2", "fsdp2 in parts, recomputed", "tensor", "hsdp", "fsdp2 x tensor"],
)
def test_every_arrangement_reaches_what_one_device_reaches(plan, num_ranks):
    history, weights = ending(World(), SINGLE)
    for found_history, found_weights in results(lambda world: ending(world, plan), num_ranks=num_ranks):
        torch.testing.assert_close(torch.tensor(found_history), torch.tensor(history), rtol=1e-4, atol=1e-5)
        for name, values in weights.items():
            torch.testing.assert_close(torch.tensor(found_weights[name]), torch.tensor(values), rtol=1e-3, atol=1e-4)


def test_the_norm_counts_every_element_once_wherever_it_lies():
    def norm(world: World, plan: Plan) -> float:
        task = Curve(dropout=0.0)
        task.place(world.device)
        parallel = parallelize(task, plan, world)
        batch = task.batch(torch.arange(64))
        loss, _ = task.loss(parallel.called, batch, None)  # the same batch everywhere: the mean over ranks is its own
        loss.backward()
        return float(global_norm(parallel.model.parameters()))

    expected = norm(World(), SINGLE)
    assert expected > 1
    for plan in (DDP, FSDP2, Plan(tensor_parallel=2)):
        found = results(lambda world, plan=plan: norm(world, plan))
        assert found == pytest.approx([expected] * 2, rel=1e-5)


def test_one_asked_rank_takes_all_with_it_and_no_step_is_lost(tmp_path):
    """SIGTERM to rank 1 alone, as a spot notice to one machine would be."""

    def stopped(world: World):
        interrupts = Interrupts()
        interrupts.on_signals()
        task = Curve()

        def should_stop() -> bool:
            if world.rank == 1 and len(task.seen) == 17:
                os.kill(os.getpid(), signal.SIGTERM)
            return interrupts.should_stop()

        keeping = keep_in(tmp_path, every_s=1e9)
        trained = train(task, RECIPE, DDP, world=world, keeping=keeping, should_stop=should_stop)
        return trained.is_complete, len(task.seen), interrupts.reason

    assert results(stopped) == [(False, 18, ""), (False, 18, "signal SIGTERM")]
    rest = results(lambda world: _resumed(world, tmp_path))
    assert [step for step, _ in rest] == [18, 18]
    whole = results(lambda world: digest(run(world, plan=DDP)))
    assert [found for _, found in rest] == whole


def _resumed(world: World, folder: Path) -> tuple[int, str]:
    trained = run(world, plan=DDP, keeping=keep_in(folder, every_s=1e9))
    return trained.resumed_step, digest(trained)


@pytest.mark.parametrize("is_sharded", [False, True], ids=["file", "shards"])
def test_another_number_of_ranks_goes_on_only_if_asked_and_says_so(tmp_path, is_sharded):
    keeping = keep_in(tmp_path, is_sharded=is_sharded, every_s=1e9)
    results(lambda world: run(world, plan=DDP, keeping=keeping, stop_after=7).num_steps)
    refused = together(lambda world: run(world, plan=DDP, keeping=keeping), num_ranks=1)
    assert "is of 2 ranks, these are 1" in refused[0].error
    asked = replace(keeping, allows_other_world=True)

    def rest(world: World):
        trained = run(world, plan=DDP, keeping=asked)
        return trained.resumed_step, trained.is_complete, trained.is_bitwise

    assert results(rest, num_ranks=1) == [(7, True, False)]


def test_a_loss_that_is_no_number_on_one_rank_ends_all_with_the_cause():
    ended = together(lambda world: run(world, plan=DDP, task=Curve(poisoned=3)))
    assert all("loss became nan at step" in end.error for end in ended)


def test_a_hung_rank_is_given_up_after_the_timeout():
    def hang(world: World) -> None:
        task = Curve()

        def should_stop() -> bool:
            if world.rank == 1 and len(task.seen) == 5:
                os.kill(os.getpid(), signal.SIGSTOP)
            return False

        train(task, RECIPE, DDP, world=world, keeping=None, should_stop=should_stop)

    ended = together(hang, timeout=timedelta(seconds=6), hung=frozenset({1}))
    assert ended[0].exitcode == 1
    assert "imed out" in ended[0].error or "imeout" in ended[0].error
    assert ended[1].exitcode == -signal.SIGKILL  # by this test: a stopped process ends by no other signal


def test_a_taken_port_is_an_error_and_no_wait():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        def meet(world: World) -> None:
            dist.destroy_process_group()
            os.environ["MASTER_PORT"] = str(port)
            dist.init_process_group("gloo", rank=0, world_size=2, timeout=timedelta(seconds=60))

        ended = together(meet, num_ranks=1, limit_s=30)
    assert ended[0].exitcode == 1
    assert "EADDRINUSE" in ended[0].error
