"""Messages that ask for releases become request files, which the watcher of their product finds (drop.py).

A message says {"product": "flights", "as_of": "2013-05-06", "reason": "…", "override": "cooldown"}, the last three if
it likes; or it is an event of EventBridge with that as its `detail`. Any watcher may take a message for any product.
The file's name follows from the message's id (an event's own), so a message that is delivered twice is one file, and
one release. What cannot be read is left in the queue, which puts it aside after a few deliveries (`maxReceiveCount` of
its redrive policy).
"""

import json
import logging
from typing import Any

LOG = logging.getLogger("clearway.wishes")
MAX_REASON = 500
_KEYS = {"product", "as_of", "reason", "override"}


def take_messages() -> int:
    """Turn what waits in the queue into request files; how many it was. Raises: Unavailable, ConfigError."""
    from clearway.infra.environment import Environment  # noqa: PLC0415 - the DAG file imports the watcher

    env = Environment.load()
    if not env.events.queue:
        return 0
    from clearway.infra.aws.wishes import forget, receive  # noqa: PLC0415

    taken = 0
    for message in receive(env.events.queue):
        try:
            name, wish = read_wish(message.body, message_id=message.id, products=_products(env))
            _write(env, name, wish)
        except (ValueError, RecursionError) as error:  # the latter from brackets without end
            LOG.error("message %s is refused: %s; it stays in the queue until that puts it aside", message.id, error)
            continue
        forget(env.events.queue, message)
        LOG.info("message %s asks for a release of %s", message.id, wish["product"])
        taken += 1
    return taken


def read_wish(body: str, *, message_id: str, products: list[str]) -> tuple[str, dict[str, str]]:
    """Name of the request file, and what is asked. Raises: ValueError naming what is wrong."""
    from clearway.contracts.manifest import sha256_of  # noqa: PLC0415
    from clearway.infra.clock import parse_instant  # noqa: PLC0415

    raw: Any = json.loads(body)
    if isinstance(raw, dict) and "detail" in raw and "detail-type" in raw:
        message_id, raw = str(raw.get("id") or message_id), raw["detail"]
    if not isinstance(raw, dict) or not all(isinstance(value, str) for value in raw.values()):
        raise ValueError(f"it is no object of texts; allowed: {sorted(_KEYS)}")
    if strange := sorted(set(raw) - _KEYS):
        raise ValueError(f"it says {strange}, which nobody reads; allowed: {sorted(_KEYS)}")
    if not all(value.isprintable() for value in raw.values()):  # a database of Airflow would refuse it, much later
        raise ValueError("it has signs that cannot be printed; write plain text in one line")
    if raw.get("product") not in products:
        raise ValueError(f"product {raw.get('product')!r} is unknown; allowed: {products}")
    if raw.get("as_of"):
        parse_instant(raw["as_of"])
    if len(raw.get("reason", "")) > MAX_REASON:
        raise ValueError(f"reason of {len(raw['reason'])} characters; allowed {MAX_REASON}")
    return f"message-{sha256_of(message_id.encode())[:32]}.json", raw


def _write(env: Any, name: str, wish: dict[str, str]) -> None:
    from clearway.contracts.manifest import canonical_json  # noqa: PLC0415
    from clearway.infra.storage import join, open_storage  # noqa: PLC0415
    from clearway.reconcile import drop_folder  # noqa: PLC0415

    folder = drop_folder(env, wish["product"])
    asked = {key: wish[key] for key in ("as_of", "reason", "override") if wish.get(key)}
    open_storage(folder).create(join(folder, name), canonical_json(asked))


def _products(env: Any) -> list[str]:
    from clearway.product_yaml import list_products  # noqa: PLC0415

    return list(list_products(env.products))
