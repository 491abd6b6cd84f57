"""What a training sample costs: the engine's loop beside a stock DataLoader loop, a bare loop and its own float32.

    python tests/benchmarks/bench_train.py [product] [--rounds 3]
    python tests/benchmarks/bench_train.py anchor [--rounds 5]
    python tests/benchmarks/bench_train.py checkpoints [--rounds 6] [--seconds 8] [--every 0.25]
    python tests/benchmarks/bench_train.py ranks [--rounds 5]

Rounds are interleaved, one thread; CPU microseconds per row seen, medians. `product`: random rows with the flights
product's number of columns, its network. The bare loop has the same network, optimizer, order and noise, and nothing
else: no checkpoints, meters, plans or ranks. Also the share of this core's float32 matrix product peak, the latency of
one row in ONNX Runtime, and what one checkpoint costs. `anchor`: a network a third as large (anchor_net.py), for which
the loop around it shows. `checkpoints`: pairs of the same training, without and with checkpoints, twenty times as
often as by default, so that what one costs shows; CPU and wall time of one, and of one per default interval. `ranks`:
two processes of one thread against one of two threads, the same batches; needs two idle cores.
"""
# ruff: noqa: T201

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import scipy.stats
import torch
from torch.utils.data import DataLoader, TensorDataset

sys.path.insert(0, str(Path(__file__).parents[1]))

import anchor_net

import clearway.engine.checkpoints
from clearway.engine.adamw import AdamW
from clearway.engine.checkpoints import save
from clearway.engine.keeping import Keeping, State
from clearway.engine.order import epoch_order, noise_seed, num_steps_per_epoch, one_cycle
from clearway.product import Model
from clearway.tabular.bins import Bins
from clearway.tabular.export import to_onnx
from clearway.tabular.fit import CPU, Rows, TabularTask, World, fit, has_fast_bfloat16, make_deterministic
from clearway.tabular.model import ModelShape, Noise, build, loss_sum, parameter_arrays, shape_of
from clearway.tabular.training_set import encode
from engine_kit import results

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


def product(rounds: int, num_rows: int) -> dict[str, Any]:
    settings = Model(num_epochs=1)
    rows, bins, numeric, category = random_rows(num_rows, settings)
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
    result: dict[str, Any] = in_turn(loops, rounds=rounds, num_rows=num_rows)
    mflop = TabularTask(rows, shape, settings, rank=0).flops_per_sample / 1e6
    result["share of the float32 peak"] = round(mflop / result["ours, float32"] / peak_gflops() * 1e3, 2)
    graph = to_onnx(parameter_arrays(build(shape, seed=0)), shape, bins)
    result["one row in ONNX Runtime, us"] = round(row_latency_us(graph, numeric, category), 1)
    result["one checkpoint, ms"] = round(checkpoint_ms(shape), 1)
    return result


def anchor(rounds: int, num_rows: int) -> dict[str, Any]:
    rows, held = (anchor_net.AnchorRows.drawn(num_rows, seed=seed) for seed in (1, 2))
    loops: dict[str, Callable[[], object]] = {
        "stock DataLoader loop, float32": lambda: anchor_net.stock(rows),
        "bare loop, float32": lambda: anchor_net.bare(rows),
        "ours, float32": lambda: anchor_net.ours(rows),
    }
    if has_fast_bfloat16(CPU):
        loops["bare loop, bfloat16"] = lambda: anchor_net.bare(rows, is_bfloat16=True)
        loops["ours, bfloat16"] = lambda: anchor_net.ours(rows, is_bfloat16=True)
    result: dict[str, Any] = in_turn(loops, rounds=rounds, num_rows=num_rows)
    result |= {f"reading alone, {name}": round(us, 2) for name, us in anchor_net.loading_us(rows).items()}
    peak = peak_gflops()
    mflop = anchor_net.AnchorTask(rows=rows).flops_per_sample / 1e6
    result |= {"float32 peak, GFLOP/s": round(peak, 1)}
    result["share of the float32 peak"] = round(mflop / result["ours, float32"] / peak * 1e3, 2)
    for is_bfloat16 in (False, True):
        trained = anchor_net.ours(rows, num_epochs=4, is_bfloat16=is_bfloat16)
        name = f"AUC after 4 epochs, {'bfloat16' if is_bfloat16 else 'float32'}"
        result[name] = round(anchor_net.quality(trained.model, held), 5)
    return result


