"""The tune stage: a small Optuna study, when the product asks for one."""

import json
import logging

from clearway.contracts.codec import from_jsonable, to_jsonable
from clearway.contracts.manifest import canonical_json, sha256_of
from clearway.contracts.verdict import Verdict
from clearway.infra.environment import Environment
from clearway.infra.layout import Layout
from clearway.infra.storage import join, open_storage
from clearway.product import LoadedProduct
from clearway.tune.spec import Inputs, Outputs

LOG = logging.getLogger("clearway.tune")
RESULT = "result.json"


def run(inputs: Inputs, *, product: LoadedProduct, env: Environment) -> Outputs:
    """Search `tune.space` for better model parameters, or return what an earlier call with these inputs found.

    Raises: IntegrityError without a receipt for this dataset; DataError for rows that cannot be split or trained on.
    """
    from clearway.packaging.receipt import check_receipt  # noqa: PLC0415 - its package imports numpy and pyarrow

    storage, layout = open_storage(env.store_root), Layout(env.store_root, product.name)
    check_receipt(storage, inputs.receipt_uri, inputs.dataset)
    if not product.spec.tune.num_trials or not product.spec.tune.space:
        return Outputs(verdict=Verdict.PASS, reason="the product asks for no study", num_trials=0)
    asked = sha256_of(canonical_json({"dataset": inputs.dataset.digest, "product": product.digest}))
    folder = layout.release(inputs.release_id, "tune", asked[:16])
    if storage.exists(join(folder, RESULT)):
        return from_jsonable(Outputs, json.loads(storage.read(join(folder, RESULT))))
    outputs = _search(inputs, product, env, folder)
    storage.write(join(folder, RESULT), canonical_json(to_jsonable(outputs)))
    return outputs


def _search(inputs: Inputs, product: LoadedProduct, env: Environment, folder: str) -> Outputs:
    from clearway.tune.study import search  # noqa: PLC0415 - optuna, torch

    found = search(inputs, product=product, env=env, folder=folder)
    better = "better" if found.params else "no better"
    reason = (
        f"{found.num_trials} trials found {better} than product.yaml: log-loss {found.best:.5f}, {found.baseline:.5f}"
    )
    return Outputs(verdict=Verdict.PASS, reason=reason, num_trials=found.num_trials, params=found.params)
