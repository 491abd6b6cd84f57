"""The tune stage: an Optuna study, when the product asks for one."""

import json
import logging

from clearway.contracts.codec import from_jsonable, to_jsonable
from clearway.contracts.manifest import canonical_json, sha256_of
from clearway.contracts.verdict import Verdict
from clearway.infra.environment import Environment
from clearway.infra.faults import fault
from clearway.infra.layout import Layout
from clearway.infra.storage import Storage, join, open_storage, scratch_of
from clearway.product import LoadedProduct
from clearway.tune.spec import Inputs, Outputs

LOG = logging.getLogger("clearway.tune")
RESULT, REPORT = "result.json", "report.html"


def run(inputs: Inputs, *, product: LoadedProduct, env: Environment) -> Outputs:
    """Search `tune.space` for better model parameters, or return what an earlier call with these inputs found.

    Raises: IntegrityError without a receipt for this dataset; DataError for rows that cannot be split or trained on;
        JobFailed when workers kept dying (a rerun goes on); Unavailable when only the MLflow record is missing.
    """
    from clearway.packaging.receipt import check_receipt  # noqa: PLC0415 - its package imports numpy and pyarrow

    storage, layout = open_storage(env.store_root), Layout(env.store_root, product.name)
    check_receipt(storage, inputs.receipt_uri, inputs.dataset)
    if not product.spec.tune.num_trials:
        return Outputs(verdict=Verdict.PASS, reason="the product asks for no study", num_trials=0)
    asked = sha256_of(canonical_json({"dataset": inputs.dataset.digest, "product": product.digest}))
    folder = layout.release(inputs.release_id, "tune", asked[:16])
    if storage.exists(join(folder, RESULT)):
        return from_jsonable(Outputs, json.loads(storage.read(join(folder, RESULT))))
    outputs = _searched(inputs, product, env, storage, folder=folder, asked=asked)
    storage.write(join(folder, RESULT), canonical_json(to_jsonable(outputs)))
    return outputs


def is_left_to_sagemaker(env: Environment) -> bool:
    """Whether a tuning job of SageMaker does the trials."""
    return env.jobs.kind == "aws" and env.aws.services.tune == "sagemaker_tuning"


def _searched(
    inputs: Inputs, product: LoadedProduct, env: Environment, storage: Storage, *, folder: str, asked: str
) -> Outputs:
    """The study, its page, its record in MLflow; each is found again, or made again the same, by a rerun."""
    from clearway.infra.tracking import open_tracking  # noqa: PLC0415 - opens MLflow
    from clearway.tune.page import reason_of, render  # noqa: PLC0415
    from clearway.tune.record import run_record  # noqa: PLC0415
    from clearway.tune.study import forget_rows, search  # noqa: PLC0415 - optuna, torch

    own = scratch_of(folder, root=env.store_root, scratch=env.scratch)
    if is_left_to_sagemaker(env):
        from clearway.tune.sagemaker import search_there  # noqa: PLC0415 - calls AWS

        searched = search_there(inputs, product=product, env=env, folder=own, shared=folder)
    else:
        searched = search(inputs, product=product, env=env, folder=own)
    report_uri, page = join(folder, REPORT), render(searched, release_id=inputs.release_id)
    storage.write(report_uri, page)
    fault("tune.before_record")
    record = run_record(searched, page=page.decode(), product=product.name, release_id=inputs.release_id, job=asked)
    open_tracking(env).log_run(record)
    forget_rows(own)
    return Outputs(
        verdict=Verdict.PASS,
        reason=reason_of(searched),
        num_trials=len(searched.trials),
        params=searched.params,
        report_uri=report_uri,
    )
