"""Judge a candidate on days it never saw, against the champion and two yardsticks, and in a real server."""

import json
import logging

from clearway.contracts.manifest import sha256_of
from clearway.contracts.verdict import Verdict
from clearway.evaluate.spec import Inputs, Outputs
from clearway.infra.environment import Environment
from clearway.infra.evaluations import evaluation_uri
from clearway.infra.layout import Layout
from clearway.infra.release_store import open_release_store
from clearway.infra.storage import Storage, open_storage
from clearway.product import LoadedProduct

LOG = logging.getLogger("clearway.evaluate")


def run(inputs: Inputs, *, product: LoadedProduct, env: Environment) -> Outputs:
    """Measure, judge, write the evaluation and its page.

    The same candidate, dataset, product and champion, again, find the evaluation that is there.
    Raises: IntegrityError for a dataset, candidate or champion that is not what its digest says; Unavailable if the
        model server does not come up.
    """
    storage, layout = open_storage(env.store_root), Layout(env.store_root, product.name)
    document, _ = open_release_store(env).read(product.name)
    case = {
        "model_digest": inputs.model.digest,
        "dataset_digest": inputs.dataset.digest,
        "product_digest": product.digest,
        "champion_digest": document.champion.digest if document.champion else None,
    }
    uri = evaluation_uri(layout, inputs.release_id)
    report_uri = layout.release(inputs.release_id, "evaluate", "report.html")
    data = _kept(storage, uri, case) if storage.exists(report_uri) else None
    if data is None:
        from clearway.evaluate.produce import produce  # noqa: PLC0415 - the numbers and their libraries

        data = produce(inputs, case=case, champion=document.champion, product=product, env=env, storage=storage)
    return _outputs(inputs, data, uri=uri, report_uri=report_uri)


def _kept(storage: Storage, uri: str, case: dict[str, str | None]) -> bytes | None:
    """The stored evaluation, if it is of this very case; an ERROR is no answer and is measured again."""
    if not storage.exists(uri):
        return None
    data = storage.read(uri)
    found = json.loads(data)
    is_same = all(found.get(key) == value for key, value in case.items())
    return data if is_same and found["verdict"] != Verdict.ERROR.value else None


def _outputs(inputs: Inputs, data: bytes, *, uri: str, report_uri: str) -> Outputs:
    found = json.loads(data)
    return Outputs(
        verdict=Verdict(found["verdict"]),
        reason=found["reason"],
        model=inputs.model,
        evaluation_uri=uri,
        evaluation_digest=sha256_of(data),
        report_uri=report_uri,
    )
