"""Watch the rollout under way, or order it to promote, abort, pause or resume. Airflow may be down."""

import argparse
import getpass
from typing import Any

from clearway.contracts.codec import from_jsonable, to_jsonable
from clearway.contracts.rollout import Order, OrderKind, PlanStep
from clearway.infra.clock import SystemClock
from clearway.infra.environment import Environment
from clearway.infra.release_store import open_release_store
from clearway.launch.arguments import add_product_argument
from clearway.launch.stack import connected_if_running
from clearway.product_yaml import find_product

STATUS = "status"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to do, with which product, and why."""
    parser.add_argument("action", choices=[STATUS, *(kind.value for kind in OrderKind)])
    add_product_argument(parser)
    parser.add_argument("--reason", default="asked for on the command line", help="kept in the release document")
    parser.add_argument("--release", help="refuse unless this very release is under way")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Show or order."""
    from clearway.deploy.orders import give_order  # noqa: PLC0415  (only this command needs it)

    env = connected_if_running(Environment.load())
    store = open_release_store(env)
    product = find_product(env.products, args.product).name
    if args.action == STATUS:
        return dict(to_jsonable(store.read(product)[0]))
    kind = OrderKind(args.action)
    order = Order(kind=kind, by=getpass.getuser(), reason=args.reason, at_s=SystemClock().now_s())
    return dict(to_jsonable(give_order(store, product, order, release_id=args.release)))


def render(result: dict[str, Any]) -> str:
    """For people."""
    rollout, champion = result["rollout"], result["champion"]
    serving = f"{champion['digest'][:8]} is champion" if champion else "nothing serves"
    if rollout is None:
        return f"No rollout is under way; {serving}."
    shares = " → ".join(from_jsonable(PlanStep, step).label for step in rollout["plan"])
    lines = [
        f"{result['release_id']}: {rollout['strategy']} of {result['candidate']['digest'][:8]}; {serving}",
        f"  step {rollout['index'] + 1} of {len(rollout['plan'])}: {result['weight_pct']:g} % now; plan {shares}",
        *(f"  {r['weight_pct']:g} %: {r['verdict'] or 'order'}: {r['reason']}" for r in rollout["trail"][-8:]),
    ]
    if rollout["waits_for"]:
        lines.append(f"  waits for {rollout['waits_for']}")
    if rollout["order"]:
        lines.append(f"  ordered, not yet followed: {rollout['order']['kind']} by {rollout['order']['by']}")
    return "\n".join(lines)
