"""One release and one week of traffic, on the stock stack and on Clearway: same data, same model, same decision.

    python tests/benchmarks/bench_release.py [--rounds 1] [--keep FOLDER] [--without-airflow]

| part                         | stock (what exactly: stock_stack.py)                | Clearway                        |
|------------------------------|-----------------------------------------------------|---------------------------------|
| preprocess, release and week | JVM Spark, local[*], its default settings           | the same DataFrame code on Sail |
| validate                     | Great Expectations on that JVM Spark, all questions | own gate, then GX on Sail       |
| deploy                       | package saved as MLflow pyfunc                      | verified, blue-green, recorded  |
| serve one week               | `mlflow models serve`, server start included        | its server, start included, log |
| monitor one week             | Evidently on full frames                            | the whole stage, page included  |
| 13 Airflow tasks             | default settings (airflow_chain.py)                 | the launcher's settings         |
| ingest, tune, train, evaluate| the same code, a process each                       | the same code, a forked job each|
| start of the warm worker     | none                                                | imports all libraries once      |

A part is one or more processes; its cost is the CPU seconds of the whole tree (trust these) and wall seconds (trust
them on an idle machine). The stock arm starts each as its own process, as an operator would. Clearway's stages are jobs
of its job runner, forked by the warm worker that its launcher keeps (infra/jobs/warm_worker.py). The CPU seconds of
starting that worker are a part; its wall seconds are printed but not added: it starts with the stack, as Airflow does.
What Airflow adds is the last part. MLflow's database is made before, in both.
The arms take turns, part by part. What is compared: verdicts of ingest, preprocess and validate, the digests of dataset
and model, and the score of every row of the week. Whether the week drifts is compared and reported on its own: the arms
apply different rules. JSON on stdout, a table on stderr; exit code 1 if the arms do not decide the same.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "2")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from airflow_chain import chain_cost
from costs import Cost, measured, measured_job, server, warm_worker

from clearway import release as loop
from clearway.contracts.codec import to_jsonable
from clearway.infra.clock import parse_instant
from clearway.infra.datasets import feature_uris, open_dataset
from clearway.infra.environment import Environment, project_root
from clearway.infra.jobs import JobSpec
from clearway.infra.layout import Layout
from clearway.infra.storage import open_storage
from clearway.launch.process import adopt_orphans
from clearway.monitor.prediction_log import read_predictions
from clearway.packaging.package import open_package
from clearway.product_yaml import find_product
from serving_kit import free_port

PRODUCT, WEEK = "flights", "2013-04-01"
NUM_TASKS = 13  # nine of a release, four of a week
SCORE_TOLERANCE = 1e-5
STOCK, OURS = "stock", "clearway"
STOCK_STACK = (sys.executable, str(Path(__file__).with_name("stock_stack.py")))
# The stock arm takes the data of Clearway's for these, as its own validation writes no receipt.
SAME_MODEL = ("tune", "train", "evaluate")
SAME_CODE = {*(f"release {stage}" for stage in SAME_MODEL), "release ingest", "week ingest"}
WORKER_START = "start of the warm worker"
MAKE_MLFLOW = "import sys, mlflow; mlflow.MlflowClient(sys.argv[1]).search_experiments()"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One stack on its own home folder.

    Args:
        costs: part → cost of each round; shared by the rounds.
        settings: environment variables of its processes.
        worker_pid: the warm worker that forks its stages; 0: each is a process of its own.
        outputs: (part and stage) → Outputs of this round.
    """

    name: str
    home: Path
    costs: dict[str, list[Cost]]
    settings: dict[str, str]
    worker_pid: int = 0
    outputs: dict[str, Any] = field(default_factory=dict)

    @property
    def env(self) -> Environment:
        return Environment.load(self.settings)

    def measure(self, part: str, *command: str) -> None:
        """Run one process and book its cost."""
        self.book(part, measured(command, settings=self.settings))

    def book(self, part: str, cost: Cost) -> None:
        self.costs.setdefault(part, []).append(cost)

    def walk(self, request: loop.Request, *stages: str, part: str) -> None:
        """Run stages as a job each; on the stock arm as a process each, Spark stages with a stock session."""
        chain = loop.BATCH if part == "week" else loop.RELEASE
        for stage in stages:
            step = loop.step_of(chain, stage)
            inputs = step.build(request, *(self.outputs[f"{part} {name}"] for name in step.needs))
            text = self._run(f"{part} {stage}", stage, json.dumps(to_jsonable(inputs)))
            self.outputs[f"{part} {stage}"] = loop.parse_outputs(stage, text)

    def _run(self, part: str, stage: str, inputs: str) -> str:
        if self.worker_pid:
            spec = JobSpec(stage=stage, inputs_json=inputs, key=part.replace(" ", "-"))
            cost, text = measured_job(self.env, spec, worker_pid=self.worker_pid)
            self.book(part, cost)
            return text
        given, result = (self.home / f"{part}.{end}.json" for end in ("in", "out"))
        given.write_text(inputs, encoding="utf-8")
        kind = (sys.executable, "-m", "clearway") if stage in SAME_MODEL else (*STOCK_STACK, "stage")
        self.measure(part, *kind, stage, "--inputs-file", str(given), "--outputs-file", str(result))
        return result.read_text(encoding="utf-8")


