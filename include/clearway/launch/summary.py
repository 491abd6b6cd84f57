"""What a stack looks like, as JSON values and as text."""

from typing import Any

from clearway.contracts.codec import to_jsonable
from clearway.launch.state import StackState

MIB = 1024 * 1024


def summarise_stack(state: StackState, *, is_new: bool | None) -> dict[str, Any]:
    """Addresses, health and memory (MiB, proportional set size); `is_new` None when nobody asked for a start."""
    return {
        "running": True,
        "started_now": is_new,
        "phase": state.phase.value,
        "supervisor_pid": state.supervisor_pid,
        "ready_after_s": state.ready_after_s,
        "airflow": state.airflow_url,
        "mlflow": state.mlflow_url,
        "endpoints": state.endpoint_urls,
        "memory_mib": round(state.memory_bytes / MIB),
        "peak_memory_mib": round(state.peak_memory_bytes / MIB),
        "components": to_jsonable(state.components),
        "notes": list(state.notes),
    }


def render_stack(result: dict[str, Any]) -> str:
    """A few lines for people."""
    if not result.get("running"):
        return "No stack is running. Start one with `make run` (the whole loop) or `python -m clearway up`."
    if result["started_now"] is None:
        head = f"The stack is {result['phase']} (supervisor {result['supervisor_pid']})."
    elif result["started_now"]:
        head = f"Healthy after {result['ready_after_s']:.1f} s."
    else:
        head = f"A stack is already running (supervisor {result['supervisor_pid']}, {result['phase']}); using it."
    lines = [head, f"  Airflow         {result['airflow']}", f"  MLflow          {result['mlflow']}"]
    lines += [f"  Endpoint docs   {url}/docs  ({product})" for product, url in result["endpoints"].items()]
    lines.append(f"  Memory          {result['memory_mib']} MiB now, {result['peak_memory_mib']} MiB peak")
    return "\n".join(lines)
