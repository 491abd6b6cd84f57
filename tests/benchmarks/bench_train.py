"""What a training sample costs: the engine's loop beside a stock DataLoader loop, a bare loop and its own float32.

    python tests/benchmarks/bench_train.py

Interleaved rounds in one process, one thread; CPU microseconds per row seen (medians), on random rows with the flights
product's number of columns. The bare loop has the same network, optimizer, order and noise, and nothing else: no
checkpoints, meters, plans or ranks. Also the share of this core's float32 matrix product peak,
the latency of one row in ONNX Runtime, what a checkpoint costs, and that cost as a share of the default interval.
"""
# ruff: noqa: T201

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from torch.utils.data import DataLoader, TensorDataset

from clearway.engine.adamw import AdamW
from clearway.engine.checkpoints import save
from clearway.engine.keeping import State
from clearway.engine.order import epoch_order, noise_seed, num_steps_per_epoch, one_cycle
from clearway.product import Model
from clearway.tabular.bins import Bins
from clearway.tabular.fit import CPU, Rows, TabularTask, World, fit, has_fast_bfloat16, make_deterministic
from clearway.tabular.model import ModelShape, Noise, build, loss_sum, parameter_arrays, shape_of
from clearway.tabular.training_set import encode
from clearway.train.export import to_onnx

NUM_NUMERIC, CARDINALITIES = 84, (4, 17, 106, 218, 30, 90)


def random_rows(num_rows: int, settings: Model) -> tuple[Rows, Bins, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    numeric = rng.normal(size=(num_rows, NUM_NUMERIC)).astype(np.float32)
    numeric[rng.random(numeric.shape) < 0.05] = np.nan
    category = np.stack([rng.integers(0, c, num_rows) for c in CARDINALITIES], axis=1)
    bins = Bins.fit(numeric, num_bins=settings.num_bins)
    arrays = encode(bins, numeric, category) | {"label": (rng.random(num_rows) < 0.25).astype(np.float32)}
    return Rows(**{name: torch.from_numpy(value) for name, value in arrays.items()}), bins, numeric, category


def stock_loop(rows: Rows, shape: ModelShape, settings: Model) -> None:
    """The same network as tutorials train it: DataLoader over single rows, torch's AdamW, float32."""
    model = build(shape, seed=0).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    loader = DataLoader(
        TensorDataset(rows.bin, rows.place, rows.category, rows.label), settings.batch_size, shuffle=True
    )
    for index, place, category, label in loader:
        optimizer.zero_grad()
        loss_sum(model(index.long(), place, category.long()), label).backward()
        optimizer.step()


def bare_loop(rows: Rows, shape: ModelShape, settings: Model, *, is_bfloat16: bool) -> None:
    """What a person would write for this one network, once they knew what is fast."""
    model, size = build(shape, seed=0).train(), settings.batch_size
    optimizer = AdamW(model.named_parameters(), weight_decay=settings.weight_decay)
    num_values = settings.num_members * size * max(settings.hidden)
    noise = Noise(share=settings.dropout, num_values=num_values, seed=0, device=CPU)
    steps = num_steps_per_epoch(len(rows), size)
    order = epoch_order(len(rows), seed=0, epoch=0)
    for step in range(steps):
        mine = order[step * size : (step + 1) * size]
        noise.start(noise_seed(seed=0, step=step, rank=0))
        with torch.autocast("cpu", torch.bfloat16, enabled=is_bfloat16):
            logits = model(rows.bin[mine].long(), rows.place[mine], rows.category[mine].long(), noise)
            loss = loss_sum(logits, rows.label[mine]) / len(mine)
        loss.backward()
        optimizer.update(step=step + 1, lr=one_cycle(step, num_steps=steps, lr=settings.lr))


def peak_gflops() -> float:
    """float32 matrix products on one thread; the best of a few, by CPU time."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    best = 0.0
    for _ in range(5):
        before = time.process_time()
        torch.mm(a, b)
        best = max(best, 2 * 1024**3 / (time.process_time() - before) / 1e9)
    return best


def cpu_us_per_row(work: Callable[[], object], num_rows: int) -> float:
    before = time.process_time()
    work()
    return (time.process_time() - before) / num_rows * 1e6


def row_latency_us(data: bytes, numeric: np.ndarray, category: np.ndarray) -> float:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    before = time.process_time()
    for i in range(500):
        session.run(None, {"numeric": numeric[i : i + 1], "categorical": category[i : i + 1]})
    return (time.process_time() - before) / 500 * 1e6


def checkpoint_ms(shape: ModelShape) -> float:
    model = build(shape, seed=0)
    kinds = ("model", "mean", "square")
    tensors = {f"{kind}.{n}": p.detach().clone() for kind in kinds for n, p in model.named_parameters()}
    with tempfile.TemporaryDirectory() as folder:
        before = time.perf_counter()
        for step in range(5):
            save(Path(folder), State(step=step, tensors=tensors, progress={}, world_size=1), job="j")
        return (time.perf_counter() - before) / 5 * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    make_deterministic(1)
    settings = Model(num_epochs=1)
    rows, bins, numeric, category = random_rows(args.rows, settings)
    shape = shape_of(settings, num_numeric=NUM_NUMERIC, cardinalities=CARDINALITIES)

    def ours(*, is_bfloat16: bool) -> None:
        world = World(is_bfloat16=is_bfloat16)
        fit(rows, shape, settings, world=world, keeping=None, should_stop=lambda: False)

    loops: dict[str, Callable[[], object]] = {
        "stock DataLoader loop, float32": lambda: stock_loop(rows, shape, settings),
        "bare loop, float32": lambda: bare_loop(rows, shape, settings, is_bfloat16=False),
        "ours, float32": lambda: ours(is_bfloat16=False),
    }
    if has_fast_bfloat16(CPU):
        loops["bare loop, bfloat16"] = lambda: bare_loop(rows, shape, settings, is_bfloat16=True)
        loops["ours, bfloat16"] = lambda: ours(is_bfloat16=True)
    for loop in loops.values():
        loop()  # first calls import and allocate
    times = {name: [] for name in loops}
    for _ in range(args.rounds):
        for name, loop in loops.items():
            times[name].append(cpu_us_per_row(loop, args.rows))
    result = {name: round(statistics.median(values), 1) for name, values in times.items()}
    mflop = TabularTask(rows, shape, settings, rank=0).flops_per_sample / 1e6
    result["share of the float32 peak"] = round(mflop / result["ours, float32"] / peak_gflops() * 1e3, 2)
    graph = to_onnx(parameter_arrays(build(shape, seed=0)), shape, bins)
    result["one row in ONNX Runtime, us"] = round(row_latency_us(graph, numeric, category), 1)
    result["one checkpoint, ms"] = round(checkpoint_ms(shape), 1)
    result["checkpoints, % of the time"] = round(result["one checkpoint, ms"] / settings.checkpoint_s / 10, 2)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
