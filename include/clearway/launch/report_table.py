"""The account as text for people."""

import io
import shutil
from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

# Narrower terminals would break the table into unreadable columns.
MIN_WIDTH = 130
DIGEST_CHARS = 8
# Budget on two cores: what the figure is held against, in seconds.
BUDGET_S = {
    "healthy_s": ("everything healthy", 40.0),
    "first_release_s": ("first release", 90.0),
    "week_median_s": ("one week, landing to drift report (median)", 15.0),
    "week_max_s": ("one week, landing to drift report (slowest)", None),
    "retraining_release_max_s": ("slowest retraining release", 60.0),
    "total_s": ("this command", None),
}
MEMORY_BUDGET_MIB = 4096
# What a kind of model (`model.kind`) is measured by, and the reference that it is measured beside.
FIGURES = {
    "tabular": ((("AUC", "auc"), ("log-loss", "log_loss")), "LightGBM"),
    "language": ((("bits per byte", "bits_per_byte"),), "compressor"),
}


def render_account(result: dict[str, Any]) -> str:
    """Releases, their stages, times and memory, and where to look."""
    console = new_console(max(MIN_WIDTH, shutil.get_terminal_size((MIN_WIDTH, 40)).columns))
    for fault in result.get("planted", []):
        console.print(f"PLANTED FAULT: {fault['fault']} in every batch from {fault['from']} on.", markup=False)
    console.print(_releases(result["releases"], kind=result["kind"]))
    console.print(_stages(result["releases"]))
    for release in result["releases"]:
        if release["outcome"] != "promoted" and release["reason"]:
            console.print(f"{release['run_id']}: {release['outcome']}: {release['reason']}", markup=False)
    if result.get("drills"):
        console.print(_drills(result["drills"]))
    if result.get("closing"):
        console.print(_closing(result["closing"]))
    if "times" in result:
        console.print(_times(result))
    for line in where_to_look(result):
        console.print(line, markup=False, soft_wrap=True)
    return text_of(console)


def new_console(width: int) -> Console:
    """One that keeps what is printed, without colours."""
    return Console(file=io.StringIO(), width=width, highlight=False, color_system=None)


def text_of(console: Console) -> str:
    """What was printed on a `new_console`."""
    file = console.file
    assert isinstance(file, io.StringIO)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def new_table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))


def _releases(releases: list[dict[str, Any]], *, kind: str) -> Table:
    figures, reference = FIGURES[kind]
    table = new_table("Releases, and how their models did on the rows they served")
    for name in ("#", "trigger", "as of", "outcome", "champion"):
        table.add_column(name, no_wrap=True)
    for name in ("weeks", "rows", *(title for figure, _ in figures for title in (figure, reference))):
        table.add_column(name, justify="right", no_wrap=True)
    for number, release in enumerate(releases, 1):
        table.add_row(
            str(number),
            release["trigger"],
            release["as_of"][:10],
            release["outcome"],
            f"{_short(release['champion_before'])} → {_short(release['champion_after'])}",
            *_served(release["served"], [key for _, key in figures]),
        )
    return table


def _served(served: dict[str, Any] | None, keys: Sequence[str]) -> tuple[str, ...]:
    if served is None:
        return ("-",) * (2 + 2 * len(keys))
    figures = [(served[side], key) for key in keys for side in ("score", "reference")]
    texts = [f"{values[key]:.4f}" if values else "-" for values, key in figures]
    return (str(len(served["batch_ids"])), f"{served['num_rows']:,}", *texts)


def _stages(releases: list[dict[str, Any]]) -> Table:
    table = new_table("Stages: verdict and seconds")
    table.add_column("stage")
    names: dict[str, None] = {}
    for number, release in enumerate(releases, 1):
        table.add_column(f"#{number}", justify="right", no_wrap=True)
        names |= dict.fromkeys(s["name"] for s in release["stages"])
    for name in names:
        cells = (next((s for s in r["stages"] if s["name"] == name), None) for r in releases)
        table.add_row(name, *(_stage_cell(c) for c in cells))
    table.add_row("whole release", *(_seconds(r["seconds"]) for r in releases))
    return table


def _stage_cell(stage: dict[str, Any] | None) -> str:
    return "-" if stage is None else f"{stage['verdict']} {_seconds(stage['seconds'])}".strip()


def _drills(drills: list[dict[str, Any]]) -> Table:
    table = new_table("Bad models planted at the end, each a copy of the champion with one defect")
    table.add_column("defect")
    table.add_column("outcome")
    table.add_column("its requests", justify="right")
    table.add_column("seconds", justify="right")
    table.add_column("why", overflow="fold")
    for drill in drills:
        outcome = "went back by itself" if drill["is_safe"] else "STAYED"
        table.add_row(
            drill["defect"], outcome, str(drill["num_requests"]), _seconds(drill["seconds"]), escape(drill["reason"])
        )
    return table


def _closing(spans: list[dict[str, Any]]) -> Table:
    table = new_table(f"From drift to a new champion, {spans[-1]['num']} times")
    table.add_column("what")
    table.add_column("median", justify="right")
    table.add_column("95th percentile", justify="right")
    for span in spans:
        table.add_row(span["name"], _seconds(span["p50_s"]), _seconds(span["p95_s"]))
    return table


def _times(result: dict[str, Any]) -> Table:
    table = new_table("Times and memory")
    table.add_column("what")
    table.add_column("measured", justify="right")
    table.add_column("budget on 2 cores", justify="right")
    for key, (text, budget) in BUDGET_S.items():
        value = result["times"].get(key)
        if value is not None:
            table.add_row(text, f"{value:.1f} s", f"< {budget:.0f} s" if budget else "")
    table.add_row(
        "memory of all processes, peak", f"{result['stack']['peak_memory_mib']} MiB", f"< {MEMORY_BUDGET_MIB} MiB"
    )
    return table


def where_to_look(result: dict[str, Any]) -> list[str]:
    """Addresses, and a request that can be copied."""
    stack = result["stack"]
    lines = ["Where to look", f"  Airflow UI     {stack['airflow']}", f"  MLflow UI      {stack['mlflow']}"]
    lines += [f"  endpoint docs  {url}/docs  ({product})" for product, url in stack["endpoints"].items()]
    if result.get("curl"):
        lines.append(f"  ask the model  {result['curl']}")
    return [*lines, "The stack keeps running in the background; `make stop` ends it."]


def _short(digest: str | None) -> str:
    return digest[:DIGEST_CHARS] if digest else "none"


def _seconds(value: float | None) -> str:
    return f"{value:.1f} s" if value is not None else ""
