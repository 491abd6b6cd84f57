"""What outcomes of tasks tell the world outside Airflow: figures, and notices for people."""

from typing import Any

from airflow.sdk import Context

# Core modules are imported inside functions: the DAG file imports this one.
# ruff: noqa: PLC0415

# DAGs whose end is the end of a release, or of an order that undoes one.
RELEASES = ("release", "rollback")


def outcome(operator: Any, context: Context, outputs: Any, *, ends: bool) -> None:
    """A stage has answered. `ends`: nothing follows."""
    from clearway.infra.environment import Environment
    from clearway.infra.watch.outcomes import tell
    from clearway_airflow.requests import run_name

    is_release = getattr(operator, "chain", RELEASES[0]) in RELEASES
    env, run = Environment.load(), run_name(context)
    tell(env, operator.product, operator.stage, outputs, run=run, is_release=is_release, ends=ends)


def question(env: Any, product: str, run: str, text: str) -> None:
    """A release waits for a person."""
    from clearway.infra.watch.notices import Kind, Notice, open_notifier

    open_notifier(env).tell(Notice(kind=Kind.APPROVAL, product=product, run=run, text=text))


def failure(context: Context) -> None:
    """A task of a product failed for good; Airflow calls this after its last try."""
    from clearway.infra.environment import Environment
    from clearway.infra.watch.outcomes import tell_failure
    from clearway_airflow.requests import run_name

    product, _, kind = context["dag_run"].dag_id.rpartition("_")
    text = str(context.get("exception") or "its process ended")
    is_release = kind in RELEASES
    env, task = Environment.load(), context["task"].task_id
    tell_failure(env, product, task, run=run_name(context), is_release=is_release, text=text)