def in_turn(loops: dict[str, Callable[[], object]], *, rounds: int, num_rows: int) -> dict[str, Any]:
    """Medians of CPU microseconds per row; of the other loops as multiples of ours, round by round."""
    for loop in loops.values():
        loop()  # first calls import and allocate
    times: dict[str, list[float]] = {name: [] for name in loops}
    for number in range(rounds):
        for name in list(loops) if number % 2 else list(loops)[::-1]:
            times[name].append(cpu_us_per_row(loops[name], num_rows))
    found: dict[str, Any] = {name: round(statistics.median(values), 2) for name, values in times.items()}
    for ours in (name for name in times if name.startswith("ours")):
        for other in ("stock DataLoader loop, float32", ours.replace("ours", "bare loop")):
            ratios = [a / b for a, b in zip(times[other], times[ours], strict=True)]
            found[f"{other} / {ours}"] = f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
    return found


def checkpoints(rounds: int, seconds: float, every_s: float) -> dict[str, Any]:
    """Pairs of equal trainings, without and with checkpoints; either begins every other pair."""
    settings = Model(num_epochs=1)
    rows, *_ = random_rows(8192, settings)
    shape = shape_of(settings, num_numeric=NUM_NUMERIC, cardinalities=CARDINALITIES)
    num_saved = counted_saves()

    def once(keeping: Keeping | None, asked: Model) -> tuple[float, float]:
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        fit(rows, shape, asked, world=World(), keeping=keeping, should_stop=lambda: False)
        return time.process_time() - cpu_s, time.perf_counter() - wall_s

    once(None, settings)
    num_epochs = max(1, round(seconds / once(None, settings)[1]))
    asked, added = settings.model_copy(update={"num_epochs": num_epochs}), {"CPU": list[float](), "wall": list[float]()}
    for number in range(rounds):
        spent, before = {}, next(num_saved)
        for is_kept in (False, True) if number % 2 else (True, False):
            with tempfile.TemporaryDirectory() as folder:
                keeping = Keeping(folder=Path(folder), job="j", every_s=every_s) if is_kept else None
                spent[is_kept] = once(keeping, asked)
        saved = next(num_saved) - before
        for place, name in enumerate(added):
            added[name].append(1e3 * (spent[True][place] - spent[False][place]) / saved)
        print(f"pair {number + 1}: {saved} checkpoints, {spent[False][1]:.1f} s without, {spent[True][1]:.1f} s with")
    share = {name: [ms / settings.checkpoint_s / 10 for ms in values] for name, values in added.items()}
    found = {f"one checkpoint, {name} ms": told(values) for name, values in added.items()}
    return found | {f"one every {settings.checkpoint_s} s, % of {n} time": told(v) for n, v in share.items()}


def counted_saves() -> Iterator[int]:
    """How many checkpoints were written since the first time it was asked, at each time."""
    write, saved = clearway.engine.checkpoints.save, list[int]()

    def counted(*args: Any, **kwargs: Any) -> Path:
        saved.append(1)
        return write(*args, **kwargs)

    clearway.engine.checkpoints.save = counted
    while True:
        yield len(saved)


def told(values: list[float]) -> str:
    """Mean and its 95 % interval (Student's t)."""
    half = scipy.stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.mean(values):.2f} ± {half:.2f} (n = {len(values)})"


def ranks(rounds: int, num_rows: int) -> dict[str, Any]:
    """Wall time of the same training by one process of two threads, and by two of one thread each."""
    rows = anchor_net.AnchorRows.drawn(num_rows, seed=1)

    def one_round(batch_size: int, num_ranks: int) -> float:
        def work(world: World) -> float:
            torch.set_num_threads(2 // num_ranks)
            anchor_net.ours(rows, world=world, batch_size=batch_size)  # threads and buffers are made
            before_s = time.perf_counter()
            anchor_net.ours(rows, world=world, batch_size=batch_size)
            return time.perf_counter() - before_s

        return max(results(work, num_ranks=num_ranks))

    import torch._dynamo  # what DDP imports: here once for all forks

    found = {}
    for batch_size in (1024, 8192):
        shares = [one_round(batch_size, 1) / one_round(batch_size, 2) for _ in range(rounds)]
        told_shares = f"{statistics.median(shares):.2f} ({min(shares):.2f} to {max(shares):.2f})"
        found[f"speed of 2 ranks over 1 rank of 2 threads, batch {batch_size}"] = told_shares
        print(f"batch {batch_size}: {told_shares}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", default="product", choices=["product", "anchor", "checkpoints", "ranks"])
    parser.add_argument("--rows", type=int, default=0, help="0: 8,192 of the product, 65,536 of the anchor")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--every", type=float, default=0.25, help="seconds between checkpoints")
    args = parser.parse_args()
    make_deterministic(1)
    if args.what == "product":
        found = product(args.rounds, args.rows or 8192)
    elif args.what == "checkpoints":
        found = checkpoints(args.rounds, args.seconds, args.every)
    else:
        found = {"anchor": anchor, "ranks": ranks}[args.what](args.rounds, args.rows or 65_536)
    print(json.dumps(found, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
