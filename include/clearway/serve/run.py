"""Score one batch through the live endpoint, as the product's callers do; every row is answered and logged once."""

import dataclasses
import logging
from collections import Counter
from typing import TYPE_CHECKING

from clearway.contracts.errors import ConfigError, Unavailable
from clearway.contracts.verdict import Verdict
from clearway.infra.endpoint import Endpoint, LoggedRows, open_endpoint
from clearway.infra.faults import fault
from clearway.infra.layout import Layout
from clearway.infra.storage import Storage, open_storage
from clearway.serve.sending import Sending, sending_for
from clearway.serve.spec import Inputs, Outputs

if TYPE_CHECKING:
    import pyarrow as pa

    from clearway.infra.environment import Environment
    from clearway.product import LoadedProduct

log = logging.getLogger("clearway.serve")

# A server killed between answer and log loses what it had not written; those rows are sent again, this often at most.
MAX_ROUNDS = 3


def run(inputs: Inputs, *, product: "LoadedProduct", env: "Environment") -> Outputs:
    """The verb. Rows whose keys the log holds already, by whichever model, are not sent again.

    Raises: ConfigError (no such batch, or rows the model refuses), Unavailable (nothing serves; rows did not reach the
        log).
    """
    storage, layout = open_storage(env.store_root), Layout(env.store_root, product.name)
    sending = sending_for(product, env)
    table = _read_batch(inputs, storage, layout, sending.columns)
    return score_batch(
        table,
        sending,
        batch_id=inputs.batch_id,
        endpoint=open_endpoint(env, product=product.name),
        storage=storage,
        layout=layout,
    )


def score_batch(
    table: "pa.Table",
    sending: Sending,
    *,
    batch_id: str,
    endpoint: Endpoint,
    storage: Storage,
    layout: Layout,
) -> Outputs:
    """Send what the log lacks, until it lacks nothing. `table`: key, event_time and the model's columns.

    A batch of which nothing can be sent is scored by nobody, which the monitor looks into.
    """
    from clearway.infra.datasets import KEY  # noqa: PLC0415 - pyarrow
    from clearway.serve.logged import logged_by  # noqa: PLC0415

    rows = sending.sendable(table)
    num_left_out = len(table) - len(rows)
    keys, num_sent = rows[KEY].to_pylist(), 0
    for _ in range(MAX_ROUNDS):
        endpoint.flush_log()
        logged = logged_by(storage, layout, batch_id)
        todo = [i for i, key in enumerate(keys) if key not in logged]
        if not todo:
            return _outputs(keys, logged, num_sent, num_left_out)
        for portion in sending.portions(rows.take(todo)):
            chunk = _body(portion, sending.columns, batch_id)
            endpoint.score_logged(chunk)
            num_sent += len(chunk.keys)
            fault("serve.after_chunk")
    endpoint.flush_log()
    logged = logged_by(storage, layout, batch_id)
    missing = len(set(keys) - set(logged))
    if missing:
        raise Unavailable(
            f"{missing} of {len(keys)} rows of batch {batch_id} were answered but never reached the prediction log in "
            f"{MAX_ROUNDS} rounds; look at the server's log and its prediction_log_lost_rows_total, then retry"
        )
    return _outputs(keys, logged, num_sent, num_left_out)


def _read_batch(inputs: Inputs, storage: Storage, layout: Layout, columns: tuple[str, ...]) -> "pa.Table":
    from clearway.infra.datasets import KEY, TIME, open_dataset, read_features  # noqa: PLC0415 - pyarrow

    document = open_dataset(storage, inputs.dataset)
    pieces = tuple(piece for piece in document.features if piece.batch_id == inputs.batch_id)
    if not pieces:
        known = [piece.batch_id for piece in document.features]
        raise ConfigError(f"batch {inputs.batch_id!r} is not in dataset {inputs.dataset.digest}; it holds {known}")
    narrowed = dataclasses.replace(document, features=pieces)
    table = read_features(storage, layout, narrowed, columns=[KEY, TIME, *columns])
    if len(table) == 0:
        raise ConfigError(
            f"batch {inputs.batch_id!r} has no rows to score; an empty batch should have been quarantined"
        )
    return table


def _body(table: "pa.Table", columns: tuple[str, ...], batch_id: str) -> LoggedRows:
    from clearway.infra.datasets import KEY, TIME  # noqa: PLC0415 - pyarrow

    # Column by column is the fast way out of Arrow; the encoder then sees plain tuples.
    return LoggedRows(
        columns=columns,
        rows=list(zip(*(table[name].to_pylist() for name in columns), strict=True)),
        keys=table[KEY].to_pylist(),
        event_times=[instant.isoformat() for instant in table[TIME].to_pylist()],
        batch_id=batch_id,
    )


def _outputs(keys: list[str], logged: dict[str, str], num_sent: int, num_left_out: int) -> Outputs:
    """`digest`: the model that answered most of the batch; on a tie the smaller, so that a rerun says the same."""
    answered = Counter(logged[key] for key in keys)
    digest = min(answered, key=lambda d: (-answered[d], d), default="")
    log.info("batch scored", extra={"num_rows": len(keys), "num_sent": num_sent, "models": dict(answered)})
    reason = f"{len(keys)} rows answered and logged, {num_sent} of them now"
    if num_left_out:
        reason += f"; {num_left_out} empty ones were not sent"
    return Outputs(verdict=Verdict.PASS, reason=reason, num_rows=len(keys), num_sent=num_sent, digest=digest)
