"""The work of the evaluate stage: rows and models in, evaluation and page out."""

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from threadpoolctl import threadpool_limits

from clearway.contracts.codec import to_jsonable
from clearway.contracts.errors import Unmeasurable
from clearway.contracts.manifest import canonical_json, sha256_of
from clearway.contracts.release_document import Version
from clearway.contracts.verdict import Check, Judgement, Verdict, judge
from clearway.evaluate.ahead import read_yardsticks
from clearway.evaluate.kinds import Case, Found, Frame, Ground, Judge, judge_of
from clearway.evaluate.live import Latency, latency_check, model_server, smoke, time_single_rows
from clearway.evaluate.report import render_error
from clearway.evaluate.spec import Inputs
from clearway.infra.clock import SystemClock
from clearway.infra.environment import Environment
from clearway.infra.evaluations import evaluation_uri
from clearway.infra.faults import fault
from clearway.infra.layout import Layout
from clearway.infra.storage import Storage
from clearway.packaging.package import open_package
from clearway.product import LoadedProduct

LOG = logging.getLogger("clearway.evaluate")


def produce(
    inputs: Inputs,
    *,
    case: dict[str, str | None],
    champion: Version | None,
    product: LoadedProduct,
    env: Environment,
    storage: Storage,
) -> bytes:
    """Write timings, page and evaluation, in this order, and return the evaluation's bytes.

    What cannot be measured at all becomes an ERROR with its reason, never a verdict on the model.
    """
    layout, keys = Layout(env.store_root, product.name), env.home / "keys"
    yardsticks = read_yardsticks(storage, inputs.yardsticks, dataset=inputs.dataset, product=product)
    candidate = open_package(storage, inputs.model.uri, inputs.model.digest, key_folder=keys)
    serving = open_package(storage, champion.uri, champion.digest, key_folder=keys) if champion else None
    ground = Ground(dataset=inputs.dataset, product=product, env=env, storage=storage)
    asked = judge_of(Case(candidate=candidate, champion=serving, ground=ground, yardsticks=yardsticks.figures))
    with ThreadPoolExecutor(1) as beside, model_server(env, product=product.name, clock=SystemClock()) as ready:
        if not yardsticks.unmeasurable:
            asked.read()
        latency = time_single_rows(candidate)
        # A server takes two seconds to start and to load the package; until its answer is due, rows are judged.
        answered = beside.submit(lambda: smoke(ready(), inputs.model, candidate))

        def operational() -> list[Check]:
            checks = [latency_check(latency, limit_ms=asked.latency_ms), answered.result()]
            fault("evaluate.after_smoke")
            return checks

        with threadpool_limits(1, user_api="blas"):  # as the yardsticks were taken
            found = _found(asked, operational, unmeasurable=yardsticks.unmeasurable)
    fault("evaluate.before_write")
    return _write(inputs, found, latency, case=case, product=product, storage=storage, layout=layout)


def _found(asked: Judge, operational: Callable[[], Sequence[Check]], *, unmeasurable: str) -> Found:
    """`unmeasurable`: why there are no yardsticks to judge by, if there are none."""
    reason = unmeasurable
    if not reason:
        try:
            return asked.judge(operational)
        except Unmeasurable as error:
            reason = str(error)
    measurable = Check(name="measurable", verdict=Verdict.ERROR, reason=reason)
    return Nothing(judgement=judge([measurable, *operational()]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Nothing:
    """A `kinds.Found` where nothing could be measured."""

    judgement: Judgement

    def evidence(self) -> Mapping[str, Any]:
        return {}

    def page(self, frame: Frame) -> bytes:
        return render_error(self.judgement, title=frame.title, provenance=frame.provenance)

    def files(self) -> Mapping[str, bytes]:
        return {}


def _reason(judgement: Judgement) -> str:
    decisive = sum(c.is_decisive for c in judgement.checks)
    if judgement.verdict is Verdict.PASS:
        return f"{decisive} gates passed"
    return f"{len(judgement.reasons)} of {decisive} gates did not pass; first: {judgement.reasons[0]}"


def evaluation_json(found: Found, *, case: dict[str, str | None], release_id: str) -> bytes:
    """Canonical bytes: the same inputs give the same digest anywhere, so nothing timed and no address is in it."""
    judgement = found.judgement
    content: dict[str, Any] = {
        **case,
        "release_id": release_id,
        "verdict": judgement.verdict.value,
        "reason": _reason(judgement),
        "checks": to_jsonable(judgement.checks),
        **found.evidence(),
    }
    return canonical_json(content)


def _write(
    inputs: Inputs,
    found: Found,
    latency: Latency,
    *,
    case: dict[str, str | None],
    product: LoadedProduct,
    storage: Storage,
    layout: Layout,
) -> bytes:
    data = evaluation_json(found, case=case, release_id=inputs.release_id)
    title = f"Evaluation of {product.name}, release {inputs.release_id}"
    provenance = [("evaluation", sha256_of(data)), *((k, str(v)) for k, v in case.items())]
    html = found.page(Frame(title=title, latency=latency, provenance=provenance))
    others = {**found.files(), "timings.json": canonical_json(asdict(latency)), "report.html": html}
    for name, content in others.items():
        storage.write(layout.release(inputs.release_id, "evaluate", name), content)
    fault("evaluate.before_evaluation")
    storage.write(evaluation_uri(layout, inputs.release_id), data)
    return data
