"""Compute the features that are missing, by one Spark session, and describe the dataset."""

import logging

from clearway.contracts.errors import ConfigError
from clearway.contracts.verdict import Verdict
from clearway.infra.clock import parse_instant
from clearway.infra.environment import Environment
from clearway.preprocess.spec import Inputs, Outputs
from clearway.product import LoadedProduct

LOG = logging.getLogger("clearway.preprocess")


def run(inputs: Inputs, *, product: LoadedProduct, env: Environment) -> Outputs:
    """Features of every batch of `inputs.raw` from `inputs.start` on, computed where they are missing.

    PASS whenever there is a dataset; judging it is the next stage's work.
    Raises: ConfigError for a window without batches or without the look-back, DataError for features that do not fit
    their rows.
    """
    from clearway.preprocess.workspace import Workspace  # noqa: PLC0415 - pyarrow

    work = Workspace.open(inputs, product=product, env=env)
    needs = work.needs(start=parse_instant(inputs.start))
    if not needs:
        raise ConfigError(f"no batch of the raw window starts at {inputs.start} or later; start earlier or ingest more")
    found = {need.batch.batch_id: work.known(need) for need in needs}
    missing = [need for need in needs if found[need.batch.batch_id] is None]
    LOG.info("%d of %d batches have features already", len(needs) - len(missing), len(needs))
    computed = work.compute(missing, release_id=inputs.release_id) if missing else {}
    dataset, num_rows, num_labelled = work.describe(needs, {**found, **computed})
    return Outputs(
        verdict=Verdict.PASS,
        reason=f"{num_rows} rows in {len(needs)} batches, {num_labelled} labelled, {len(missing)} batches computed",
        dataset=dataset,
        num_rows=num_rows,
        num_labelled=num_labelled,
        num_batches_computed=len(missing),
    )
