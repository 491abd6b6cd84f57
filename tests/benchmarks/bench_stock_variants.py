"""How much of the distance that bench_release.py finds is settings and wording, and not the tools themselves.

    python tests/benchmarks/bench_release.py --keep FOLDER
    python tests/benchmarks/bench_stock_variants.py FOLDER/round-0

tuned JVM       preprocess of release and week on JVM Spark with the settings Clearway gives it (`spark.engine: jvm`:
                four shuffle partitions, no optimising compiler, no bookkeeping of lines)
few questions   the stock checkpoint with the expectations of product.yaml alone
quiet week      Evidently's preset with its defaults, one training week against the other twelve: nothing has drifted

One JSON line per variant: CPU seconds, wall seconds, and what it found.
"""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "2")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench_release import OURS, PRODUCT, STOCK_STACK, WEEK, new_arm
from costs import Cost, measured

from clearway import release as loop
from clearway.infra.clock import parse_instant
from clearway.infra.environment import project_root
from clearway.launch.process import adopt_orphans
from clearway.product_yaml import find_product


def main() -> None:
    """All variants, on what a kept round left."""
    stock = Path(sys.argv[1]).resolve() / "stock"
    adopt_orphans()
    tuned_jvm(stock.parent / "variants")
    task = json.loads((stock / "task-release.json").read_text(encoding="utf-8"))
    for name, extra in (("few questions", ("few",)), ("all questions", ())):
        folder = new_folder(stock.parent / name.replace(" ", "-"))
        cost = measured([*STOCK_STACK, "validate", str(stock / "task-release.json"), str(folder), *extra], settings={})
        show(name, cost, (folder / "verdict.json").read_text(encoding="utf-8"))
    for weeks in (slice(-1, None), slice(-5, -4)):
        current = task["reference"][weeks]
        quiet = task | {"current": current, "reference": [f for f in task["reference"] if f not in current]}
        folder = new_folder(stock.parent / f"quiet-{weeks.start}")
        (folder / "task.json").write_text(json.dumps(quiet), encoding="utf-8")
        cost = measured([*STOCK_STACK, "drift", str(folder / "task.json"), str(folder)], settings={})
        show(f"quiet week {weeks.start} from the end", cost, (folder / "drift.json").read_text(encoding="utf-8"))


def tuned_jvm(folder: Path) -> None:
    """Features on Clearway's own JVM engine."""
    spec = find_product(project_root() / "include" / "products", PRODUCT).spec
    arm = new_arm(OURS, folder, {})
    arm.settings["CLEARWAY__SPARK__ENGINE"] = "jvm"
    request = loop.release_request(spec, "bench", as_of=spec.release.first_end)
    week = loop.batch_request(spec, "bench-week", start=parse_instant(WEEK))
    arm.walk(request, "ingest", "preprocess", part="release")
    arm.walk(week, "ingest", "preprocess", part="week")
    for part in ("release preprocess", "week preprocess"):
        show(f"tuned JVM, {part}", arm.costs[part][0], json.dumps({"reason": arm.outputs[part].reason}))


def new_folder(path: Path) -> Path:
    path.mkdir()
    return path


def show(name: str, cost: Cost, found: str) -> None:
    line = {"variant": name, "cpu_s": round(cost.cpu_s, 1), "wall_s": round(cost.wall_s, 1), **json.loads(found)}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
