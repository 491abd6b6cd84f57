"""Who serves what, how the components are, the latest runs, memory, and questions that wait for a person."""

import argparse
from typing import Any

from clearway.contracts.errors import ConfigError, Unavailable
from clearway.contracts.release_document import ReleaseDocument
from clearway.infra.environment import Environment
from clearway.infra.release_store import open_release_store
from clearway.launch.airflow_api import AirflowApi
from clearway.launch.arguments import add_product_argument, quiet_clients
from clearway.launch.stack import connected, running_stack
from clearway.launch.state import StackState
from clearway.launch.summary import render_stack, summarise_stack
from clearway.product_yaml import check_name

NUM_RUNS = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which product."""
    add_product_argument(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Look, change nothing; a product.yaml with mistakes in it is no reason to hide who serves.

    Raises: ConfigError for a product that is not there.
    """
    quiet_clients()
    env = Environment.load()
    check_name(env.products, args.product)
    state = running_stack(env)
    result: dict[str, Any] = {"running": False} if state is None else summarise_stack(state, is_new=None)
    if not (env.home / "run").exists():
        return result
    env = connected(env, state) if state else env
    document, _ = open_release_store(env).read(args.product)
    result |= {"product": args.product, "release": _desired(document)}
    if state is not None:
        result |= {"live": _live(env, args.product), **_airflow(state, args.product)}
    return result


def render(result: dict[str, Any]) -> str:
    """For people."""
    lines = [render_stack(result)]
    for part in result.get("components", []):
        detail = f" ({part['detail']})" if part["detail"] else ""
        lines.append(f"  {part['name']:<15} {part['health']}{detail}")
    if "release" in result:
        lines += _release_lines(result)
    for run in result.get("runs", []):
        seconds = f"{run['seconds']:.1f} s" if run["seconds"] is not None else ""
        lines.append(f"  {run['dag_id']:<18} {run['run_id']:<44} {run['state']:<8} {seconds}")
    lines += [f"  waits for a person: {text}" for text in result.get("approvals", [])]
    return "\n".join(lines)


def _desired(document: ReleaseDocument) -> dict[str, Any]:
    last = document.history[-1] if document.history else None
    return {
        "champion": document.champion.digest if document.champion else None,
        "release_id": document.champion.release_id if document.champion else None,
        "previous": document.previous.digest if document.previous else None,
        "phase": document.phase.value,
        "epoch": document.epoch,
        "why": f"{last.outcome.value}: {last.reason}" if last else "",
    }


def _live(env: Environment, product: str) -> dict[str, Any]:
    from clearway.infra.endpoint import open_endpoint  # noqa: PLC0415  (reads the admin token)

    try:
        state = open_endpoint(env, product=product).state()
    except (Unavailable, ConfigError) as error:
        return {"error": str(error)}
    return {"weights_pct": state.weights_pct, "loaded": list(state.loaded), "epoch": state.epoch}


def _airflow(state: StackState, product: str) -> dict[str, Any]:
    api = AirflowApi(state.airflow_url)
    try:
        runs = [r for verb in ("release", "ingest", "monitor") for r in api.runs(f"{product}_{verb}", limit=NUM_RUNS)]
        waiting = [h["subject"] for h in api.pending_approvals()]
    except Unavailable as error:
        return {"airflow_error": str(error)}
    finally:
        api.close()
    shown = [{"dag_id": r.dag_id, "run_id": r.run_id, "state": r.state, "seconds": r.duration_s} for r in runs]
    return {"runs": shown, "approvals": waiting}


def _release_lines(result: dict[str, Any]) -> list[str]:
    wanted, live = result["release"], result.get("live", {})
    champion = wanted["champion"]
    lines = [f"{result['product']}: champion {champion[:8] if champion else 'none'}"]
    if champion:
        back = wanted["previous"][:8] if wanted["previous"] else "none"
        lines.append(f"  from release {wanted['release_id']}, way back: {back}, {wanted['why']}")
    if live.get("weights_pct"):
        shares = ", ".join(f"{digest[:8]} {weight:g} %" for digest, weight in live["weights_pct"].items())
        lines.append(f"  live traffic: {shares}")
        if champion and live["weights_pct"].get(champion, 0.0) < 100:  # noqa: PLR2004  (percent)
            lines.append("  the live traffic differs from the release document; clearway_reconcile repairs that")
    return lines
