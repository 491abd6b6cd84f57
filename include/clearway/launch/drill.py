"""A fire drill: release a sabotaged copy of the champion and see it go back by itself.

The copy goes the way of every model: signed, approved on record (by the drill, in its name), deployed by the stage.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

from clearway.contracts.errors import ConfigError
from clearway.contracts.release_document import ReleaseDocument, Version
from clearway.contracts.verdict import Verdict
from clearway.infra.approvals import Approval, Decision, record_approval
from clearway.launch.sabotage import Defect, sabotage
from clearway.product_rollout import Rollout

if TYPE_CHECKING:
    from clearway.infra.environment import Environment
    from clearway.product import LoadedProduct

ANSWERED_BY = "drill"
# The copy that is to meet callers: a mirror before it would find every one of them first.
HEARD = Defect.CRASHING
DRIVER = "clearway.deploy"  # the logger of whoever drives a rollout


@dataclass(frozen=True, slots=True, kw_only=True)
class Drilled:
    """How one drill ended.

    Args:
        is_safe: the copy went back and the champion has all the traffic.
        num_requests: callers' requests that the copy was chosen for before it went back.
        num_unanswered: those of them that it gave no scores for; the champion answered them.
        seconds: from the start of the release to its end.
    """

    defect: str
    release_id: str
    is_safe: bool
    reason: str
    num_requests: int
    num_unanswered: int
    seconds: float

    @property
    def cost(self) -> str:
        """What it took of callers, in words."""
        if not self.num_requests:
            return "no caller met it"
        return f"{self.num_requests} requests met it, {self.num_unanswered} of them the champion had to answer"


def drill(env: "Environment", product: "LoadedProduct", defect: Defect, *, say: Callable[[str], None]) -> Drilled:
    """Release a copy of the champion with `defect`, to its end.

    Args:
        say: is told each event of the rollout, a line each.
    Raises: ConfigError where there is no champion to compare with, or a rollout that compares nothing.
    """
    from clearway.deploy.controls import open_controls  # noqa: PLC0415 - a stage, only loaded where it runs
    from clearway.deploy.run import deploy  # noqa: PLC0415
    from clearway.deploy.spec import Inputs  # noqa: PLC0415
    from clearway.deploy.strategies import begin  # noqa: PLC0415

    controls = open_controls(env, product=product.name)
    document, _ = controls.store.read(product.name)
    champion = _champion(document, product)
    ref = sabotage(controls, uri=champion.uri, digest=champion.digest, defect=defect)
    release_id = f"drill-{defect.value}-{document.epoch}"
    approval = Approval(
        product=product.name,
        release_id=release_id,
        model_digest=ref.digest,
        evaluation_digest=ref.digest,
        answer=Decision.AUTO,
        answered_by=ANSWERED_BY,
        note=f"a drill: a copy of {champion.digest} that is {defect.value}; it must go back by itself",
        is_required=False,
        risk_tier=product.spec.risk_tier,
    )
    uri, _ = record_approval(controls.storage, controls.layout, approval)
    begin_s = monotonic()
    inputs = Inputs(product=product.name, release_id=release_id, model=ref, approval_uri=uri)
    rollout = begin(plan_of(product.spec.rollout, defect))
    with _events(release_id, say):
        # The registry's alias follows the champion, which a drill leaves as it is.
        outputs = deploy(inputs, controls=controls, project=lambda _: None, rollout=rollout)
    after, _ = controls.store.read(product.name)
    state = controls.endpoint.state()
    arm = controls.endpoint.observe(epoch=after.epoch).arms.get(ref.digest)
    is_back = after.champion == champion and state.weights_pct == {champion.digest: 100.0}
    return Drilled(
        defect=defect.value,
        release_id=release_id,
        is_safe=outputs.verdict is Verdict.FAIL and is_back,
        reason=outputs.reason,
        num_requests=arm.num_requests if arm else 0,
        num_unanswered=arm.num_errors if arm else 0,
        seconds=round(monotonic() - begin_s, 1),
    )


def plan_of(settings: Rollout, defect: Defect) -> Rollout:
    """The product's own rollout; for `HEARD` without its mirror, if callers are split between two versions after it."""
    chain = settings.chain
    if defect is not HEARD or chain[0] != "shadow" or not {"canary", "ab_test"} & set(chain):
        return settings
    return settings.model_copy(update={"strategy": chain[1:]})


@contextmanager
def _events(release_id: str, say: Callable[[str], None]) -> Iterator[None]:
    """What the driver logs goes to `say`, and not into the log of this command."""

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say(f"    {release_id:<18} {record.getMessage()}")

    driver, lines = logging.getLogger(DRIVER), Lines(logging.INFO)
    before = driver.propagate
    driver.addHandler(lines)
    driver.propagate = False
    try:
        yield
    finally:
        driver.propagate = before
        driver.removeHandler(lines)


def _champion(document: ReleaseDocument, product: "LoadedProduct") -> Version:
    if not product.spec.rollout.num_judging:
        raise ConfigError(
            f"rollout.strategy of {product.name!r} is blue_green, which compares nothing after the switch: a drill "
            "would put a bad model into service; choose canary, or add watch"
        )
    if document.champion is None:
        raise ConfigError(f"no champion of {product.name!r} serves; release a model first")
    return document.champion