def new_arm(name: str, folder: Path, costs: dict[str, list[Cost]]) -> Arm:
    """An arm without data."""
    home = folder / name
    home.mkdir(parents=True)
    return Arm(name=name, home=home, costs=costs, settings={"CLEARWAY__HOME": str(home)})


def release(ours: Arm, stock: Arm, request: loop.Request) -> None:
    """From raw data to an evaluated model."""
    for arm in (stock, ours):
        arm.walk(request, "ingest", part="release")
    for arm in (stock, ours):
        arm.walk(request, "preprocess", part="release")
    stock.measure("release validate", *STOCK_STACK, "validate", str(write_task(stock, "release")), str(stock.home))
    ours.walk(request, "validate", part="release")
    twin = replace(stock, home=stock.home / "twin", settings={"CLEARWAY__HOME": str(stock.home / "twin")})
    shutil.copytree(ours.home, twin.home, ignore=shutil.ignore_patterns("jobs"))
    known = {name: ours.outputs[name] for name in ("release preprocess", "release validate")}
    twin = replace(twin, outputs=stock.outputs | known)
    for arm in (twin, ours):
        arm.walk(request, *SAME_MODEL, part="release")
    stock.outputs["release train"] = twin.outputs["release train"]


def write_task(stock: Arm, current: str) -> Path:
    """What the stock arm's own parts read: columns, and the feature files of the training period and of `current`."""
    spec = find_product(project_root() / "include" / "products", PRODUCT).spec
    storage, layout = open_storage(stock.env.store_root), Layout(stock.env.store_root, PRODUCT)
    files = {}
    for name, part in (("reference", "release"), ("current", current)):
        document = open_dataset(storage, stock.outputs[f"{part} preprocess"].dataset)
        files[name] = [uri.removeprefix("file://") for uri in feature_uris(storage, layout, document)]
    columns = {"numeric": list(spec.features.numeric), "categorical": list(spec.features.categorical)}
    path = stock.home / f"task-{current}.json"
    path.write_text(json.dumps({"product": PRODUCT, **columns, **files}), encoding="utf-8")
    return path


