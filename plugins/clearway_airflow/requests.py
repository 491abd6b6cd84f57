"""What a DAG run is about, from whatever started it: a schedule, a person, a backfill or an asset event."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from airflow.sdk import Context

from clearway.contracts.errors import ConfigError
from clearway.infra.clock import parse_instant
from clearway.infra.environment import Environment
from clearway.infra.layout import Layout
from clearway.infra.storage import open_storage
from clearway.product import LoadedProduct, Product
from clearway.release import Request, batch_request, release_id, release_request

# How the name of the asset ends whose events are requests, see assets.py.
ARRIVALS = "_arrivals"
# Runs that stand for an interval of the schedule; every other kind has no data interval.
_CLOCKED = {"scheduled", "backfill"}


def run_name(context: Context) -> str:
    """This run's release id."""
    dag_run = context["dag_run"]
    return release_id(dag_run.dag_id, dag_run.run_id)


def for_batch(context: Context, product: LoadedProduct) -> Request:
    """The batch of this run: its data interval; the oldest of the batches that started it; or the one asked for."""
    spec = product.spec
    events = event_extras(context)
    asked = _param(context, "batch_id")
    if events:
        start = min(spec.batch.start_of(extra["batch_id"]) for extra in events)
    elif _is_clocked(context):
        start = _interval(context, "data_interval_start")
    elif asked:
        start = spec.batch.start_of(asked)
    else:
        raise ConfigError("this run names no batch; set the parameter batch_id (YYYY-MM-DD)")
    return batch_request(spec, run_name(context), start=start)


def leftover_batches(context: Context, request: Request) -> list[Mapping[str, Any]]:
    """Batches whose events were merged into this run but that it does not treat: they must be announced again."""
    waiting = {extra["batch_id"]: extra for extra in event_extras(context)}
    return [extra for batch_id, extra in sorted(waiting.items()) if batch_id != request.batch_id]


def for_release(
    context: Context, product: LoadedProduct, env: Environment, *, refused: Collection[str] = ()
) -> Request:
    """The release this run makes, with the evidence of every event that was merged into it, but of `refused` ones."""
    # An event that was delayed or sent again comes after newer ones; one without a time asks for all that has landed.
    events = [extra for extra in event_extras(context) if extra.get("evidence_digest") not in refused]
    events.sort(key=lambda extra: extra.get("as_of") or "9999")
    newest: Mapping[str, Any] = events[-1] if events else {}
    text = newest.get("as_of") or _param(context, "as_of")
    if text:
        as_of = _instant(text)
    elif _is_clocked(context):
        as_of = _interval(context, "data_interval_end")
    else:
        as_of = newest_landed_end(product.spec, env)
    return release_request(
        product.spec,
        run_name(context),
        as_of=as_of,
        approval=_param(context, "approval") or "default",
        reason=str(newest.get("reason") or _param(context, "reason")),
        evidence=tuple(dict.fromkeys(e["evidence_digest"] for e in events if e.get("evidence_digest"))),
    )


def refusals(context: Context, product: LoadedProduct, env: Environment) -> dict[str, str]:
    """Requests among the events of this run that the product's policy does not grant: digest to reason."""
    from clearway.infra.clock import SystemClock  # noqa: PLC0415 - only a release needs the monitor's rules
    from clearway.monitor.asked import read_request, refusal_of  # noqa: PLC0415

    found = {}
    for event in filter(_is_request, _events(context)):
        request = read_request(_extra(event), day="")
        if request.as_of:  # before anything is granted
            release_request(product.spec, run_name(context), as_of=_instant(request.as_of))
        if reason := refusal_of(env, product, request, now_s=SystemClock().now_s()):
            found[request.digest] = reason
    return found


def newest_landed_end(product: Product, env: Environment) -> datetime:
    """End of the newest landed batch, and no earlier than the first release's data."""
    layout = Layout(env.store_root, product.name)
    entry = layout.ledger_entry("0").removesuffix("/0.json")
    landed = [uri.rpartition("/")[2].removesuffix(".json") for uri in open_storage(env.store_root).list(entry)]
    ends = [product.batch.end_of(product.batch.start_of(batch_id)) for batch_id in landed]
    return max([product.release.first_end, *ends])


def event_extras(context: Context) -> Sequence[Mapping[str, Any]]:
    """Payloads of the asset events that started this run, oldest first; a watcher's are unwrapped."""
    return [_extra(event) for event in _events(context)]


def _events(context: Context) -> list[Any]:
    events = [event for group in (context.get("triggering_asset_events") or {}).values() for event in group]
    return sorted(events, key=lambda event: event.timestamp)


def _extra(event: Any) -> Mapping[str, Any]:
    """An event's payload; a request's with the digest that tells it from others."""
    extra = event.extra or {}
    payload: Mapping[str, Any] = extra["payload"] if extra.get("from_trigger") else extra
    if not _is_request(event):
        return payload
    from clearway.monitor.asked import read_request  # noqa: PLC0415 - not for a batch

    return {**payload, "evidence_digest": read_request(payload, day=f"{event.timestamp:%Y-%m-%d}").digest}


def _is_request(event: Any) -> bool:
    """Whether somebody asks; other events of a release tell of a decision."""
    return str(event.asset.name).endswith(ARRIVALS)


def _interval(context: Context, key: Literal["data_interval_start", "data_interval_end"]) -> datetime:
    # Airflow's instants are of a class of its own; the core's are plain ones.
    return parse_instant(str(context[key].isoformat()))  # type: ignore[union-attr]


def _is_clocked(context: Context) -> bool:
    run_type = context["dag_run"].run_type
    return getattr(run_type, "value", run_type) in _CLOCKED


def _param(context: Context, name: str) -> str:
    return str((context.get("params") or {}).get(name) or "").strip()


def _instant(text: str) -> datetime:
    try:
        return parse_instant(text)
    except ValueError as error:
        raise ConfigError(f"as_of {text!r} is no date; allowed: YYYY-MM-DD or ISO 8601") from error
