"""Show what waits for shared devices and what runs on them, or lift a product's priority for a while."""

import argparse
from typing import Any

from clearway.contracts.codec import to_jsonable
from clearway.contracts.errors import ConfigError
from clearway.devices.board import Board, folder_of
from clearway.devices.override import Override, order_override, overrides
from clearway.devices.sharing import rank
from clearway.infra.clock import SystemClock
from clearway.infra.environment import Environment
from clearway.infra.storage import Storage, open_storage
from clearway.product_yaml import find_product


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """An override names who gives it and why."""
    parser.add_argument("--device", default="cpu", help="device class to show")
    parser.add_argument("--override", metavar="PRODUCT", default="", help="product whose priority changes")
    parser.add_argument("--amount", type=float, default=0.0, help="added to its priority, -1 to 1; 0 ends an override")
    parser.add_argument("--hours", type=float, default=24.0, help="for how long, at most 168")
    parser.add_argument("--by", default="", help="your name, kept with the order")
    parser.add_argument("--reason", default="", help="why, kept with the order")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The board of one class; an order first, if one was given."""
    env = Environment.load()
    device, storage = args.device, open_storage(env.store_root)
    if args.override:
        device = find_product(env.products, args.override).spec.resources.device
    if device not in env.devices.classes:
        raise ConfigError(f"device class {device!r} is unknown; allowed: {sorted(env.devices.classes)}")
    folder = folder_of(env.store_root, device)
    board = Board(storage, folder)
    return {
        "overrides": to_jsonable(_ordered(storage, folder, args) if args.override else []),
        "device": device,
        "slots": env.devices.classes[device].slots,
        "running": to_jsonable(board.held()),
        "waiting": to_jsonable(sorted(board.asks(), key=rank)),
        "yields": to_jsonable(board.yields()),
    }


def _ordered(storage: Storage, folder: str, args: argparse.Namespace) -> list[Override]:
    now_s = SystemClock().now_s()
    order = Override(
        product=args.override,
        amount=args.amount,
        ordered_by=args.by,
        reason=args.reason,
        from_s=now_s,
        until_s=now_s + args.hours * 3600,
    )
    order_override(storage, folder, order)
    return overrides(storage, folder, args.override)


def render(result: dict[str, Any]) -> str:
    """For people."""
    used = sum(held["ask"]["slots"] for held in result["running"])
    lines = [f"{result['device']}: {used} of {result['slots']} slots in use"]
    lines += [f"  runs   {_line(held['ask'])}" for held in result["running"]]
    lines += [f"  waits  {_line(ask)}" for ask in result["waiting"]]
    lines += [f"  {y['job_id']} made room for {y['for_ask']}" for y in result["yields"]]
    lines += [f"  override of {o['amount']:+g} by {o['ordered_by']}: {o['reason']}" for o in result["overrides"]]
    return "\n".join(lines)


def _line(ask: dict[str, Any]) -> str:
    return f"{ask['id']}: {ask['slots']} slots at priority {ask['priority']:.2f}"