def our_week(ours: Arm, request: loop.Request, week: loop.Request) -> None:
    """Deploy the model, land the week, score it through the server, look for drift."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    ours.settings["CLEARWAY__ENDPOINT__URL"] = url
    command = (sys.executable, "-m", "clearway.serve", "--product", PRODUCT, "--port", str(port))
    with server(command, log=ours.home / "server.log", url=f"{url}/ping", settings=ours.settings) as cost:
        started = cost()
        answer = loop.approve_inputs(request, ours.outputs["release evaluate"], loop.AUTO_ANSWER)
        product = find_product(ours.env.products, PRODUCT)
        ours.outputs["release approve"] = loop.run_in_place("approve", answer, product=product, env=ours.env)
        ours.walk(request, "deploy", part="release")
        ours.walk(week, "ingest", "preprocess", "serve", part="week")
        client = ours.costs["week serve"].pop()
        # The server's seconds of the deployment are among these, though not its wall seconds, which deploy has.
        ours.book("week serve", Cost(client.cpu_s + cost().cpu_s, client.wall_s + started.wall_s))
        ours.walk(week, "monitor", part="week")


def stock_week(stock: Arm, ours: Arm, week: loop.Request) -> None:
    """Save the same model for MLflow, land the week, score it through `mlflow models serve`, run Evidently."""
    stock.walk(week, "ingest", "preprocess", part="week")
    task, folder = str(write_task(stock, "week")), stock.home / "package"
    unpack(ours, folder)
    stock.measure("release deploy", *STOCK_STACK, "package", task, str(folder))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = (sys.executable, "-m", "mlflow", "models", "serve", "-m", str(folder / "mlflow"), "-p", str(port))
    # It looks its helper programs up by name.
    settings = stock.settings | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    log = stock.home / "server.log"
    with server((*command, "--env-manager", "local"), log=log, url=f"{url}/ping", settings=settings) as cost:
        started = cost()
        stock.measure("week serve", *STOCK_STACK, "score", task, url, str(stock.home / "scores.parquet"))
        client = stock.costs["week serve"].pop()
        stock.book("week serve", Cost(client.cpu_s + cost().cpu_s, client.wall_s + started.wall_s))
    stock.measure("week monitor", *STOCK_STACK, "drift", task, str(stock.home))


def unpack(ours: Arm, folder: Path) -> None:
    """Graph and encoder of the model that Clearway trained."""
    model = ours.outputs["release train"].model
    package = open_package(open_storage(ours.env.store_root), model.uri, model.digest, key_folder=ours.home / "keys")
    folder.mkdir()
    for name in ("model.onnx", "encoder.json"):
        (folder / name).write_bytes(package.read(name))


def decisions(ours: Arm, stock: Arm, week: loop.Request) -> dict[str, Any]:
    """What each arm decided, and whether it is the same."""
    read = {a.name: {s: a.outputs[f"release {s}"] for s in ("ingest", "preprocess")} for a in (ours, stock)}
    gx = json.loads((stock.home / "verdict.json").read_text(encoding="utf-8"))
    verdicts = {name: {s: o.verdict.value for s, o in found.items()} for name, found in read.items()}
    verdicts[OURS]["validate"] = ours.outputs["release validate"].verdict.value
    verdicts[STOCK]["validate"] = gx["verdict"]
    digests = {
        a.name: [a.outputs[f"{p} preprocess"].dataset.digest for p in ("release", "week")] for a in (ours, stock)
    }
    summary = json.loads(open_storage(ours.env.store_root).read(ours.outputs["week monitor"].summary_uri))
    limit = find_product(ours.env.products, PRODUCT).spec.monitor.share_over_limit
    share = summary["drift"]["share_over"]
    drift = {OURS: {"drifted_share": round(share, 3), "has_drifted": share > limit}}
    drift[STOCK] = json.loads((stock.home / "drift.json").read_text(encoding="utf-8"))
    models = [a.outputs["release train"].model.digest for a in (ours, stock)]
    num_rows, gap = compare_scores(ours, stock, week)
    return {
        "verdicts": verdicts,
        "num_expectations": {STOCK: gx["num_expectations"]},
        "has_same_dataset": digests[OURS] == digests[STOCK],
        "has_same_model": models[0] == models[1],
        "evaluate": ours.outputs["release evaluate"].verdict.value,
        "deploy": ours.outputs["release deploy"].verdict.value,
        "num_rows_scored": num_rows,
        "largest_score_difference": gap,
        "drift": drift,
        "is_same_decision": verdicts[OURS] == verdicts[STOCK]
        and digests[OURS] == digests[STOCK]
        and models[0] == models[1]
        and gap <= SCORE_TOLERANCE,
        "is_same_drift_decision": drift[OURS]["has_drifted"] == drift[STOCK]["has_drifted"],
    }


def compare_scores(ours: Arm, stock: Arm, week: loop.Request) -> tuple[int, float]:
    """Rows and largest absolute difference between what both servers answered; infinite if the rows differ."""
    import pyarrow.parquet as pq

    layout = Layout(ours.env.store_root, PRODUCT)
    log = read_predictions(open_storage(ours.env.store_root), layout, [week.batch_id])
    table = pq.read_table(stock.home / "scores.parquet")
    mine, theirs = (dict(zip(t["key"].to_pylist(), t["score"].to_pylist(), strict=True)) for t in (log, table))
    if mine.keys() != theirs.keys() or not mine:
        return 0, float("inf")
    return len(mine), max(abs(score - theirs[key]) for key, score in mine.items())


def one_round(folder: Path, costs: dict[str, dict[str, list[Cost]]], *, with_airflow: bool) -> dict[str, Any]:
    """Every part once on both arms; what each decided."""
    spec = find_product(project_root() / "include" / "products", PRODUCT).spec
    ours, stock = (new_arm(name, folder, costs[name]) for name in (OURS, STOCK))
    request = loop.release_request(spec, "bench", as_of=spec.release.first_end)
    week = loop.batch_request(spec, "bench-week", start=parse_instant(WEEK))
    make_mlflow(ours)
    with warm_worker(ours.env, log=ours.home / "warm.log", settings=ours.settings) as (pid, cost):
        ours = replace(ours, worker_pid=pid)
        ours.book(WORKER_START, Cost(cost.cpu_s, 0.0))
        stock.book(WORKER_START, Cost(0.0, 0.0))
        release(ours, stock, request)
        our_week(ours, request, week)
    stock_week(stock, ours, week)
    if with_airflow:
        for arm in (stock, ours):
            is_stock = arm is stock
            cost = chain_cost(folder / f"airflow-{arm.name}", num_tasks=NUM_TASKS, is_stock=is_stock)
            arm.book(f"{NUM_TASKS} Airflow tasks", cost)
    return {"warm_worker_start_wall_s": round(cost.wall_s, 1), **decisions(ours, stock, week)}


def make_mlflow(arm: Arm) -> None:
    """The database that a running MLflow has."""
    (arm.home / "mlflow").mkdir()
    command = (sys.executable, "-c", MAKE_MLFLOW, arm.env.tracking_uri)
    subprocess.run(command, check=True, capture_output=True, timeout=120)


def table_of(costs: dict[str, dict[str, list[Cost]]]) -> list[dict[str, Any]]:
    """Medians by part, then sums over all parts and over those that differ; ratios are stock / Clearway."""
    found = {
        part: {arm: [median(c[i] for c in costs[arm][part]) for i in (0, 1)] for arm in (STOCK, OURS)}
        for part in costs[STOCK]
    }
    sums = {"all parts": set(found), "parts that differ": set(found) - SAME_CODE}
    for name, parts in sums.items():
        found[name] = {arm: [sum(found[p][arm][i] for p in parts) for i in (0, 1)] for arm in (STOCK, OURS)}
    rows = []
    for part, arms in found.items():
        row: dict[str, Any] = {"part": part}
        for i, unit in enumerate(("cpu_s", "wall_s")):
            row |= {f"{arm}_{unit}": round(arms[arm][i], 2) for arm in (STOCK, OURS)}
            row[f"{unit}_ratio"] = round(arms[STOCK][i] / arms[OURS][i], 2) if arms[OURS][i] else 0.0
        rows.append(row)
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """The table for people, on stderr."""
    names = [name for name in rows[0] if name != "part"]
    sys.stderr.write(f"{'':<26}" + "".join(f"{name:>17}" for name in names) + "\n")
    for row in rows:
        sys.stderr.write(f"{row['part']:<26}" + "".join(f"{row[name]:>17.2f}" for name in names) + "\n")


def main() -> int:
    """Run the rounds; 0 if both arms decided the same in each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="work here and leave everything behind")
    parser.add_argument("--without-airflow", action="store_true")
    args = parser.parse_args()
    adopt_orphans()
    costs: dict[str, dict[str, list[Cost]]] = {STOCK: {}, OURS: {}}
    decided = []
    for number in range(args.rounds):
        with tempfile.TemporaryDirectory() as scratch:
            folder = (args.keep or Path(scratch)).resolve() / f"round-{number}"
            decided.append(one_round(folder, costs, with_airflow=not args.without_airflow))
    rows = table_of(costs)
    show(rows)
    sys.stdout.write(json.dumps({"parts": rows, "rounds": costs, "decisions": decided}) + "\n")
    return 0 if all(d["is_same_decision"] for d in decided) else 1


if __name__ == "__main__":
    sys.exit(main())
