"""The same loop on a GPU: bfloat16, nccl, resumable. Skipped where torch sees no GPU."""

import numpy as np
import pytest
import torch
import torch.distributed as dist

from clearway.engine.plan import DataParallel, Plan, Precision
from clearway.engine.world import World as Peers
from clearway.measures.binary import auc
from clearway.packaging.encoder import Encoder
from clearway.product import Model
from clearway.tabular.bins import Bins
from clearway.tabular.fit import Keeping, Rows, World, fit, has_fast_bfloat16, make_deterministic
from clearway.tabular.model import predict, shape_of
from clearway.tabular.training_set import ARRAYS, TrainingSet, encode, write_arrays
from clearway.train.launch import launch, num_local_processes
from clearway.train.worker import Job
from engine_kit import digest, keep_in, run

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device on this machine")

SETTINGS = Model(num_bins=16, hidden=(64, 64), num_members=2, batch_size=1024, num_epochs=3, lr=0.005)
NUM_ROWS = 20_000


def training_set() -> TrainingSet:
    rng = np.random.default_rng(0)
    numeric = rng.normal(size=(NUM_ROWS, 6)).astype(np.float32)
    category = rng.integers(0, 5, (NUM_ROWS, 2))
    label = (rng.random(NUM_ROWS) < 1 / (1 + np.exp(-2 * np.sin(2 * numeric[:, 0])))).astype(np.float32)
    bins = Bins.fit(numeric, num_bins=SETTINGS.num_bins)
    encoder = Encoder(
        numeric=tuple("abcdef"), categorical=("x", "y"), vocabulary={c: tuple("1234") for c in ("x", "y")}
    )
    return TrainingSet(encoder=encoder, bins=bins, arrays=encode(bins, numeric, category) | {"label": label})


def train(made: TrainingSet, device: str, keeping: Keeping | None = None, stop_after: int = 10**9):
    make_deterministic(2)
    rows = Rows(**{name: torch.from_numpy(value) for name, value in made.arrays.items()})
    world = World(device=torch.device(device), is_bfloat16=has_fast_bfloat16(torch.device(device)))
    shape = shape_of(SETTINGS, num_numeric=6, cardinalities=made.encoder.cardinalities)
    steps = iter(range(10**9))
    return fit(rows, shape, SETTINGS, world=world, keeping=keeping, should_stop=lambda: next(steps) + 1 >= stop_after)


def test_gpu_and_cpu_learn_the_same():
    made = training_set()
    scores = [predict(train(made, device).model.cpu(), made.arrays) for device in ("cpu", "cuda")]
    found = [auc(made.arrays["label"], score) for score in scores]
    assert found[0] == pytest.approx(found[1], abs=0.003)
    assert found[1] > 0.75


def test_resume_on_the_gpu_is_exact(tmp_path):
    made = training_set()
    whole = train(made, "cuda")
    keeping = Keeping(folder=tmp_path, job="j", every_s=1e9)
    train(made, "cuda", keeping, stop_after=17)
    rest = train(made, "cuda", keeping)
    assert rest.resumed_step == 18  # a GPU's sums are read one step late
    for a, b in zip(whole.model.parameters(), rest.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_workers_on_all_gpus(tmp_path):
    made = training_set()
    write_arrays(made, tmp_path / ARRAYS)
    job = Job(
        folder=str(tmp_path),
        identity="j",
        kind="tabular",
        sizes={"num_numeric": 6, "cardinalities": list(made.encoder.cardinalities)},
        settings=SETTINGS.model_dump(mode="json"),
        num_threads=2,
        is_bfloat16=True,
    )
    outcome = launch(job, num_processes=num_local_processes(), can_fork=False)
    assert outcome.world_size == torch.cuda.device_count()
    assert outcome.history[-1][2] < outcome.history[0][2]


def test_bfloat16_compiled_and_sharded_resumes_to_the_bit(tmp_path):
    """One rank of FSDP2 over nccl: sharding has nobody to share with, its hooks, casts and checkpoints all run."""
    plan = Plan(
        data_parallel=DataParallel.FSDP2,
        precision=Precision.BFLOAT16,
        is_compiled=True,
        is_recomputing=True,
        is_fused=True,
    )
    world = Peers(device=torch.device("cuda", 0))
    store = dist.TCPStore("127.0.0.1", 0, 1, is_master=True)
    dist.init_process_group("cpu:gloo,cuda:nccl", store=store, rank=0, world_size=1)
    try:
        whole = run(world, plan=plan)
        keeping = keep_in(tmp_path, is_sharded=True, every_s=1e9)
        part = run(world, plan=plan, keeping=keeping, stop_after=17)
        rest = run(world, plan=plan, keeping=keeping)
        assert not part.is_complete
        assert rest.resumed_step == 18
        assert digest(rest) == digest(whole)
        assert whole.history[-1][2] < whole.history[0][2]
    finally:
        dist.destroy_process_group()
